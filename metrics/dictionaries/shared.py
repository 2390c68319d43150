"""`shared_features`: which features of one dictionary another has too, matched one to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from interp import numbers, theme
from interp.dictionaries import Dictionary
from interp.errors import InputError
from interp.interval import Estimate
from interp.result import Result
from metrics.statistics import share

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SharedFeatures(Result):
    """How much two dictionaries have in common; made by `metrics.shared_features`.

    Attributes:
        ratio: the share of matched pairs, one to one, of a cosine of at least `threshold`.
        nearest: the share of the first's features whose nearest of the second's is so near; several may share one, so
            that it is never smaller.
        cosine: float [pair]: of the matched pairs.
        pairs: int [pair, 2]: feature of the first, feature of the second.
        threshold: see above.

    Intervals are Wilson's, over features: how much another pair of seeds would differ they do not say.
    """

    ratio: Estimate
    nearest: Estimate
    cosine: Float[np.ndarray, " pair"]
    pairs: Int[np.ndarray, "pair 2"]
    threshold: float

    def to_frame(self) -> pd.DataFrame:
        """One row a matched pair, the nearest first. Columns: first, second, cosine."""
        frame = pd.DataFrame({"first": self.pairs[:, 0], "second": self.pairs[:, 1], "cosine": self.cosine})
        return frame.sort_values("cosine", ascending=False, kind="stable", ignore_index=True)

    def headline(self) -> str:
        return (
            f"{self.ratio} of {len(self.cosine):,} pairs are shared (cosine of at least {self.threshold:g}, one to "
            f"one); {self.nearest} by nearest neighbour"
        )

    def figure(self) -> Figure:
        """A histogram of the pairs' cosines, with the threshold."""
        import plotly.graph_objects as go

        figure = go.Figure(
            go.Histogram(x=self.cosine, marker_color=theme.BLUE, xbins={"start": -1, "end": 1, "size": 0.05})
        )
        figure.add_vline(x=self.threshold, line={"dash": "dot", "color": theme.DARK})
        figure.update_xaxes(title="cosine of matched features")
        figure.update_yaxes(title="pairs")
        return theme.styled(figure, f"features of two dictionaries, shared from a cosine of {self.threshold:g} on")


@numbers.checked(threshold=numbers.UNIT)
def shared_features(first: Dictionary, second: Dictionary, threshold: float = 0.7) -> SharedFeatures:
    """The shared feature ratio of two dictionaries of one place, such as two seeds (arXiv:2506.17673).

    Decoder rows are matched one to one so that the sum of their cosines is largest (the Hungarian method), and the
    share of pairs at or above `threshold` is counted, .7 as in the paper.

    Args:
        first, second: dictionaries of one width of activations; where one has fewer features, all of them are matched.
        threshold: the least cosine of a shared feature.

    Returns:
        `SharedFeatures`: `.ratio`, `.nearest`, `.cosine`, `.pairs`, `.figure()`.

    Cost: n^2 d_model multiplications, and the match, some n^3 steps.

    Raises:
        InputError: what is no `Dictionary`, or dictionaries that write into spaces of different width.
    """
    for name, one in (("first", first), ("second", second)):
        if not isinstance(one, Dictionary):
            raise InputError(f"{name} is a {type(one).__name__}; give a Dictionary")
    if first.d_model != second.d_model:
        raise InputError(f"first writes {first.d_model} numbers and second {second.d_model}; give two of one place")
    cosines = _directions(first) @ _directions(second).T
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    matched = cosines[rows, columns]
    return SharedFeatures(
        ratio=share(matched >= threshold),
        nearest=share(cosines.max(1) >= threshold),
        cosine=matched,
        pairs=np.stack((rows, columns), 1),
        threshold=threshold,
    )


def _directions(one: Dictionary) -> Float[np.ndarray, "feature d_model"]:
    """Decoder rows of length 1; one of zeros stays so, and is near nothing."""
    rows: Tensor = one.W_dec.detach().cpu().double()
    scaled: np.ndarray = (rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)).numpy()
    return scaled

"""`FeatureScores`: scores of the features of dictionaries, and of the errors that these leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attribution.units.base import UnitScores
from interp import numbers
from interp.errors import InputError

AXES = ("prompt", "dictionary", "position", "feature")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FeatureScores(UnitScores):
    """How much each feature of each dictionary, and each error, speaks for what is explained.

    Attributes:
        values: float [n, dictionary, pos, feature] on the CPU, in the order of the dictionaries that were given; 0
            where nothing is scored (padding; positions left out; for a task those before the first difference) and
            behind the features of smaller dictionaries; without the axes that were summed. None where the largest alone
            were kept, and for `exact`.
        activations: likewise, of the clean prompts; None where `values` is, and for sums.
        kept: the largest, or the ones patched: columns prompt, dictionary, position, feature, activation, score.
        errors: float [n, dictionary, pos]: the same score of what each dictionary leaves of its output; without the
            axes that were summed; None for `exact`, in whose table errors are feature -1.
        active: of each dictionary bool [feature]: what was active anywhere. The others have a score of 0.
        places: of each dictionary its layer and site.
        mask, explained, tokens, target_tokens, axes, method, rules, ablation, settings, model, seconds, paired: as for
            `NeuronScores`.
    """

    errors: Tensor | None
    active: list[Tensor]
    places: list[tuple[int, str]]

    units: ClassVar[str] = "features"

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """With columns layer and site behind the dictionary's number."""
        at = int(frame.columns.get_loc("dictionary")) + 1  # type: ignore[arg-type]
        layers, sites = (np.array([place[i] for place in self.places]) for i in (0, 1))
        frame = frame.copy()
        frame.insert(at, "site", sites[frame["dictionary"].to_numpy()])
        frame.insert(at, "layer", layers[frame["dictionary"].to_numpy()])
        return frame

    @numbers.checked(n=numbers.FROM_ZERO)
    def top_errors(self, n: int | None = 10) -> pd.DataFrame:
        """The `n` errors with the largest |score|; None: all. Columns as those of `top`, without feature.

        Raises `InputError` for `exact`, in whose table errors are feature -1.
        """
        if self.errors is None:
            raise InputError("errors that were patched stand in top(None), as feature -1")
        axes = [axis for axis in self.axes if axis != "feature"]
        flat = self.errors.flatten()
        chosen = flat.abs().topk(len(flat) if n is None else min(n, len(flat))).indices
        where = torch.unravel_index(chosen, self.errors.shape)
        columns = {axis: index.numpy() for axis, index in zip(axes, where, strict=True)}
        return self._named(pd.DataFrame(columns | {"score": flat[chosen].numpy()}))

    def sum(self, *over: str) -> Self:
        found = super().sum(*over)
        if self.errors is None:
            return found
        left = [axis for axis in self.axes if axis != "feature"]
        places = [i for i, axis in enumerate(left) if axis in over]
        return replace(found, errors=self.errors.sum(places) if places else self.errors)

    def headline(self) -> str:
        counts = sum(int(one.sum()) for one in self.active)
        return f"{super().headline()}; {counts:,} of {sum(len(one) for one in self.active):,} features ever active"

    def _unit(self, row: dict[Any, Any]) -> str:
        where = row["site"] if row["site"] == "embedding" else f"{row['site']} {row['layer']}"
        feature = row["feature"]
        return f"{where} error" if feature < 0 else f"{where} feature {feature}"


def summed_errors(errors: Tensor, over: Sequence[str]) -> Tensor:
    """Errors [n, dictionary, pos], summed over `"prompt"`, `"position"` or both."""
    places = [i for i, axis in enumerate(AXES[:3]) if axis in over]
    return errors.sum(places) if places else errors

"""What the randomisation test found: how alike explanations stay while parameters are drawn anew."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp.interval import Estimate
from metrics.explanation.prediction import Array
from metrics.explanation.saco import means

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MODES = ("cascading", "independent")
SAME, LIKE = 0.9, 0.2  # rank correlations from which on an explanation counts as unchanged, and as alike in part
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True, repr=False)
class Randomisation:
    """Rank correlations of explanations with those of the trained model.

    Attributes:
        values: (explainer, mode) -> [layer, 2, n], of the values and of their absolute values; NaN where either
            explanation is constant. Means over the draws.
        layers: in the order in which they are drawn anew, from the output to the input.
        draws: how many random models.
    """

    values: Mapping[tuple[str, str], Array]
    layers: tuple[str, ...]
    settings: Mapping[str, Any]
    draws: int

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per explainer, mode and layer.

        Columns: explainer, mode, step (layers drawn so far, from 1), layer, n, spearman, low, high, absolute, absolute
        low, absolute high.
        """
        rows = []
        for (name, mode), values in self.values.items():
            estimates = means(list(values.reshape(-1, values.shape[2])), self.settings)
            for i, layer in enumerate(self.layers):
                plain, absolute = estimates[2 * i : 2 * i + 2]
                rows.append(
                    {
                        "explainer": name, "mode": mode, "step": i + 1, "layer": layer,
                        "n": int(np.isfinite(values[i, 0]).sum()),
                        "spearman": plain.value, "low": plain.low, "high": plain.high,
                        "absolute": absolute.value, "absolute low": absolute.low, "absolute high": absolute.high,
                    }
                )  # fmt: skip
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    def final(self, explainer: str) -> tuple[Estimate, Estimate]:
        """Correlation of values and of absolute values with all layers random.

        Where layers were drawn only one by one: those of the layer that changes the explanation most.
        """
        cascading = (explainer, "cascading") in self.values
        values = self.values[explainer, "cascading" if cascading else "independent"]
        pairs = [tuple(means(list(stage), self.settings)) for stage in values]
        chosen = pairs[-1] if cascading else min(pairs, key=_likeness)
        return chosen[0], chosen[1]

    @property
    def reading(self) -> dict[str, str]:
        """By explainer, a sentence: `fails` from a correlation of 0.9, `in part` from 0.2, else `passes`.

        What counts is the larger, by absolute value, of the two correlations. To pass is necessary, not sufficient.
        """
        return {name: self._read(name) for name in dict.fromkeys(name for name, _ in self.values)}

    def _read(self, name: str) -> str:
        plain, absolute = self.final(name)
        like = _likeness((plain, absolute))
        when = "with all layers random" if (name, "cascading") in self.values else "whichever layer is drawn alone"
        both = f"rank correlation {plain}, of absolute values {absolute}"
        if np.isnan(like):
            return f"no value: {when} it is constant in every sample"
        if like >= SAME:
            one = plain if abs(plain.value) >= SAME else absolute
            return f"fails: {when} it is the same (rank correlation {one})"
        if like >= LIKE:
            return f"in part: {when} this much of its order is left, which was not learnt ({both})"
        return f"passes: {when} hardly anything is left of its order ({both})"

    def __repr__(self) -> str:
        lines = [f"  {name}: {sentence}" for name, sentence in self.reading.items()]
        return "\n".join([f"Randomisation, {len(self.layers)} layers, {self.draws} draws", *lines])

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<li><b>{html.escape(name)}</b> {html.escape(sentence)}</li>" for name, sentence in self.reading.items()
        )
        return f"<ul>{lines}</ul>{self.frame.to_html(index=False, border=0, float_format='{:.3f}'.format)}"

    def figure(self) -> Figure:
        """Correlation over the layers drawn anew, for each mode; of absolute values dotted."""
        from plotly.subplots import make_subplots

        modes = list(dict.fromkeys(mode for _, mode in self.values))
        figure = make_subplots(rows=len(modes), subplot_titles=modes)
        for i, (name, mode) in enumerate(self.values):
            own = self.frame[(self.frame["explainer"] == name) & (self.frame["mode"] == mode)]
            row = modes.index(mode) + 1
            colour = _COLOURS[(i % (len(self.values) // len(modes))) % len(_COLOURS)]
            for column, prefix, dash in (("spearman", "", "solid"), ("absolute", "absolute ", "dot")):
                low, high = own[f"{prefix}low"], own[f"{prefix}high"]
                label = html.escape(name if column == "spearman" else f"{name}, absolute", quote=False)
                figure.add_scatter(
                    x=["trained", *own["layer"]], y=[1.0, *own[column]], name=label, legendgroup=label,
                    showlegend=row == 1, line={"color": colour, "dash": dash}, mode="lines+markers",
                    error_y={
                        "type": "data", "symmetric": False,
                        "array": [0.0, *(high - own[column])], "arrayminus": [0.0, *(own[column] - low)],
                    }, row=row, col=1,
                )  # fmt: skip
        figure.add_hline(y=0, line={"dash": "dot", "color": "#666666"})
        figure.update_yaxes(title="rank correlation")
        figure.update_xaxes(title="layers drawn anew, from the output", row=len(modes), col=1)
        figure.update_layout(template="plotly_white", height=160 + 280 * len(modes))
        return figure


def _likeness(pair: tuple[Estimate, ...]) -> float:
    known = [abs(one.value) for one in pair if not np.isnan(one.value)]
    return max(known) if known else float("nan")

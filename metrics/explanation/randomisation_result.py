"""What the randomisation test found: how alike explanations stay while parameters are drawn anew."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from interp import theme
from interp.errors import InputError
from interp.interval import Estimate, Interval
from interp.result import Result
from interp.tables import html_table
from metrics.explanation.prediction import Array
from metrics.explanation.samples import means

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MODES = ("cascading", "independent")
SAME, LIKE = 0.9, 0.2  # rank correlations from which on an explanation counts as unchanged, and as alike in part


@dataclass(frozen=True, repr=False)
class Randomisation(Result):
    """Rank correlations of explanations with those of the trained model.

    Attributes:
        values: (explainer, mode) -> [layer, 2, n], of the values and of their absolute values; NaN where either
            explanation is constant. Means over the draws.
        layers: in the order in which they are drawn anew, from the output to the input.
        interval: how the intervals over samples are made.
        draws: how many random models.
    """

    values: Mapping[tuple[str, str], Array]
    layers: tuple[str, ...]
    interval: Interval
    draws: int

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per explainer, mode and layer.

        Columns: explainer, mode, step (layers drawn so far, from 1), layer, n, spearman, spearman_low,
        spearman_high, absolute, absolute_low, absolute_high.
        """
        rows = []
        for (name, mode), values in self.values.items():
            estimates = means(list(values.reshape(-1, values.shape[2])), self.interval)
            for i, layer in enumerate(self.layers):
                plain, absolute = estimates[2 * i : 2 * i + 2]
                known = int(np.isfinite(values[i, 0]).sum())
                row = {"explainer": name, "mode": mode, "step": i + 1, "layer": layer, "n": known}
                rows.append({**row, **plain.columns("spearman"), **absolute.columns("absolute")})
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
        pairs = [tuple(means(list(stage), self.interval)) for stage in values]
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

    def fits(self) -> None:
        super().fits()
        if not self.values:
            raise InputError("values has no explainer")

    def headline(self) -> str:
        told = "; ".join(f"{name}: {sentence}" for name, sentence in self.reading.items())
        return f"{len(self.layers)} layers, {self.draws} draws; {told}"

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<li><b>{html.escape(name)}</b> {html.escape(sentence)}</li>" for name, sentence in self.reading.items()
        )
        return f"<ul>{lines}</ul>{html_table(self.frame)}"

    def figure(self) -> Figure:
        """Correlation over the layers drawn anew, for each mode; of absolute values dotted."""
        from plotly.subplots import make_subplots

        modes = list(dict.fromkeys(mode for _, mode in self.values))
        names = list(dict.fromkeys(name for name, _ in self.values))
        figure = make_subplots(rows=len(modes), subplot_titles=modes)
        for name, mode in self.values:
            own = self.frame[(self.frame["explainer"] == name) & (self.frame["mode"] == mode)]
            row, colour = modes.index(mode) + 1, theme.SERIES[names.index(name) % len(theme.SERIES)]
            for column, dash in (("spearman", "solid"), ("absolute", "dot")):
                triples = own[[column, f"{column}_low", f"{column}_high"]].to_numpy().tolist()
                points = [Estimate(1.0, 1.0, 1.0), *(Estimate(*triple) for triple in triples)]
                label = theme.label(name if column == "spearman" else f"{name}, absolute")
                figure.add_scatter(
                    x=["trained", *own["layer"]], y=[point.value for point in points], name=label, legendgroup=label,
                    showlegend=row == 1, line={"color": colour, "dash": dash}, mode="lines+markers",
                    error_y=theme.error_bars(points), row=row, col=1,
                )  # fmt: skip
        theme.target_line(figure, 0)
        figure.update_yaxes(title="rank correlation")
        figure.update_xaxes(title="layers drawn anew")
        title = f"Randomisation of the model's layers, drawn anew {self.draws} times: {', '.join(names)}"
        return theme.styled(figure, title, height=200 + 280 * len(modes))


def _likeness(pair: tuple[Estimate, ...]) -> float:
    known = [abs(one.value) for one in pair if not np.isnan(one.value)]
    return max(known) if known else float("nan")

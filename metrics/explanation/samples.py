"""What all per-sample metrics of explanations give back: values, means with intervals, and those of random scores."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from interp import theme
from interp.errors import choose
from interp.interval import Estimate, Interval
from interp.result import Result
from interp.tables import html_table
from metrics.explanation.prediction import Array, Subject
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SHARE, _DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
_POSSIBLE = {
    "saco": _DIFFERENCE, "between": _DIFFERENCE, "comprehensiveness": _DIFFERENCE, "sufficiency": _DIFFERENCE,
    "morf": _SHARE, "lerf": _SHARE, "insertion": _SHARE, "first": _SHARE, "fraction": _SHARE,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class PerSample(Result):
    """Values of metrics for each sample, and their means with bootstrap intervals over samples.

    `result["name"]` is the mean of a metric as an `Estimate`. A sample without a value is NaN and left out of the mean.

    Attributes:
        columns: by metric, values `[n]`.
        better: by metric, `higher` or `lower`.
        random_columns: the same values for the scores dealt out at random over the elements, mean over the draws.
        interval: how the intervals are made.
        note: what a reader must know.
    """

    matching: ClassVar[tuple[tuple[str, ...], ...]] = (("columns", "better", "random_columns"),)

    columns: Mapping[str, Array]
    better: Mapping[str, str]
    random_columns: Mapping[str, Array] | None = None
    interval: Interval = field(default_factory=Interval)
    note: str = ""

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[choose("metric", name, self.columns)]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Means by metric."""
        return self._means(self.columns)

    @cached_property
    def random(self) -> dict[str, Estimate] | None:
        """Means for the scores dealt out at random, if they were asked for."""
        return None if self.random_columns is None else self._means(self.random_columns)

    def _means(self, columns: Mapping[str, Array]) -> dict[str, Estimate]:
        found = zip(columns, means(list(columns.values()), self.interval), strict=True)
        return {name: _inside(one, columns[name], name) for name, one in found}

    def to_frame(self) -> pd.DataFrame:
        """One row per sample; columns for the scores dealt out at random are called `random_...`."""
        others = {f"random_{name}": values for name, values in (self.random_columns or {}).items()}
        return pd.DataFrame({"sample": np.arange(len(next(iter(self.columns.values())))), **self.columns, **others})

    def summary(self) -> pd.DataFrame:
        """One row per metric: mean and interval, that of random scores, and the paired difference of the two.

        Columns: metric, better, n, value, low, high; with random scores also random, random_low, random_high,
        difference, difference_low and difference_high.
        """
        rows = []
        for name, values in self.columns.items():
            own = self.estimates[name]
            row: dict[str, Any] = {"metric": name, "better": self.better[name], "n": int(np.isfinite(values).sum())}
            row |= {"value": own.value, "low": own.low, "high": own.high}
            if self.random_columns is not None and self.random is not None:
                row |= self.random[name].columns("random")
                row |= means([values - self.random_columns[name]], self.interval)[0].columns("difference")
            rows.append(row)
        return pd.DataFrame(rows)

    def headline(self) -> str:
        told = ", ".join(f"{name} {one} ({self.better[name]} is better)" for name, one in self.estimates.items())
        return f"{told}; {self.note}" if self.note else told

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{html_table(self.summary())}"

    def figure(self) -> Figure:
        """A panel for each metric: every sample, the mean with its interval, and random scores beside it."""
        from plotly.subplots import make_subplots

        titles = [theme.label(f"{name} ({self.better[name]} is better)") for name in self.columns]
        n_panels = len(self.columns)
        figure = make_subplots(cols=n_panels, subplot_titles=titles, horizontal_spacing=0.4 / max(2, n_panels + 1))
        groups = [("explanation", self.columns, self.estimates, theme.OWN)]
        if self.random_columns is not None and self.random is not None:
            groups.append(("random", self.random_columns, self.random, theme.CONTROL))
        for column, name in enumerate(self.columns, 1):
            figure.update_yaxes(title=theme.label(name), col=column)
            for label, values, estimates, colour in groups:
                mean = estimates[name]
                own = {"legendgroup": label, "name": label, "showlegend": False}
                figure.add_box(
                    y=values[name], x=[label] * len(values[name]), boxpoints="all",
                    marker={"color": colour, "size": 4}, row=1, col=column, **own,
                )  # fmt: skip
                figure.add_scatter(
                    y=[mean.value], x=[label], row=1, col=column, error_y=theme.error_bars([mean]),
                    marker={"color": theme.INK, "symbol": "diamond", "size": 9}, hovertext=f"mean {mean}", **own,
                )  # fmt: skip
        figure.update_xaxes(title="scores of")
        n = len(next(iter(self.columns.values())))
        return theme.styled(figure, f"{', '.join(self.columns)} of an explanation, {n:,} samples")


def means(rows: list[Array], interval: Interval) -> list[Estimate]:
    """Means of rows `[n]` with intervals; rows without NaN share their resamples.

    NaN is left out: intervals are over the samples that have a value, of which one has none.
    """
    values = np.stack(rows)
    there = np.isfinite(values)
    nothing = Estimate(np.nan, np.nan, np.nan, interval.confidence)
    result = [nothing] * len(values)
    for known in np.unique(there, axis=0):
        chosen = np.flatnonzero((there == known).all(1))
        if known.any():
            found = bootstrapped(values[np.ix_(chosen, np.flatnonzero(known))], lambda means: means, interval)
            for i, one in zip(chosen, found, strict=True):
                result[i] = one
    return result


def with_random(
    measure: Callable[[Subject], dict[str, Array]], subject: Subject, n_random: int
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Values of a metric, and their mean over `n_random` times the scores dealt out at random (None, if 0)."""
    values = measure(subject)
    if not n_random:
        return values, None
    draws = [measure(subject.shuffled(subject.seed + 1 + i)) for i in range(n_random)]
    return values, {name: np.mean([draw[name] for draw in draws], axis=0) for name in values}


def _inside(mean: Estimate, values: Array, name: str) -> Estimate:
    """Its interval cut off at what a metric can be; other measures of the same name may exceed that."""
    low, high = _POSSIBLE.get(name, (-np.inf, np.inf))
    known = values[np.isfinite(values)]
    if not ((known >= low) & (known <= high)).all():
        return mean
    return replace(mean, low=float(np.clip(mean.low, low, high)), high=float(np.clip(mean.high, low, high)))

"""What Recursive ROAR found: performance curves with intervals, RACU, a plot."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp import theme
from interp.errors import InputError
from interp.interval import Estimate, Interval
from interp.result import Result
from interp.tables import html_table
from metrics.explanation.roar_plan import RANDOM, Retraining
from metrics.explanation.roar_run import Job, accuracy, macro_f1, read_performance
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ANY = (-np.inf, np.inf)


@dataclass(frozen=True, repr=False)
class RoarResult(Result):
    """Performance of retrained models over what was masked, and how far below random masking it lies.

    Attributes:
        curves: a data frame, one row a training: measure, seed, ratio (0: nothing masked), performance. `random`
            is the baseline.
        everything: performance by seed with everything masked.
        racu: measure -> RACU with its bootstrap interval over seeds. A measure is faithful where the interval lies
            above 0. NaN where masking everything costs nothing.
        racu_by_seed: a data frame, one row a seed, one column a measure.
        recursive: Recursive ROAR, or plain ROAR.
        interval: how the intervals are made.
        possible: what performance can be.
    """

    curves: pd.DataFrame
    everything: dict[int, float]
    racu: dict[str, Estimate]
    racu_by_seed: pd.DataFrame
    recursive: bool
    interval: Interval = field(default_factory=Interval)
    possible: tuple[float, float] = _ANY

    def summary(self) -> pd.DataFrame:
        """Mean performance over seeds with its interval: measure, ratio, performance, low, high."""
        rows = []
        for (measure, ratio), part in self.curves.groupby(["measure", "ratio"], sort=False):
            mean = _interval(part["performance"].to_numpy(), self.interval, self.possible)
            rows.append((measure, ratio, mean.value, mean.low, mean.high))
        return pd.DataFrame(rows, columns=["measure", "ratio", "performance", "low", "high"])

    def to_frame(self) -> pd.DataFrame:
        """RACU: measure, racu, low, high, and whether the interval lies above 0."""
        rows = [(measure, one.value, one.low, one.high, one.low > 0) for measure, one in self.racu.items()]
        return pd.DataFrame(rows, columns=["measure", "racu", "low", "high", "faithful"])

    def table(self) -> pd.DataFrame:
        """Mean performance, a row a measure and a column a ratio."""
        wide = self.curves.pivot_table(index="measure", columns="ratio", values="performance", sort=False)
        return wide.reindex(columns=sorted(wide.columns))

    def figure(self) -> Figure:
        """Performance over what is masked, mean and interval for each measure; random masking in grey."""
        import plotly.graph_objects as go

        figure = go.Figure()
        summary = self.summary()
        for i, measure in enumerate([RANDOM, *self.racu]):
            part = summary[summary["measure"] == measure]
            points = [Estimate(*row) for row in part[["performance", "low", "high"]].to_numpy().tolist()]
            name = theme.label(measure)
            figure.add_scatter(
                x=part["ratio"],
                y=part["performance"],
                error_y=theme.error_bars(points),
                name=name if measure == RANDOM else f"{name}<br>RACU {self.racu[measure]}",
                mode="lines+markers",
                line={"color": theme.CONTROL if measure == RANDOM else theme.SERIES[(i - 1) % len(theme.SERIES)]},
                hovertemplate="%{y:.3f} at %{x}<extra>" + name + "</extra>",
            )
        everything = float(np.mean(list(self.everything.values())))
        figure.add_hline(y=everything, line={"dash": "dot", "color": theme.DARK}, annotation_text="everything masked")
        relative = summary["ratio"].max() <= 1 and pd.api.types.is_float_dtype(summary["ratio"])
        figure.update_xaxes(title="share masked" if relative else "elements masked")
        figure.update_yaxes(title="performance after retraining")
        return theme.styled(figure, f"{self._name}: {', '.join(self.racu)}")

    @property
    def _name(self) -> str:
        seeds = len(self.everything)
        return f"{'Recursive ROAR' if self.recursive else 'ROAR'}, {seeds} seed{'s' if seeds > 1 else ''}"

    def fits(self) -> None:
        super().fits()
        self.summary()
        if not self.everything:
            raise InputError("everything has no seed")

    def headline(self) -> str:
        return ", ".join([self._name, *(f"{measure}: RACU {one}" for measure, one in self.racu.items())])

    def _repr_html_(self) -> str:
        table = html_table(self.table().reset_index())
        return f"<p>{html.escape(repr(self))}</p>{html_table(self.to_frame())}{table}"


def result_of(job: Job, protocol: Retraining, seeds: Sequence[int], interval: Interval) -> RoarResult:
    """Read the records of all seeds and measure the areas."""
    x, ratios = protocol.places, protocol.ratios
    unmasked = [read_performance(job.record(seed, None, -1)) for seed in seeds]
    everything = [read_performance(job.record(seed, None, 0)) for seed in seeds]
    reached: dict[str, NDArray[np.float64]] = {}
    for measure in (RANDOM, *job.explain):
        steps = [[read_performance(job.record(seed, measure, i)) for i in range(len(job.steps))] for seed in seeds]
        # with everything masked there is one model for all measures
        last = [[value] for value in everything] if len(job.steps) < len(ratios) else [[] for _ in seeds]
        reached[measure] = np.array([[u, *s, *e] for u, s, e in zip(unmasked, steps, last, strict=True)])
    rows = [
        (measure, seed, ratio, float(curves[i, j]))
        for measure, curves in reached.items()
        for i, seed in enumerate(seeds)
        for j, ratio in enumerate(x)
    ]
    areas = {one: protocol.racu(reached[one], reached[RANDOM], everything) for one in job.explain}
    return RoarResult(
        curves=pd.DataFrame(rows, columns=["measure", "seed", "ratio", "performance"]),
        everything=dict(zip(seeds, everything, strict=True)),
        racu={measure: _interval(values, interval, protocol.possible) for measure, values in areas.items()},
        racu_by_seed=pd.DataFrame({"seed": list(seeds), **areas}),
        recursive=job.recursive,
        interval=interval,
        possible=(0.0, 1.0) if job.performance in (accuracy, macro_f1) else _ANY,
    )


def _interval(values: NDArray[Any], interval: Interval, possible: tuple[float, float]) -> Estimate:
    """Mean over the seeds that have a value, with its interval."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(np.nan, np.nan, np.nan, interval.confidence)
    return bootstrapped(known, lambda means: means[:, None], interval, possible)[0]

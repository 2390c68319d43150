"""What Recursive ROAR found: performance curves with intervals, RACU, a plot."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.interval import Estimate
from metrics.explanation.racu import racu
from metrics.explanation.roar_plan import RANDOM
from metrics.explanation.roar_run import Job, accuracy, macro_f1, read_performance
from metrics.statistics import bootstrap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ANY = (-np.inf, np.inf)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True, repr=False)
class RoarResult:
    """Performance of retrained models over what was masked, and how far below random masking it lies.

    Attributes:
        curves: a data frame, one row a training: measure, seed, ratio (0: nothing masked), performance. `random`
            is the baseline.
        everything: performance by seed with everything masked.
        racu: measure -> RACU with its bootstrap interval over seeds. A measure is faithful where the interval lies
            above 0. NaN where masking everything costs nothing.
        racu_by_seed: a data frame, one row a seed, one column a measure.
        recursive: Recursive ROAR, or plain ROAR.
        range: what performance can be.
    """

    curves: pd.DataFrame
    everything: dict[int, float]
    racu: dict[str, Estimate]
    racu_by_seed: pd.DataFrame
    recursive: bool
    confidence: float
    resamples: int
    range: tuple[float, float] = _ANY

    def summary(self) -> pd.DataFrame:
        """Mean performance over seeds with its interval: measure, ratio, performance, low, high."""
        rows = []
        for (measure, ratio), part in self.curves.groupby(["measure", "ratio"], sort=False):
            mean = _interval(part["performance"].to_numpy(), self.confidence, self.resamples, self.range)
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
            figure.add_scatter(
                x=part["ratio"],
                y=part["performance"],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": part["high"] - part["performance"],
                    "arrayminus": part["performance"] - part["low"],
                },
                name=measure if measure == RANDOM else f"{measure}<br>RACU {self.racu[measure]}",
                mode="lines+markers",
                line={"color": "#999999" if measure == RANDOM else _COLOURS[(i - 1) % len(_COLOURS)]},
                hovertemplate="%{y:.3f} at %{x}<extra>" + html.escape(measure) + "</extra>",
            )
        everything = float(np.mean(list(self.everything.values())))
        figure.add_hline(y=everything, line={"dash": "dot", "color": "#666666"}, annotation_text="everything masked")
        relative = summary["ratio"].max() <= 1 and pd.api.types.is_float_dtype(summary["ratio"])
        figure.update_xaxes(title="share masked" if relative else "elements masked")
        figure.update_yaxes(title="performance after retraining")
        figure.update_layout(template="plotly_white", title=self._name)
        return figure

    @property
    def _name(self) -> str:
        seeds = len(self.everything)
        return f"{'Recursive ROAR' if self.recursive else 'ROAR'}, {seeds} seed{'s' if seeds > 1 else ''}"

    def __repr__(self) -> str:
        lines = [f"  {measure}: RACU {one}" for measure, one in self.racu.items()]
        table = self.table().to_string(float_format=lambda v: f"{v:.3f}")
        return "\n".join([self._name, *lines, table])

    def _repr_html_(self) -> str:
        estimates = self.to_frame().to_html(index=False, border=0, float_format="{:.3f}".format)
        table = self.table().to_html(border=0, float_format="{:.3f}".format)
        return f"<p><b>{self._name}</b></p>{estimates}{table}"


def result_of(
    job: Job,
    seeds: Sequence[int],
    ratios: Sequence[float],
    clip: bool,
    least: float,
    confidence: float,
    resamples: int,
) -> RoarResult:
    """Read the records of all seeds and measure the areas."""
    x: list[float] = [0 if isinstance(ratios[0], int) else 0.0, *ratios]
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
    areas = {
        measure: racu(x, reached[measure], reached[RANDOM], everything, clip=clip, least=least)
        for measure in job.explain
    }
    clipped = (-1.0, 1.0) if clip else _ANY
    return RoarResult(
        curves=pd.DataFrame(rows, columns=["measure", "seed", "ratio", "performance"]),
        everything=dict(zip(seeds, everything, strict=True)),
        racu={measure: _interval(values, confidence, resamples, clipped) for measure, values in areas.items()},
        racu_by_seed=pd.DataFrame({"seed": list(seeds), **areas}),
        recursive=job.recursive,
        confidence=confidence,
        resamples=resamples,
        range=(0.0, 1.0) if job.performance in (accuracy, macro_f1) else _ANY,
    )


def _interval(values: NDArray[Any], confidence: float, resamples: int, possible: tuple[float, float]) -> Estimate:
    """Mean over the seeds that have a value, with its interval."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(np.nan, np.nan, np.nan, confidence)
    (mean,) = bootstrap(
        known, lambda means: means[:, None], confidence=confidence, resamples=resamples, possible=possible
    )
    return mean

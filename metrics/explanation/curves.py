"""Curves of the probability while elements are removed in the order of an explanation, and the areas under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd

from interp import numbers, theme
from interp.errors import InputError, choose
from interp.interval import Estimate
from interp.keywords import check_keywords
from metrics.explanation.baselines import Baseline, Fill, filler
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import Array, Indices, SampleKeywords, Subject
from metrics.explanation.samples import PerSample, means, with_random

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MEASURES = ("probability", "accuracy")
BETTER = {"morf": "lower", "lerf": "higher", "between": "higher", "insertion": "higher"}
COLOURS = {"morf": theme.PURPLE, "lerf": theme.SKY, "insertion": theme.GREEN}


@dataclass(frozen=True, kw_only=True, repr=False)
class Curves(PerSample):
    """Areas per sample and the curves they are taken from.

    Attributes:
        fractions: shares of the elements that are removed (`morf`, `lerf`) or present (`insertion`), `[k]`.
        curves: `morf`, `lerf`, `insertion`, each `[n, k]`. The deletion curve is `morf`.
        random_curves: the same for the scores dealt out at random, means over the draws.
    """

    matching: ClassVar = (*PerSample.matching, ("curves", "random_curves"))

    fractions: Array
    curves: dict[str, Array]
    random_curves: dict[str, Array] | None = None

    def points(self, name: str) -> list[Estimate]:
        """Means of a curve over the samples with intervals, one for each fraction."""
        return means(list(self.curves[choose("curve", name, self.curves)].T), self.interval)

    def fits(self) -> None:
        super().fits()
        self.curve_frame()
        for name in self.curves:
            _ = self[name], COLOURS[name]

    def curve_frame(self) -> pd.DataFrame:
        """Columns curve, fraction, value, low, high and, if it was asked for, random."""
        rows = []
        for name in self.curves:
            for i, (fraction, point) in enumerate(zip(self.fractions, self.points(name), strict=True)):
                row = {"curve": name, "fraction": fraction, "value": point.value, "low": point.low, "high": point.high}
                if self.random_curves is not None:
                    row["random"] = self.random_curves[name][:, i].mean()
                rows.append(row)
        return pd.DataFrame(rows)

    def figure(self) -> Figure:
        """Mean curves with bands, over the share of elements; random ones dotted."""
        import plotly.graph_objects as go

        figure = go.Figure()
        for name, part in self.curve_frame().groupby("curve", sort=False):
            colour = COLOURS[str(name)]
            theme.band(figure, part["fraction"].tolist(), part["low"].tolist(), part["high"].tolist(), colour)
            label = f"{name}, area {self.estimates[str(name)]}"
            figure.add_scatter(x=part["fraction"], y=part["value"], name=label, line={"color": colour})
            if "random" in part:
                dotted = {"color": colour, "dash": "dot"}
                figure.add_scatter(x=part["fraction"], y=part["random"], name=f"{name}, random", line=dotted)
        figure.update_xaxes(title="share of elements removed (insertion: present)")
        figure.update_yaxes(title="mean over samples")
        return theme.styled(
            figure, f"Removal curves of an explanation, {len(next(iter(self.columns.values()))):,} samples"
        )


@dataclass(frozen=True)
class RemovalCurvesMetric(ExplanationMetric):
    """MoRF, LeRF and insertion curves: `removal_curves` says what they are and what the settings mean."""

    insertion: Baseline | None = None
    fractions: int | Sequence[float] = 10
    measure: str = "probability"

    name = "removal-curves"
    columns = {name: name for name in BETTER}  # noqa: RUF012

    def __post_init__(self) -> None:
        choose("measure", self.measure, MEASURES)
        fraction_grid(self.fractions)

    def run(self, case: Case) -> Curves:
        grid, own = fraction_grid(self.fractions), case.subject
        fill = own.fill if self.insertion is None else filler(self.insertion, own.inputs, own.seed, own.predictor.numpy)
        drawn: list[dict[str, Array]] = []

        def areas(subject: Subject) -> dict[str, Array]:
            result, curves = self._measured(subject, fill, grid)
            drawn.append(curves)
            return result

        columns, others = with_random(areas, own, case.n_random)
        names = list(drawn[0]) if others else []
        random = {name: np.asarray(np.mean([one[name] for one in drawn[1:]], axis=0)) for name in names}
        return Curves(
            columns=columns,
            better=BETTER,
            random_columns=others,
            interval=case.interval,
            note=own.note,
            fractions=grid,
            curves=drawn[0],
            random_curves=random or None,
        )

    def _measured(self, subject: Subject, insertion: Fill, grid: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Areas `[n]` and curves `[n, k]`."""
        sizes = subject.sizes[:, None]
        removed = counts(subject.sizes, grid)
        zero = np.zeros_like(removed)

        def run(own: Subject, low: Indices, high: Indices, name: str) -> Array:
            values, decisions = own.windows(low, high, name)
            if self.measure == "probability":
                return values
            return np.asarray(decisions == own.target.numpy()[:, None], np.float64)

        curves = {
            "morf": run(subject, zero, removed, "MoRF"),
            "lerf": run(subject, sizes - removed, zero + sizes, "LeRF"),
            "insertion": run(replace(subject, fill=insertion), removed, zero + sizes, "insertion"),
        }
        areas = {name: np.asarray(np.trapezoid(curve, removed / sizes, axis=1)) for name, curve in curves.items()}
        areas["between"] = areas["lerf"] - areas["morf"]
        return {name: areas[name] for name in BETTER}, curves


@numbers.checked()
def removal_curves(
    predict: Callable[[Any], Any],
    inputs: Any,
    attributions: Any,
    *,
    target: Any = None,
    baseline: Baseline | None = None,
    insertion: Baseline | None = None,
    fractions: int | Sequence[float] = 10,
    measure: str = "probability",
    real: Any = None,
    n_random: int = 0,
    **keywords: Unpack[SampleKeywords],
) -> Curves:
    """MoRF, LeRF, deletion and insertion curves with their areas (Samek et al. 2017; Petsiuk et al. 2018).

    - `morf`: the most relevant elements are removed first; this is the deletion curve. Lower is better.
    - `lerf`: the least relevant first. Higher is better.
    - `between`: area under lerf minus area under morf. Higher is better; 0 for a random order.
    - `insertion`: an input with everything replaced, to which the most relevant elements come back first. Higher is
      better. With the same baseline it is lerf seen from the other end, with the same area but for rounding.

    Areas are by trapezoids over the shares that were really removed (whole elements); they depend on the order of the
    elements alone, so a monotone rescaling of the attributions changes nothing. Costs 3 (steps + 1) model runs per
    sample, and as many again for each of `n_random`.

    Args:
        insertion: what stands in for elements not yet inserted, often `blur`; None: the same as `baseline`.
        fractions: so many equal steps from 0 to 1, or rising shares that begin with 0 and end with 1.
        measure: `probability` of the target, or `accuracy`, 1 where the target is the most likely class.

    The other arguments are those of `saco`.

    Returns:
        `Curves`: `columns` holds the areas, `curves` the curves, each per sample; `figure()`, `curve_frame()`.

    Raises:
        InputError: as in `saco`; fractions that do not rise from 0 to 1.

    >>> import torch
    >>> weights = torch.tensor([0.4, 0.3, 0.2])
    >>> def predict(x):
    ...     p = x @ weights
    ...     return torch.stack((1 - p, p), 1)
    >>> result = removal_curves(predict, torch.ones(1, 3), [[3.0, 2.0, 1.0]], fractions=3, target=1, baseline="zero")
    >>> result.curves["morf"].round(3)
    array([[0.9, 0.5, 0.2, 0. ]])
    """
    check_keywords("removal_curves", keywords, SampleKeywords)
    metric = RemovalCurvesMetric(insertion, fractions, measure)
    case = Case.of(
        predict, inputs, attributions, keywords, target=target, baseline=baseline, real=real, n_random=n_random
    )
    return metric.run(case)


def fraction_grid(fractions: int | Sequence[float]) -> Array:
    """Shares `[k]` from 0 to 1."""
    steps = numbers.read(fractions)
    if isinstance(steps, int) and steps >= 1:
        return np.linspace(0, 1, steps + 1)
    several = steps is None and not isinstance(fractions, bool | str)
    grid = np.array(numbers.many("fractions", fractions, numbers.real) if several else ())
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or not (np.diff(grid) > 0).all():
        raise InputError(
            f"fractions={fractions!r} must be a number of steps, at least 1, or shares that rise from 0 to 1"
        )
    return grid


def counts(sizes: Indices, fractions: Array) -> Indices:
    """Nearest whole numbers of elements `[n, k]`, halves upwards."""
    return np.asarray(np.floor(sizes[:, None] * fractions + 0.5 + 1e-9), np.int64)

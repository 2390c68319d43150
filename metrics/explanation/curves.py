"""Curves of the probability while elements are removed in the order of an explanation, and the areas under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp import numbers
from interp.errors import InputError, choose
from interp.interval import Estimate
from metrics.explanation.prediction import Array, Indices, Subject
from metrics.explanation.replacement import Fill, Replacement, filler
from metrics.explanation.saco import PerSample, interval_settings, means, with_baseline

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MEASURES = ("probability", "accuracy")
BETTER = {"morf": "lower", "lerf": "higher", "between": "higher", "insertion": "higher"}
COLOURS = {"morf": "#D55E00", "lerf": "#0072B2", "insertion": "#009E73"}


@dataclass(frozen=True, kw_only=True, repr=False)
class Curves(PerSample):
    """Areas per sample and the curves they are taken from.

    Attributes:
        fractions: shares of the elements that are removed (`morf`, `lerf`) or present (`insertion`), `[k]`.
        curves: `morf`, `lerf`, `insertion`, each `[n, k]`. The deletion curve is `morf`.
        random_curves: the same for the baseline, means over the draws.
    """

    fractions: Array
    curves: dict[str, Array]
    random_curves: dict[str, Array] | None = None

    def points(self, name: str) -> list[Estimate]:
        """Means of a curve over the samples with intervals, one for each fraction."""
        return means(list(self.curves[choose("curve", name, self.curves)].T), self.settings)

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
            label = f"{name}, area {self.estimates[str(name)]}"
            figure.add_scatter(
                x=[*part["fraction"], *part["fraction"][::-1]], y=[*part["high"], *part["low"][::-1]], fill="toself",
                fillcolor=colour, opacity=0.2, line={"width": 0}, hoverinfo="skip", showlegend=False,
            )  # fmt: skip
            figure.add_scatter(x=part["fraction"], y=part["value"], name=label, line={"color": colour})
            if "random" in part:
                dotted = {"color": colour, "dash": "dot"}
                figure.add_scatter(x=part["fraction"], y=part["random"], name=f"{name}, random", line=dotted)
        figure.update_xaxes(title="share of elements removed (insertion: present)")
        figure.update_yaxes(title="mean over samples")
        figure.update_layout(template="plotly_white")
        return figure


@numbers.checked()
def removal_curves(
    predict: Callable[[Any], Any],
    inputs: Any,
    salience: Any,
    *,
    target: Any = None,
    replacement: Replacement | None = None,
    insertion: Replacement | None = None,
    fractions: int | Sequence[float] = 10,
    measure: str = "probability",
    real: Any = None,
    random: int = 0,
    batch_size: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
) -> Curves:
    """MoRF, LeRF, deletion and insertion curves with their areas (Samek et al. 2017; Petsiuk et al. 2018).

    - `morf`: the most relevant elements are removed first; this is the deletion curve. Lower is better.
    - `lerf`: the least relevant first. Higher is better.
    - `between`: area under lerf minus area under morf. Higher is better; 0 for a random order.
    - `insertion`: an input with everything replaced, to which the most relevant elements come back first. Higher is
      better. With the same replacement it is lerf seen from the other end, with the same area but for rounding.

    Areas are by trapezoids over the shares that were really removed (whole elements); they depend on the order of the
    elements alone, so a monotone rescaling of the salience changes nothing. Costs 3 (steps + 1) model runs per
    sample, and as many again for each of `random`.

    Args:
        insertion: what stands in for elements not yet inserted, often `blur`; None: the same as `replacement`.
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
    >>> result = removal_curves(predict, torch.ones(1, 3), [[3.0, 2.0, 1.0]], fractions=3, target=1, replacement="zero")
    >>> result.curves["morf"].round(3)
    array([[0.9, 0.5, 0.2, 0. ]])
    """
    settings = interval_settings(confidence, resamples, seed)
    choose("measure", measure, MEASURES)
    grid = fraction_grid(fractions)
    subject = Subject.of(
        predict, inputs, salience, target=target, replacement=replacement, real=real,
        batch_size=batch_size, seed=seed, quiet=quiet,
    )  # fmt: skip
    fill = subject.fill if insertion is None else filler(insertion, subject.inputs, seed, subject.predictor.numpy)
    drawn: list[dict[str, Array]] = []

    def areas(own: Subject) -> dict[str, Array]:
        result, curves = _measured(own, fill, grid, measure)
        drawn.append(curves)
        return result

    columns, baseline = with_baseline(areas, subject, random)
    others = {name: np.mean([curves[name] for curves in drawn[1:]], axis=0) for name in drawn[0]} if random else None
    return Curves(
        columns=columns,
        better=BETTER,
        baseline=baseline,
        settings=settings,
        note=subject.note,
        fractions=grid,
        curves=drawn[0],
        random_curves=others,
    )


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
    return np.floor(sizes[:, None] * fractions + 0.5 + 1e-9).astype(np.int64)


def _measured(
    subject: Subject, insertion: Fill, grid: Array, measure: str
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Areas `[n]` and curves `[n, k]`."""
    sizes = subject.sizes[:, None]
    removed = counts(subject.sizes, grid)
    zero = np.zeros_like(removed)

    def run(own: Subject, low: Indices, high: Indices, name: str) -> Array:
        values, decisions = own.windows(low, high, name)
        if measure == "probability":
            return values
        return (decisions == own.target.numpy()[:, None]).astype(np.float64)

    curves = {
        "morf": run(subject, zero, removed, "MoRF"),
        "lerf": run(subject, sizes - removed, zero + sizes, "LeRF"),
        "insertion": run(replace(subject, fill=insertion), removed, zero + sizes, "insertion"),
    }
    areas = {name: np.asarray(np.trapezoid(curve, removed / sizes, axis=1)) for name, curve in curves.items()}
    areas["between"] = areas["lerf"] - areas["morf"]
    return {name: areas[name] for name in BETTER}, curves

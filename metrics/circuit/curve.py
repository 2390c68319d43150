"""Faithfulness against size: the MIB ladder, the areas CPR and CMD, and random circuits of equal size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions
from interp.errors import InputError
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords, chosen
from interp.result import Result
from interp.running import door
from interp.selection import LADDER_FRACTIONS, SELECTIONS, Selection, ladder
from interp.selection.named import rules_of
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit import balance  # noqa: F401  registers the selection of that name
from metrics.circuit.evaluate import (
    JudgeKeywords,
    faithfulness_in,
    faithfulness_of_means,
    setting_of_scores,
    stacked,
)
from metrics.circuit.samples import random_circuit
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Mask = Bool[Tensor, "source target"]


class AbsoluteKeyword(TypedDict, total=False):
    """Of selections by name: rank by |score| (their default) or by signed score."""

    absolute: bool


def cpr(fractions: ArrayLike, faithfulness: ArrayLike) -> NDArray[np.float64]:
    """Integrated circuit performance ratio: the trapezoid area under f over p (MIB 2025). No upper bound.

    `fractions` [k] ascending, `faithfulness` [..., k].

    >>> float(cpr([0.0, 1.0], [0.0, 1.0]))
    0.5
    """
    return np.asarray(np.trapezoid(np.asarray(faithfulness), np.asarray(fractions), axis=-1))


def cmd(fractions: ArrayLike, faithfulness: ArrayLike) -> NDArray[np.float64]:
    """Integrated circuit-model distance: the trapezoid area under |1 - f| over p (MIB 2025). 0 is perfect.

    >>> float(cmd([0.0, 1.0], [0.0, 1.0]))
    0.5
    """
    return cpr(fractions, np.abs(1 - np.asarray(faithfulness)))


def areas(faithfulness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Faithfulness on the ladder `[..., size]` -> CPR, CMD and their means over log p `[..., 4]`."""
    p = np.array(LADDER_FRACTIONS)
    width = np.log(p[-1]) - np.log(p[0])
    f, log_p = faithfulness, np.log(p)
    return np.stack([cpr(p, f), cmd(p, f), cpr(log_p, f) / width, cmd(log_p, f) / width], -1)


@dataclass(frozen=True, repr=False)
class Curve(Result):
    """Faithfulness on a ladder of circuit sizes.

    Attributes:
        fractions: nominal sizes p as shares of the graph's edges; `sizes` are int(p n) edges, before pruning.
        edges: what pruning left of each size.
        points: faithfulness at each size with its bootstrap interval over prompts.
        cpr_estimate, cmd_estimate: areas over p with intervals; `log_cpr`, `log_cmd` the means over log p, which
            the two largest sizes do not rule.
        random: the same curve for random circuits of as many edges, if it was asked for.
        values: objectives per prompt of the clean model, the empty circuit and each circuit.
        setting: ablation, objective and prompts that it was judged under.
    """

    matching: ClassVar = (("fractions", "sizes", "edges", "points", "random"),)

    fractions: tuple[float, ...]
    sizes: tuple[int, ...]
    edges: tuple[int, ...]
    points: tuple[Estimate, ...]
    cpr_estimate: Estimate
    cmd_estimate: Estimate
    log_cpr: Estimate
    log_cmd: Estimate
    values: CircuitValues
    random: tuple[Estimate, ...] | None = None
    setting: Conditions | None = None

    @property
    def faithfulness(self) -> tuple[float, ...]:
        """Faithfulness at each size."""
        return tuple(point.value for point in self.points)

    @property
    def cpr(self) -> float:
        """Area under f over p. Never report it alone: a circuit that beats the model raises it beyond 1."""
        return self.cpr_estimate.value

    @property
    def cmd(self) -> float:
        """Area under |1 - f| over p; lower is better."""
        return self.cmd_estimate.value

    def to_frame(self) -> pd.DataFrame:
        """One row per size: fraction, size, edges, faithfulness, low, high, and random circuits' if known."""
        columns: dict[str, Any] = {
            "fraction": self.fractions,
            "size": self.sizes,
            "edges": self.edges,
            "faithfulness": self.faithfulness,
            "low": [p.low for p in self.points],
            "high": [p.high for p in self.points],
        }
        if self.random is not None:
            columns |= {
                "random": [p.value for p in self.random],
                "random_low": [p.low for p in self.random],
                "random_high": [p.high for p in self.random],
            }
        return pd.DataFrame(columns)

    def headline(self) -> str:
        under = "" if self.setting is None else f"; {self.setting}"
        return f"CPR {self.cpr_estimate}, CMD {self.cmd_estimate}{under}"

    def figure(self) -> Figure:
        """Faithfulness over log p with intervals, beside random circuits and the clean model's 1."""
        import plotly.graph_objects as go

        figure = go.Figure()
        lines = [("circuit", self.points, theme.OWN)]
        if self.random is not None:
            lines.append(("random circuits of equal size", self.random, theme.CONTROL))
        for name, points, colour in lines:
            figure.add_scatter(
                x=self.fractions,
                y=[p.value for p in points],
                error_y=theme.error_bars(points),
                name=name,
                mode="lines+markers",
                line={"color": colour},
                customdata=list(self.edges),
                hovertemplate="%{y:.3f} with %{customdata} edges<extra>" + name + "</extra>",
            )
        theme.target_line(figure)
        figure.update_xaxes(type="log", title="share of edges")
        figure.update_yaxes(title="faithfulness")
        return theme.styled(figure, f"CPR {self.cpr:.3f}, CMD {self.cmd:.3f}")


class CurveKeywords(JudgeKeywords, AbsoluteKeyword, total=False):
    """The keywords of `faithfulness_curve`."""


@numbers.checked(n_random=numbers.FROM_ZERO)
@door
def faithfulness_curve(
    model: Any,
    task: Task,
    scores: Any,
    *,
    selection: str | Selection = "top-n",
    choosing: Task | None = None,
    n_random: int = 0,
    reference: str = "paths",
    **keywords: Unpack[CurveKeywords],
) -> Curve:
    """Faithfulness of the circuits that scores choose, over the size ladder of the MIB benchmark.

    Sizes are int(p n) of the graph's n edges, p = .001 .002 .005 .01 .02 .05 .1 .2 .5 1, chosen by score and
    then pruned. With the defaults CPR and CMD are what MIB computes; MIB chooses by signed score
    (`absolute=False`) for CPR and by absolute score for CMD: `mib` gives both for each.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to measure on; use others than the scores were made on.
        scores: a float `[source, target]` tensor, or anything with such `.values`.
        ablation, objective: as in `evaluate`; None: those that the scores were found under.
        selection: `top-n`, `greedy`, `connected`, `program`, `balanced`, or a `Selection`.
        choosing: the prompts that a selection which measures (`balanced`) chooses on: others than `task`.
        n_random: so many random circuits per size, of as many edges, as a baseline.
        reference: how they are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        absolute: of a selection by name: choose by |score| rather than by signed score.
        confidence, resamples, seed: of the bootstrap intervals over prompts, and of the random circuits.
        batch_size, memory, quiet: as in `evaluate`.

    Returns:
        `Curve`, with sizes, faithfulness, cpr, cmd, `to_frame()` and `figure()`.

    Raises:
        InputError: scores of another shape or not finite, unknown names, a negative `n_random`.
    """
    check_keywords("faithfulness_curve", keywords, CurveKeywords)
    setting, values = setting_of_scores(model, task, scores, keywords)
    rule = SELECTIONS.make(selection, chosen(keywords, AbsoluteKeyword))
    if rule.measures != (choosing is not None):
        raise InputError(
            f"selection={rule.name!r} and choosing={'None' if choosing is None else choosing.name!r} do not fit: "
            "'balanced' chooses on prompts of its own, choosing=task; other selections look at scores alone"
        )
    picked = ladder_masks(setting if choosing is None else setting.on(choosing), values, rule)
    return curve_of(setting, picked, n_random, reference, Interval.of(keywords))


def curve_of(setting: Setting, picked: Sequence[Mask], n_random: int, reference: str, interval: Interval) -> Curve:
    """The curve of circuits on the ladder."""
    graph, k = setting.graph, len(picked)
    edges = [int(mask.sum()) for mask in picked]
    others = [random_circuit(graph, n, interval.seed + i, reference) for n in edges for i in range(n_random)]
    measured = setting.measure(torch.stack([*picked, *others]))
    own = measured.only(slice(k))
    summary = _areas(own, interval)
    baseline = None
    if n_random:
        # a random circuit of each size per prompt on average: mean over the circuits of a size
        means = measured.circuits[k:].unflatten(0, (k, n_random)).mean(1)
        baseline = tuple(faithfulness_in(CircuitValues(measured.clean, measured.empty, means), interval))
    area, distance, log_area, log_distance = summary[k:]
    return Curve(
        fractions=LADDER_FRACTIONS,
        sizes=ladder(graph),
        edges=tuple(edges),
        points=tuple(summary[:k]),
        cpr_estimate=area,
        cmd_estimate=distance,
        log_cpr=log_area,
        log_cmd=log_distance,
        values=own,
        random=baseline,
        setting=setting.conditions,
    )


def ladder_masks(setting: Setting, scores: Float[Tensor, "source target"], selection: Selection) -> list[Mask]:
    """The circuits that scores choose at each size of the ladder."""
    return [rule(scores) for rule in rules_of(selection, setting, scores, ladder(setting.graph))]


@door
def mib(model: Any, task: Task, scores: Any, **settings: Any) -> pd.DataFrame:
    """CPR and CMD under both of MIB's selections: a row for signed and one for absolute scores.

    `settings` are those of `faithfulness_curve`. MIB's own CPR stands in the row `signed`, its CMD in the row
    `absolute`.
    """
    rows = []
    for name, absolute in (("signed", False), ("absolute", True)):
        curve = faithfulness_curve(model, task, scores, absolute=absolute, **settings)
        rows.append({"selection": name, **curve.cpr_estimate.columns("cpr"), **curve.cmd_estimate.columns("cmd")})
    return pd.DataFrame(rows)


def _areas(values: CircuitValues, interval: Interval) -> list[Estimate]:
    """Faithfulness at each size, then CPR, CMD and their means over log p, from the same resamples."""

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        f = faithfulness_of_means(means)
        return np.concatenate((f, areas(f)), 1)

    return bootstrapped(stacked(values), statistic, interval)

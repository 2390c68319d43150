"""Recursive ablation of edges: take out the most important ones, score again inside what is left, repeat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions
from interp.errors import InputError
from interp.graph import KV, ComputationalGraph
from interp.inspection import anatomy_of
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.selection import LADDER_FRACTIONS, top_n
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.evaluate import (
    JudgeKeywords,
    MeasureKeywords,
    faithfulness_of_means,
    graph_of_mask,
    setting_of_scores,
    stacked,
)
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Rescore = Callable[[Bool[Tensor, "source target"]], Float[Tensor, "source target"]]
_STACK = 64  # circuits that a rescoring by removal measures at a time


@dataclass(frozen=True, repr=False)
class RecursiveCurve(Result):
    """Faithfulness of what is left after the most important edges were ablated, against random edges.

    Attributes:
        shares: of the graph's edges that are ablated, from 0 to the last.
        removed: how many edges that is.
        points: faithfulness of what is left, with intervals over prompts; 1 where nothing is ablated.
        random: the same with random edges ablated, mean over the draws.
        area: area(b - m) / area(b - b_100) by trapezoids over the shares, as RACU; b is the random curve, m the
            scores', b_100 = 0 the empty circuit. 0 is what random edges get. It is no share: above 1 where ablation
            drives the objective below the empty circuit's; NaN where the random curve has no area.
        log_area: the same over log share (without the share 0), which the largest shares do not rule.
        masks: what is left at each share, [share, source, target].
        values: objectives per prompt of the clean model, the empty circuit and what is left.
        setting: ablation, objective and prompts that it was judged under.
    """

    matching: ClassVar = (("shares", "removed", "points", "random", "masks"),)

    shares: tuple[float, ...]
    removed: tuple[int, ...]
    points: tuple[Estimate, ...]
    random: tuple[Estimate, ...]
    area: Estimate
    log_area: Estimate
    masks: Bool[Tensor, "share source target"]
    values: CircuitValues
    setting: Conditions | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row per share: share, removed, faithfulness, low, high, and random edges'."""
        columns: dict[str, Any] = {"share": self.shares, "removed": self.removed}
        for name, points in (("faithfulness", self.points), ("random", self.random)):
            prefix = "" if name == "faithfulness" else "random_"
            columns[name] = [one.value for one in points]
            columns[f"{prefix}low"] = [one.low for one in points]
            columns[f"{prefix}high"] = [one.high for one in points]
        return pd.DataFrame(columns)

    def headline(self) -> str:
        under = "" if self.setting is None else f"; {self.setting}"
        return f"area {self.area}, over log share {self.log_area}{under}"

    def figure(self) -> Figure:
        """Faithfulness of what is left over the share ablated, beside random edges; the further below, the better."""
        import plotly.graph_objects as go

        figure = go.Figure()
        for name, points, colour in (("scores", self.points, theme.OWN), ("random edges", self.random, theme.CONTROL)):
            figure.add_scatter(
                x=self.shares[1:],
                y=[one.value for one in points[1:]],
                error_y=theme.error_bars(points[1:]),
                name=name,
                mode="lines+markers",
                line={"color": colour},
            )
        theme.target_line(figure, 0)
        figure.update_xaxes(type="log", title="share of edges ablated")
        figure.update_yaxes(title="faithfulness of what is left")
        return theme.styled(figure, f"area {self.area}, over log share {self.log_area}")


@numbers.checked(shares=numbers.SHARE, n_random=numbers.COUNT)
@door
def recursive_curve(
    model: Any,
    task: Task,
    score: Any,
    shares: Sequence[float] = LADDER_FRACTIONS,
    *,
    n_random: int = 5,
    absolute: bool = False,
    **keywords: Unpack[JudgeKeywords],
) -> RecursiveCurve:
    """A curve in the manner of Recursive ROAR (Madsen et al. 2022) for edges, with ablation instead of retraining.

    At each share the edges with the highest scores are ablated; what is left is scored again, and edges that are
    ablated stay ablated. Random edges (nested, not scored again) are the baseline.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to measure on; use others than the scores were made on.
        score: a callable (bool mask [source, target] of the edges that are left) -> scores [source, target], called
            once for each share, first with the whole graph (a key and a value target per query head).
            `removal_scores` makes one, exact and slow; `circuits.rescorer` one of gradients at what is left. Scores
            themselves (a tensor [source, target], or anything with such `.values`) are not made again: they are
            restricted to what is left, and the curve is not recursive.
        shares: of the graph's edges, ascending, above 0 and up to 1; the number of edges is rounded down.
        n_random: so many random orders of edges. One alone is no baseline: orders differ much.
        absolute: choose by |score|. By default by signed score, since the fall of the objective is measured.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the bootstrap over prompts and over random orders; `seed` also draws the orders.

    Returns:
        `RecursiveCurve`: `points`, `random`, `area`, `log_area`, `to_frame()`, `figure()`.

    Raises:
        InputError: scores of another shape, NaN, or constant; shares out of order; unknown names.
    """
    steps = _shares(shares)
    check_keywords("recursive_curve", keywords, JudgeKeywords)
    interval, recursive = Interval.of(keywords), callable(score) and not isinstance(score, Tensor)
    scores = score(ComputationalGraph.of(model).edge_mask.clone()) if recursive else score
    setting, first = setting_of_scores(model, task, scores, keywords)
    graph = setting.graph
    sizes = [int(share * graph.n_edges) for share in steps]
    rescore: Rescore | None = score if recursive else None
    with setting.run.progress("scoring what is left", len(sizes)) as bar:
        own = _what_is_left(graph, first, rescore, sizes, absolute, bar.advance)
    others = [mask for draw in range(n_random) for mask in _random_orders(graph, sizes, interval.seed + draw)]
    measured = setting.measure(torch.stack([*own, *others]))
    mine = measured.circuits[: len(sizes)]
    statistic = _statistic(np.array([0.0, *steps]), n_random, interval.seed)
    found = bootstrapped(stacked(measured), statistic, interval)
    half = len(sizes) + 1
    return RecursiveCurve(
        shares=(0.0, *steps),
        removed=(0, *sizes),
        points=tuple(found[:half]),
        random=tuple(found[half : 2 * half]),
        area=found[-2],
        log_area=found[-1],
        masks=torch.stack([graph.edge_mask, *own]),
        values=CircuitValues(measured.clean, measured.empty, torch.cat((measured.clean[None], mine))),
        setting=setting.conditions,
    )


@numbers.checked()
@door
def removal_scores(model: Any, task: Task, **keywords: Unpack[MeasureKeywords]) -> Rescore:
    """A `score` for `recursive_curve`: how far the mean objective falls when an edge is taken out of what is left.

    Exact inside any circuit, at one circuit for every edge that is left: for small models and small circuits.
    `keywords` are those of `evaluate`.
    """
    check_keywords("removal_scores", keywords, MeasureKeywords)
    settings: dict[KV, Setting] = {}  # by the kind of graph, which the first circuit tells

    def score(left: Bool[Tensor, "source target"]) -> Float[Tensor, "source target"]:
        kv = graph_of_mask(anatomy_of(model), left).kv
        setting = settings.setdefault(kv, Setting.of(model, task, {**keywords, "kv": kv}))
        edges = left.nonzero()
        scores = torch.zeros(left.shape, dtype=torch.float64, device="cpu")
        whole = setting.measure(left[None]).circuits[0].double().mean()
        for part in edges.split(_STACK) if len(edges) else ():
            masks = left.repeat(len(part), 1, 1)
            masks[torch.arange(len(part), device="cpu"), part[:, 0], part[:, 1]] = False
            after = setting.measure(masks).circuits.double().mean(1)
            scores[part[:, 0], part[:, 1]] = whole - after
        return scores

    return score


def _what_is_left(
    graph: ComputationalGraph,
    scores: Tensor,
    rescore: Rescore | None,
    sizes: list[int],
    absolute: bool,
    advance: Callable[[int], None],
) -> list[Bool[Tensor, "source target"]]:
    """The circuits that are left after so many edges are ablated, scored again in between."""
    left, result = graph.edge_mask.clone(), []
    for step, size in enumerate(sizes):
        if step and rescore is not None:
            scores = rescore(left.clone())
            if not isinstance(scores, Tensor) or tuple(scores.shape) != graph.shape:
                raise InputError(f"score must give a tensor of shape {graph.shape} each time; got {scores!r}")
        left = left & ~_highest(graph, scores, left, graph.n_edges - size, absolute, first=step == 0)
        result.append(left)
        advance(1)
    return result


def _highest(
    graph: ComputationalGraph, scores: Tensor, left: Tensor, keep: int, absolute: bool, first: bool
) -> Bool[Tensor, "source target"]:
    """The edges of highest score, so many that `keep` of those left stay."""
    known = scores.detach().cpu().double()
    bad = int((~torch.isfinite(known) & left).sum())
    if bad:
        raise InputError(f"{bad:,} of {int(left.sum()):,} scores are NaN or infinite and cannot be ranked")
    if first and known[left].min() == known[left].max():
        raise InputError("scores are constant: there is no order to ablate edges in")
    key = known.abs() if absolute else known
    # below all that is left: what is ablated already is not taken again
    key = torch.where(left, key, key[left].min() - 1 if left.any() else 0.0)
    return top_n(key, graph, int(left.sum()) - keep, absolute=False, pruned=False)


def _random_orders(graph: ComputationalGraph, sizes: list[int], seed: int) -> list[Bool[Tensor, "source target"]]:
    """What is left when the first edges of one random order are ablated."""
    noise = torch.rand(graph.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
    return [graph.edge_mask & ~top_n(noise, graph, size, pruned=False) for size in sizes]


def _statistic(x: NDArray[np.float64], random: int, seed: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Mean objectives -> the scores' curve, the random curve, and the two areas.

    In resamples of the prompts the random orders are drawn anew as well: how they differ is part of the interval.
    """
    last = len(x) - 1

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        f = faithfulness_of_means(means)
        orders = f[:, last:].reshape(len(f), random, last)
        if len(f) > 1:
            drawn = np.random.default_rng(seed).integers(0, random, (len(f), random))
            orders = np.take_along_axis(orders, drawn[:, :, None], 1)
        one = np.where(np.isfinite(f[:, :1]), 1.0, np.nan)
        m, b = np.concatenate((one, f[:, :last]), 1), np.concatenate((one, orders.mean(1)), 1)
        areas = [_relative_area(x, m, b), _relative_area(np.log(x[1:]), m[:, 1:], b[:, 1:])]
        return np.concatenate((m, b, np.stack(areas, 1)), 1)

    return statistic


def _relative_area(x: NDArray[np.float64], m: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.trapezoid(b, x, axis=-1)
    return np.asarray(np.trapezoid(b - m, x, axis=-1) / np.where(whole > 0, whole, np.nan))


def _shares(shares: Sequence[float]) -> tuple[float, ...]:
    values = tuple(shares)
    if len(values) < 2:
        raise InputError(f"shares={shares!r} must be at least two numbers above 0 and up to 1")
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise InputError(f"shares={shares!r} must ascend")
    return values

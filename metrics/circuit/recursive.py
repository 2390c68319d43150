"""Recursive ablation of edges or nodes: take out the most important, score again inside what is left, repeat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions, titled
from interp.errors import InputError
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.selection import LADDER_FRACTIONS
from interp.tasks.task import Task
from metrics.circuit.elements import Elements, Mask, Values
from metrics.circuit.evaluate import GrainKeywords, JudgeKeywords, faithfulness_of_means, stacked
from metrics.circuit.left import Rescore, elements_to_ablate
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, repr=False)
class RecursiveCurve(Result):
    """Faithfulness of what is left after the most important edges (nodes) were ablated, against random ones.

    Attributes:
        shares: of all edges (nodes) that are ablated, from 0 to the last.
        removed: how many that is.
        points: faithfulness of what is left, with intervals over prompts; 1 where nothing is ablated.
        random: the same with random ones ablated, mean over the draws.
        area: area(b - m) / area(b - b_100) by trapezoids over the shares, as RACU; b is the random curve, m the
            scores', b_100 = 0 the empty circuit. 0 is what random orders get. It is no share: above 1 where ablation
            drives the objective below the empty circuit's; NaN where the random curve has no area.
        log_area: the same over log share (without the share 0), which the largest shares do not rule.
        masks: what is left at each share, [share, source, target]; of nodes [share, ...] with the axes of their level.
        values: objectives per prompt of the clean model, the empty circuit and what is left.
        setting: ablation, objective and prompts that it was judged under.
        level: `edge`, or `neuron`, `head`, `node`, `feature`.
    """

    matching: ClassVar = (("shares", "removed", "points", "random", "masks"),)

    shares: tuple[float, ...]
    removed: tuple[int, ...]
    points: tuple[Estimate, ...]
    random: tuple[Estimate, ...]
    area: Estimate
    log_area: Estimate
    masks: Bool[Tensor, "share ..."]
    values: CircuitValues
    setting: Conditions | None = None
    level: str = "edge"

    def to_frame(self) -> pd.DataFrame:
        """One row per share: share, removed, faithfulness, low, high, and random ones'."""
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
        """Faithfulness of what is left over the share ablated, beside random ones; the further below, the better."""
        import plotly.graph_objects as go

        figure, random = go.Figure(), f"random {self.level}s"
        for name, points, colour in (("scores", self.points, theme.OWN), (random, self.random, theme.CONTROL)):
            figure.add_scatter(
                x=self.shares[1:],
                y=[one.value for one in points[1:]],
                error_y=theme.error_bars(points[1:]),
                name=name,
                mode="lines+markers",
                line={"color": colour},
            )
        theme.target_line(figure, 0)
        figure.update_xaxes(type="log", title=f"share of {self.level}s ablated")
        figure.update_yaxes(title="faithfulness of what is left")
        told = f"area {self.area}, over log share {self.log_area}"
        return theme.styled(figure, titled(self.setting, f"recursive curve of {self.level}s"), told)


class RecursiveKeywords(GrainKeywords, JudgeKeywords, total=False):
    """The keywords of `recursive_curve`."""


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
    **keywords: Unpack[RecursiveKeywords],
) -> RecursiveCurve:
    """A curve in the manner of Recursive ROAR (Madsen et al. 2022) for circuits, with ablation instead of retraining.

    At each share the edges (nodes) with the highest scores are ablated; what is left is scored again, and what is
    ablated stays ablated. Random ones (nested, not scored again) are the baseline.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to measure on; use others than the scores were made on.
        score: a callable (bool mask [source, target] of the edges that are left) -> scores [source, target], called
            once for each share, first with the whole graph (a key and a value target per query head); of nodes, with
            `level`, mask and scores have the axes of the level, as in `evaluate`. `removal_scores` makes one, exact
            and slow; `circuits.rescorer` one of gradients at what is left. Scores themselves (a tensor, or anything
            with such `.values`) are not made again: they are restricted to what is left, and the curve is not
            recursive.
        shares: of all edges (nodes), ascending, above 0 and up to 1; their number is rounded down.
        n_random: so many random orders. One alone is no baseline: orders differ much.
        absolute: choose by |score|. By default by signed score, since the fall of the objective is measured.
        level: of a callable or a bare tensor: `neuron`, `head`, `node` or `feature`; None: what scores say of
            themselves, or edges. The input of level `node` is never ablated.
        spans, dictionaries, errors: of a callable or a bare tensor of nodes, as in `evaluate`.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the bootstrap over prompts and over random orders; `seed` also draws the orders.

    Returns:
        `RecursiveCurve`: `points`, `random`, `area`, `log_area`, `to_frame()`, `figure()`.

    Raises:
        InputError: scores of another shape, NaN, or constant; shares out of order; unknown names.
    """
    steps = _shares(shares)
    check_keywords("recursive_curve", keywords, RecursiveKeywords)
    interval = Interval.of(keywords)
    elements, first = elements_to_ablate(model, task, score, keywords)
    rescore: Rescore | None = score if first is None else None
    sizes = [int(share * len(elements.places)) for share in steps]
    with elements.setting.run.progress("scoring what is left", len(sizes)) as bar:
        own = _what_is_left(elements, first, rescore, sizes, absolute, bar.advance)
    others = [mask for draw in range(n_random) for mask in _random_orders(elements, sizes, interval.seed + draw)]
    measured = elements.measure([*own, *others])
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
        masks=torch.stack([elements.full, *own]),
        values=CircuitValues(measured.clean, measured.empty, torch.cat((measured.clean[None], mine))),
        setting=elements.setting.conditions,
        level=elements.level,
    )


def _what_is_left(
    elements: Elements,
    scores: Values | None,
    rescore: Rescore | None,
    sizes: list[int],
    absolute: bool,
    advance: Callable[[int], None],
) -> list[Mask]:
    """What is left after so many elements are ablated, scored again in between."""
    left, result = elements.full.clone(), []
    for step, size in enumerate(sizes):
        if rescore is not None:
            scores = rescore(left.clone())
        if not isinstance(scores, Tensor) or scores.shape != left.shape:
            raise InputError(f"score must give a tensor of shape {tuple(left.shape)} each time; got {scores!r}")
        gone = elements.count(elements.full) - elements.count(left)
        left = elements.without(left, _highest(elements, scores, left, size - gone, absolute, first=step == 0))
        result.append(left)
        advance(1)
    return result


def _highest(elements: Elements, scores: Values, left: Mask, n: int, absolute: bool, first: bool) -> list[int]:
    """The `n` elements of highest score among those left, ties in their order."""
    places = elements.inside(left)
    known = scores.detach().cpu().double().flatten()[places]
    bad = int((~torch.isfinite(known)).sum())
    if bad:
        raise InputError(f"{bad:,} of {len(known):,} scores are NaN or infinite and cannot be ranked")
    if first and known.min() == known.max():
        raise InputError(f"scores are constant: there is no order to ablate {elements.level}s in")
    key = known.abs() if absolute else known
    chosen: list[int] = places[key.argsort(descending=True, stable=True)[:n]].tolist()
    return chosen


def _random_orders(elements: Elements, sizes: list[int], seed: int) -> list[Mask]:
    """What is left when the first elements of one random order are ablated."""
    places, generator = elements.places, torch.Generator().manual_seed(seed)
    noise = torch.rand(elements.full.shape, generator=generator, dtype=torch.float64, device="cpu").flatten()
    order = places[noise[places].argsort(descending=True, stable=True)].tolist()
    return [elements.without(elements.full, order[:size]) for size in sizes]


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

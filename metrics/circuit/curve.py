"""Faithfulness against size: the MIB ladder, the areas CPR and CMD, and random circuits of equal size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords, chosen
from interp.node_mask import NodeMask
from interp.running import door
from interp.selection import LADDER_FRACTIONS, SELECTIONS, Selection, ladder
from interp.selection.named import rules_of
from interp.selection.nodes import node_ladder
from interp.setting import MaskObject, Setting
from interp.span_mask import SpanMask
from interp.spans import SpanNames, span_names
from interp.tasks.task import Task
from metrics.circuit.areas import areas
from metrics.circuit.controls import random_controls
from metrics.circuit.curve_result import Curve
from metrics.circuit.elements import elements_at
from metrics.circuit.evaluate import (
    GrainKeywords,
    JudgeKeywords,
    faithfulness_in,
    faithfulness_of_means,
    graph_of_mask,
    refuse_dictionaries,
    setting_of_scores,
    stacked,
    together,
)
from metrics.circuit.node_scores import NodeScores
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    pass

Mask = Bool[Tensor, "source target"]


class AbsoluteKeyword(TypedDict, total=False):
    """Of selections by name: rank by |score| (their default) or by signed score."""

    absolute: bool


class CurveKeywords(JudgeKeywords, GrainKeywords, AbsoluteKeyword, total=False):
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
    reference: str | None = None,
    complement: bool = False,
    **keywords: Unpack[CurveKeywords],
) -> Curve:
    """Faithfulness of the circuits that scores choose, over the size ladder of the MIB benchmark.

    Sizes are int(p n) of the graph's n edges, p = .001 .002 .005 .01 .02 .05 .1 .2 .5 1, chosen by score and
    then pruned. With the defaults CPR and CMD are what MIB computes; MIB chooses by signed score
    (`absolute=False`) for CPR and by absolute score for CMD: `mib` gives both for each.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to measure on; use others than the scores were made on.
        scores: a float `[source, target]` tensor, or anything with such `.values`. Or scores of nodes: what has
            `.values`, `.level` and `.spans`, or a tensor and its `level`; sizes are then numbers of nodes. Or scores
            of edges by position, `[span, source, target]`: sizes count an edge at each span.
        ablation, objective: as in `evaluate`; None: those that the scores were found under.
        selection: `top-n`, `greedy`, `connected`, `program`, `balanced`, or a `Selection`.
        choosing: the prompts that a selection which measures (`balanced`) chooses on: others than `task`.
        n_random: so many random circuits per size, of as many edges (nodes), as a baseline.
        reference: how those of edges are drawn: `paths` from the input to the logits (None), or `grown` from the logits
            upwards.
        complement: also measure what each circuit leaves out, alone.
        absolute: of a selection by name: choose by |score| rather than by signed score.
        level, spans, dictionaries, errors: of a bare tensor of nodes' scores, as in `evaluate`. Nodes are selected by
            `top-n` or `balanced`.
        confidence, resamples, seed: of the bootstrap intervals over prompts, and of the random circuits.
        batch_size, memory, quiet: as in `evaluate`.

    Returns:
        `Curve`, with sizes, faithfulness, cpr, cmd, `to_frame()` and `figure()`.

    Raises:
        InputError: scores of another shape or not finite, unknown names, a negative `n_random`.
    """
    check_keywords("faithfulness_curve", keywords, CurveKeywords)
    rule = SELECTIONS.make(selection, chosen(keywords, AbsoluteKeyword))
    if rule.measures != (choosing is not None):
        raise InputError(
            f"selection={rule.name!r} and choosing={'None' if choosing is None else choosing.name!r} do not fit: "
            "'balanced' chooses on prompts of its own, choosing=task; other selections look at scores alone"
        )
    interval = Interval.of(keywords)
    if (nodes := NodeScores.of(scores, keywords)) is not None:
        setting = Setting.of(model, task, keywords, scores)
        refuse_dictionaries(keywords, nodes.level)
        nodes = nodes.among(setting)
        elements = elements_at(setting if choosing is None else setting.on(choosing), nodes.level, nodes.spans)
        of_nodes = elements.chosen(rule, nodes.values, elements.ladder)
        return curve_of(setting, of_nodes, n_random, reference, interval, complement)
    refuse_dictionaries(keywords, "edge")
    if (spans := _spans_of(scores, keywords)) is not None:
        setting, values = _setting_by_span(model, task, scores, keywords, spans)
        own = elements_at(setting if choosing is None else setting.on(choosing), "edge", spans)
        return curve_of(setting, own.chosen(rule, values, own.ladder), n_random, reference, interval, complement)
    setting, values = setting_of_scores(model, task, scores, keywords)
    picked = ladder_masks(setting if choosing is None else setting.on(choosing), values, rule)
    return curve_of(setting, picked, n_random, reference, interval, complement)


def curve_of(
    setting: Setting,
    picked: Sequence[Mask | MaskObject],
    n_random: int,
    reference: str | None,
    interval: Interval,
    complement: bool = False,
) -> Curve:
    """The curve of circuits on the ladder, of edges or of nodes."""
    k, first = len(picked), picked[0]
    others = random_controls(setting, picked, n_random, interval.seed, reference)
    without = [_left_out(setting, mask) for mask in picked] if complement else []
    measured = setting.measure(together([*picked, *others, *without]))
    own = measured.only(slice(k))
    summary = _areas(own, interval)
    baseline = left = None
    if n_random:
        # a random circuit of each size per prompt on average: mean over the circuits of a size
        means = measured.circuits[k : k + k * n_random].unflatten(0, (k, n_random)).mean(1)
        baseline = tuple(faithfulness_in(CircuitValues(measured.clean, measured.empty, means), interval))
    if complement:
        left = tuple(faithfulness_in(measured.only(slice(k + k * n_random, None)), interval))
    counts = [_count(mask) for mask in picked]
    area, distance, log_area, log_distance = summary[k:]
    return Curve(
        fractions=LADDER_FRACTIONS,
        sizes=_sizes(setting, first, counts),
        edges=tuple(counts),
        points=tuple(summary[:k]),
        cpr_estimate=area,
        cmd_estimate=distance,
        log_cpr=log_area,
        log_cmd=log_distance,
        values=own,
        random=baseline,
        setting=setting.conditions,
        level=first.level if isinstance(first, NodeMask) else "edge",
        complement=left,
    )


def _count(mask: Mask | MaskObject) -> int:
    if isinstance(mask, NodeMask):
        return mask.n_nodes
    return mask.n_edges if isinstance(mask, SpanMask) else int(mask.sum())


def _sizes(setting: Setting, first: Mask | MaskObject, counts: list[int]) -> tuple[int, ...]:
    """Nominal sizes of the ladder; of nodes what there is."""
    if isinstance(first, NodeMask):
        return tuple(counts)
    return ladder(setting.graph) if isinstance(first, Tensor) else node_ladder(setting.graph.n_edges * len(first.spans))


def _spans_of(scores: Any, keywords: Mapping[str, Any]) -> SpanNames | None:
    """The spans of scores of edges, or of a bare tensor of these."""
    return span_names(keywords.get("spans") if isinstance(scores, Tensor) else getattr(scores, "spans", None))


def _setting_by_span(
    model: Any, task: Task, scores: Any, keywords: Mapping[str, Any], spans: SpanNames
) -> tuple[Setting, Float[Tensor, "span source target"]]:
    values = scores if isinstance(scores, Tensor) else getattr(scores, "values", None)
    if not isinstance(values, Tensor) or values.ndim != 3 or len(values) != len(spans):
        raise InputError(
            f"scores by position must be a tensor [{len(spans)} spans, source, target] or have such .values"
        )
    kv = graph_of_mask(anatomy_of(model), values).kv
    return Setting.of(model, task, {**keywords, "kv": kv}, scores), values


def _left_out(setting: Setting, mask: Mask | MaskObject) -> Mask | MaskObject:
    if isinstance(mask, SpanMask):
        return mask.rest(setting.graph)
    return ~mask if isinstance(mask, NodeMask) else setting.graph.edge_mask & ~mask


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

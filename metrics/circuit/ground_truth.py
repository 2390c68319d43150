"""Scores against a known circuit: area under the ROC curve and average precision, over edges or nodes."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.selection import LADDER_FRACTIONS, greedy, live_sources

Level = Literal["edge", "node", "head", "neuron", "expert", "feature"]
NODES_BY = ("max", "sum")


def auroc(
    scores: Any,
    truth: Any,
    graph: ComputationalGraph | None = None,
    *,
    level: Level | None = None,
    absolute: bool = True,
    nodes_by: str = "max",
    mib: bool = False,
) -> float:
    """Area under the ROC curve of scores against a known circuit, over all thresholds.

    AUROC = P(s(true) > s(false)) + P(s(true) = s(false)) / 2 for a true and a false edge drawn at random: 1 when
    every true edge scores above every other, 0.5 for a random order or when all scores are equal.

    Args:
        scores: float `[source, target]`, or anything with such `.values` (`Scores`); at level `node` also `[source]`;
            by position `[span, source, target]`.
        truth: bool `[source, target]`, or anything with such a `.mask` (`Circuit`); at level `node` also `[source]`; by
            position at the same spans, `[span, source, target]`.
        graph: what both belong to; taken from `scores.graph` if there is one. Only edges that exist are counted.
        level: `edge`, or `node`: heads and MLPs. The input is not counted: every circuit has it. A node is true if
            it has a true edge out of it and one into it. Or `neuron` (`[layer, d_mlp]`), `expert` (`[layer,
            expert]`), `head` (`[layer, head]`) or `feature` (`[dictionary, feature]`): all of scores and truth, which
            are of one shape; a graph is not needed.
            None: what truth or else scores say of themselves, or `edge`.
        absolute: rank by |score|; False: by signed score, which puts edges that hurt last.
        nodes_by: how a node's score comes from edges: `max` of |score| over the edges out of it, or their `sum`
            (with `absolute=False` of the signed scores).
        mib: as the MIB benchmark computes it: true and false positive rates of the greedy circuits at its ladder of
            sizes (each rounded up, then pruned, by absolute score), joined by trapezoids without a point at the
            origin. A perfect order does not reach 1 then: what lies left of the first size is lost.

    Raises:
        InputError: shapes that do not fit, scores that are not finite, a truth that is everything or nothing.

    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> truth = torch.zeros(graph.shape, dtype=torch.bool)
    >>> truth[graph.edge_index("input->logits")] = True
    >>> auroc(truth * -2.0, truth, graph), auroc(truth * -2.0, truth, graph, absolute=False)
    (1.0, 0.0)
    """
    if mib:
        if level not in (None, "edge") or not absolute:
            raise InputError("mib=True is defined for absolute scores of edges; leave level and absolute as they are")
        return _mib_auroc(scores, truth, graph)
    keys, labels = _ranked(scores, truth, graph, level, absolute, nodes_by)
    positives = int(labels.sum())
    surplus = rankdata(keys)[labels].sum() - positives * (positives + 1) / 2
    return float(surplus / (positives * (len(labels) - positives)))


def average_precision(
    scores: Any,
    truth: Any,
    graph: ComputationalGraph | None = None,
    *,
    level: Level | None = None,
    absolute: bool = True,
    nodes_by: str = "max",
) -> float:
    """Average precision of scores against a known circuit: mean precision at each true edge, over all thresholds.

    AP = sum over thresholds of (recall - recall before) * precision; edges of equal score enter together. A random
    order gets about the share of edges that are true, which is small: of few true edges among many others this says
    more than AUROC. Arguments and errors are those of `auroc`.

    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> truth = torch.zeros(graph.shape, dtype=torch.bool)
    >>> truth[graph.edge_index("input->logits")] = True
    >>> average_precision(torch.zeros(graph.shape), truth, graph) == 1 / graph.n_edges
    True
    """
    keys, labels = _ranked(scores, truth, graph, level, absolute, nodes_by)
    order = np.argsort(-keys, kind="stable")
    found = np.cumsum(labels[order])
    last = np.append(np.diff(keys[order]) != 0, True)  # the last of each group of equal scores
    precision = (found / np.arange(1, len(keys) + 1))[last]
    recall = found[last] / found[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def node_scores(
    scores: Float[Tensor, "source target"], graph: ComputationalGraph, absolute: bool = True, nodes_by: str = "max"
) -> Float[Tensor, " source"]:
    """A score of each source from those of the edges out of it that exist: their `max` or their `sum`.

    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> scores = torch.zeros(graph.shape)
    >>> scores[graph.edge_index("a0.h0->m0")], scores[graph.edge_index("a0.h0->logits")] = 1.0, -3.0
    >>> node_scores(scores, graph)[1].item(), node_scores(scores, graph, nodes_by="sum")[1].item()
    (3.0, 4.0)
    """
    choose("nodes_by", nodes_by, NODES_BY)
    values = scores.abs() if absolute else scores
    if nodes_by == "sum":
        return (values * graph.edge_mask).sum(1)
    return values.masked_fill(~graph.edge_mask, -math.inf).amax(1)  # every source has an edge to the logits


def _ranked(
    scores: Any, truth: Any, graph: ComputationalGraph | None, level: str | None, absolute: bool, nodes_by: str
) -> tuple[NDArray[np.float64], Bool[np.ndarray, " item"]]:
    """What is ranked by, and what is true, for each edge that exists or for each node of a level."""
    level = choose("level", _level(scores, truth) if level is None else level, get_args(Level))
    choose("nodes_by", nodes_by, NODES_BY)
    values, known = _read(scores, truth)
    if level in ("head", "neuron", "expert", "feature"):
        _check_shape("truth", known, tuple(values.shape))
        there = getattr(scores, "exists", None)
        keys, labels = (values.flatten(), known.flatten()) if there is None else (values[there], known[there])
        return _checked(keys, labels, level, absolute)
    graph = _graph_of(scores, truth, graph)
    if level == "edge":
        if values.ndim == 3:
            _check_shape("truth", known, tuple(values.shape))
        _check_shape("scores", values[0] if values.ndim == 3 else values, graph.shape)
        there = graph.edge_mask.expand(values.shape)
        checked = known if values.ndim == 3 else graph.check_mask(known, "truth")
        keys, labels = values[there], checked[there]
    else:
        values = node_scores(values, graph, absolute, nodes_by) if tuple(values.shape) == graph.shape else values
        known = live_sources(known, graph) if tuple(known.shape) == graph.shape else known
        _check_shape("scores", values, graph.shape[:1])
        _check_shape("truth", known, graph.shape[:1])
        keys, labels = values[1:], known[1:]
    return _checked(keys, labels, level, absolute)


def _level(scores: Any, truth: Any) -> str:
    """What truth or else scores say that they are of."""
    said = getattr(truth, "level", getattr(scores, "level", None))
    return str(said) if said in get_args(Level) else "edge"


def _checked(
    keys: Tensor, labels: Tensor, level: str, absolute: bool
) -> tuple[NDArray[np.float64], Bool[np.ndarray, " item"]]:
    if not torch.isfinite(keys).all():
        raise InputError(f"{int((~torch.isfinite(keys)).sum()):,} of {len(keys):,} scores are NaN or infinite")
    if labels.all() or not labels.any():
        raise InputError(
            f"truth holds {'every' if labels.any() else 'no'} {level}, so that there is nothing to tell apart"
        )
    return (keys.abs() if absolute else keys).double().numpy(), labels.numpy()


def _read(scores: Any, truth: Any) -> tuple[Tensor, Tensor]:
    values = scores if isinstance(scores, Tensor) else getattr(scores, "values", None)
    if not isinstance(values, Tensor):
        raise InputError(f"scores must be a tensor or have such .values; got {type(scores).__name__}")
    known = getattr(truth, "mask", truth)
    if not isinstance(known, Tensor) or known.dtype != torch.bool:
        given = str(known.dtype) if isinstance(known, Tensor) else type(truth).__name__
        raise InputError(f"truth must be a bool tensor or have such a .mask; got {given}")
    return values.detach().cpu(), known.cpu()


def _graph_of(scores: Any, truth: Any, graph: ComputationalGraph | None) -> ComputationalGraph:
    graph = graph if graph is not None else getattr(scores, "graph", None) or getattr(truth, "graph", None)
    if graph is None:
        raise InputError("graph is needed where neither scores nor truth has one: ComputationalGraph.of(model)")
    return graph


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise InputError(f"{name} of shape {tuple(tensor.shape)} must have shape {shape} for this graph and level")


def _mib_auroc(scores: Any, truth: Any, graph: ComputationalGraph | None) -> float:
    _ranked(scores, truth, graph, "edge", True, "max")  # refuses what cannot be ranked
    (values, known), graph = _read(scores, truth), _graph_of(scores, truth, graph)
    positives = int(known.sum())
    points = []
    for fraction in LADDER_FRACTIONS:
        chosen = greedy(values, graph, math.ceil(fraction * graph.n_edges))
        found = int((chosen & known).sum())
        points.append(((int(chosen.sum()) - found) / (graph.n_edges - positives), found / positives))
    false, true = np.array(points).T
    return float(np.trapezoid(true, false))

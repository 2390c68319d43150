"""From scores over a graph to a circuit: top-n, threshold, greedy and prune, as pure functions of tensors.

Ties are broken by position: of two equal scores the edge that comes first in the flattened `[source, target]`
matrix wins, so that the same scores always give the same circuit. Only real edges are ever chosen.
"""

from __future__ import annotations

import functools
import heapq
import math
import operator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.graph import ComputationalGraph

LADDER_FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def ladder(graph: ComputationalGraph) -> tuple[int, ...]:
    """Circuit sizes at which MIB measures faithfulness: int(p n) for each of `LADDER_FRACTIONS`.

    In a graph of fewer than 1,000 edges the first sizes are 0 and sizes may repeat.

    >>> ladder(ComputationalGraph(n_layers=12, n_heads=12))
    (32, 64, 162, 324, 649, 1624, 3249, 6498, 16245, 32491)
    """
    return tuple(int(fraction * graph.n_edges) for fraction in LADDER_FRACTIONS)


def top_n(
    scores: Float[Tensor, "source target"],
    graph: ComputationalGraph,
    n: int,
    absolute: bool = True,
    pruned: bool = True,
) -> Bool[Tensor, "source target"]:
    """The `n` edges of largest |score| (of largest signed score with `absolute=False`), then pruned.

    `n` counts edges before pruning, as MIB and the EAP-IG reference do; the mask holds at most `n`.
    Raises `InputError` for scores of the wrong shape or that are not finite, and for `n` out of range.

    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> scores = torch.zeros(graph.shape)
    >>> scores[graph.edge_index("input->logits")] = -2.0
    >>> list(graph.edges(top_n(scores, graph, 1)))
    ['input->logits']
    """
    key = _edge_keys(scores, graph, absolute)
    best = _largest(key, _check_size(n, graph.n_edges, "edges"))
    return _finish(_edge_positions(graph)[best], graph, pruned)


def threshold(
    scores: Float[Tensor, "source target"],
    graph: ComputationalGraph,
    value: float,
    absolute: bool = True,
    pruned: bool = True,
) -> Bool[Tensor, "source target"]:
    """The edges whose |score| (signed score with `absolute=False`) is at least `value`, then pruned.

    Raises `InputError` for scores of the wrong shape or that are not finite, and when `value` is NaN.

    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> int(threshold(torch.zeros(graph.shape), graph, 0.0).sum()) == graph.n_edges
    True
    """
    if math.isnan(value):
        raise InputError("value=nan cannot be a threshold; give the smallest score to keep")
    key = _edge_keys(scores, graph, absolute)
    return _finish(_edge_positions(graph)[key >= value], graph, pruned)


def greedy(
    scores: Float[Tensor, "source target"],
    graph: ComputationalGraph,
    n: int,
    absolute: bool = True,
    pruned: bool = True,
) -> Bool[Tensor, "source target"]:
    """Grow a circuit from the logits upwards to `n` edges, then prune it.

    At each of `n` steps the best edge that ends in a node already in the circuit is taken, and its source
    joins. One heap holds the best edge left of every target that has been reached, so that each step costs
    O(log targets), whatever the depth. A grouped k or v target is reached with the first of its heads.

    Raises `InputError` as `top_n` does.
    """
    # each target's sources from best to worst; the sources that do not exist sink to the end
    cost = np.full(graph.shape, np.inf)
    cost.reshape(-1)[_edge_positions(graph)] = -_edge_keys(scores, graph, absolute)
    n = _check_size(n, graph.n_edges, "edges")
    sources = np.argsort(cost.T, axis=1, kind="stable")
    costs = np.take_along_axis(cost.T, sources, axis=1)
    lengths = graph.edge_mask.sum(dim=0).tolist()
    feeding: list[list[int]] = [[] for _ in graph.sources]
    for target, fed in enumerate(graph.target_sources):
        for source in fed:
            feeding[source].append(target)

    n_targets = graph.shape[1]
    heap: list[tuple[float, int, int]] = []
    reached = [False] * n_targets
    chosen: list[int] = []

    def push(target: int, rank: int) -> None:
        if rank < lengths[target]:
            position = sources.item(target, rank) * n_targets + target
            heapq.heappush(heap, (costs.item(target, rank), position, rank))

    def reach(target: int) -> None:
        if not reached[target]:
            reached[target] = True
            push(target, 0)

    reach(n_targets - 1)
    while len(chosen) < n:
        # the logits read every source, so that every target is reached before the heap runs dry
        _, position, rank = heapq.heappop(heap)
        chosen.append(position)
        source, target = divmod(position, n_targets)
        push(target, rank + 1)
        for target in feeding[source]:
            reach(target)
    return _finish(np.array(chosen, dtype=np.int64), graph, pruned)


def top_n_nodes(
    scores: Float[Tensor, " source"],
    graph: ComputationalGraph,
    n: int,
    absolute: bool = True,
    pruned: bool = True,
) -> Bool[Tensor, "source target"]:
    """All edges among the `n` heads and MLPs of largest |score|, the input and the logits, then pruned.

    The input is always in and is not counted: without it no circuit computes anything.
    Raises `InputError` for scores of the wrong shape or that are not finite, and for `n` out of range.
    """
    n_sources = graph.shape[0]
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (n_sources,):
        raise _wrong_shape(scores, (n_sources,), "one score per source of the graph")
    key = _keys(scores, absolute, "node scores")[1:]
    best = _largest(key, _check_size(n, n_sources - 1, "heads and MLPs"))
    alive = np.zeros(n_sources, dtype=bool)
    alive[0] = True
    alive[best + 1] = True
    mask = graph.edge_mask.numpy() & _among(alive, graph)
    return torch.from_numpy(_pruned(mask, graph) if pruned else mask)


def prune(mask: Bool[Tensor, "source target"], graph: ComputationalGraph) -> Bool[Tensor, "source target"]:
    """Drop dead ends from `mask` until nothing changes, as the EAP-IG reference does; returns a new mask.

    A source stays if it has an outgoing edge, and an incoming edge at any of its targets (`input` always
    counts as having one). An edge stays if its source stays and its target feeds a source that stays
    (`logits` always stays). What is left lies on a path from the input to the logits, or is empty.

    Raises `InputError` when `mask` is not a boolean mask over the graph's edges.
    """
    return torch.from_numpy(_pruned(graph.check_mask(mask).numpy(), graph))


def live_sources(mask: Bool[Tensor, "source target"], graph: ComputationalGraph) -> Bool[Tensor, " source"]:
    """Sources with an edge out of them and, but for `input`, an edge into any of their targets."""
    return torch.from_numpy(_live_sources(graph.check_mask(mask).numpy(), graph))


# What follows works on numpy arrays: for matrices of this size one thread is quickest, and the least disturbed by
# whatever else runs on the machine.


def _pruned(mask: Bool[np.ndarray, "source target"], graph: ComputationalGraph) -> Bool[np.ndarray, "source target"]:
    while True:
        kept = mask & _among(_live_sources(mask, graph), graph)
        if np.array_equal(mask, kept):
            return kept
        mask = kept


def _live_sources(mask: Bool[np.ndarray, "source target"], graph: ComputationalGraph) -> Bool[np.ndarray, " source"]:
    target, source = _feeds(graph)
    incoming = np.zeros(mask.shape[0], dtype=bool)
    incoming[source[np.logical_or.reduce(mask, axis=0)[target]]] = True
    incoming[0] = True
    return np.logical_or.reduce(mask, axis=1) & incoming


def _among(alive: Bool[np.ndarray, " source"], graph: ComputationalGraph) -> Bool[np.ndarray, "source target"]:
    """From live sources to the logits and to targets that feed a live source."""
    target, source = _feeds(graph)
    live = np.zeros(graph.shape[1], dtype=bool)
    live[target[alive[source]]] = True
    live[-1] = True
    return alive[:, None] & live


@functools.lru_cache(maxsize=8)
def _feeds(graph: ComputationalGraph) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Every (target, source it feeds) as two index vectors: a grouped k or v target feeds several heads."""
    pairs = [(target, source) for target, fed in enumerate(graph.target_sources) for source in fed]
    target, source = np.array(pairs, dtype=np.int64).T
    return target, source


@functools.lru_cache(maxsize=8)
def _edge_positions(graph: ComputationalGraph) -> Int[np.ndarray, " edge"]:
    """Where each real edge lies in the flattened score matrix."""
    return np.flatnonzero(graph.edge_mask.numpy())


def _edge_keys(scores: Tensor, graph: ComputationalGraph, absolute: bool) -> Float[np.ndarray, " edge"]:
    """What real edges are ranked by, in order of position; refuses scores that cannot be ranked."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != graph.shape:
        raise _wrong_shape(scores, graph.shape, "sources, targets of the graph")
    return _keys(scores, absolute, "scores", _edge_positions(graph))


def _keys(
    scores: Tensor, absolute: bool, what: str, positions: Int[np.ndarray, " key"] | slice = slice(None)
) -> Float[np.ndarray, " key"]:
    scores = scores.detach().cpu()
    wide = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()  # numpy lacks bfloat16
    key = wide.numpy().reshape(-1)[positions]
    bad = np.count_nonzero(~np.isfinite(key))
    if bad:
        raise InputError(f"{bad:,} of {key.size:,} {what} are NaN or infinite and cannot be ranked")
    return np.abs(key) if absolute else key


def _largest(key: Float[np.ndarray, " key"], n: int) -> Int[np.ndarray, " n"]:
    """Where the `n` largest keys are, in order of position; of equal keys the first."""
    if n == 0:
        return np.empty(0, dtype=np.int64)
    last = np.partition(key, len(key) - n)[len(key) - n]
    chosen = key > last
    chosen[np.flatnonzero(key == last)[: n - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def _wrong_shape(scores: object, shape: tuple[int, ...], meaning: str) -> InputError:
    given = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
    return InputError(f"scores must be a tensor of shape {shape} ({meaning}); got {given}")


def _check_size(n: int, largest: int, what: str) -> int:
    try:
        size = operator.index(n)
    except TypeError:
        raise InputError(f"n={n!r} must be a whole number of {what}") from None
    if not 0 <= size <= largest:
        raise InputError(f"n={size:,} is out of range: the graph has {largest:,} {what}")
    return size


def _finish(
    positions: Int[np.ndarray, " chosen"], graph: ComputationalGraph, pruned: bool
) -> Bool[Tensor, "source target"]:
    mask = np.zeros(graph.shape, dtype=bool)
    mask.reshape(-1)[positions] = True
    return torch.from_numpy(_pruned(mask, graph) if pruned else mask)

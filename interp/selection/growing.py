"""Greedy selection: a circuit that grows from the logits upwards."""

from __future__ import annotations

import heapq

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.graph import ComputationalGraph
from interp.selection.ranking import check_size, edge_keys, edge_positions, finish


@numbers.checked(n=numbers.FROM_ZERO)
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
    cost.reshape(-1)[edge_positions(graph)] = -edge_keys(scores, graph, absolute)
    n = check_size(n, graph.n_edges, "edges")
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
    return finish(np.array(chosen, dtype=np.int64), graph, pruned)

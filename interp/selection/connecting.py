"""Path-aware selection: only edges on a path from the input to the logits count towards the size."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import numbers
from interp.graph import ComputationalGraph
from interp.selection.paths import leading_on, live, pruned_mask
from interp.selection.ranking import check_size, edge_keys, edge_positions


@numbers.checked(n=numbers.FROM_ZERO)
def connected(
    scores: Float[Tensor, "source target"], graph: ComputationalGraph, n: int, absolute: bool = True
) -> Bool[Tensor, "source target"]:
    """The best edges by |score| (by signed score with `absolute=False`) of which `n` are left after pruning.

    Edges are taken in order of their rank, as many as leave at most `n` after pruning. What is missing to `n` is
    filled with the next edges whose both ends are live already. `top_n` counts dead ends, and so leaves fewer.
    The mask holds exactly `n` edges wherever that many fit, and never more. Circuits of several sizes are nested up
    to what was filled in. Ties go to the first edge in order of position.

    Cost: a sort and O(log edges) prunings. Raises `InputError` as `top_n` does.

    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> scores = torch.zeros(graph.shape)
    >>> scores[graph.edge_index("input->m0")] = 3.0  # a dead end as long as m0->logits is out
    >>> scores[graph.edge_index("input->logits")] = 2.0
    >>> list(graph.edges(connected(scores, graph, 1)))
    ['input->logits']
    """
    keys = edge_keys(scores, graph, absolute)
    n = check_size(n, graph.n_edges, "edges")
    ranked = edge_positions(graph)[np.argsort(-keys, kind="stable")]
    taken, too_many = n, graph.n_edges + 1  # n edges never leave more than n
    while too_many - taken > 1:
        middle = (taken + too_many) // 2
        if np.count_nonzero(_first(ranked, middle, graph)) <= n:
            taken = middle
        else:
            too_many = middle
    mask = _first(ranked, taken, graph)
    rest = ranked[taken:]
    alive = live(mask, graph)
    alive[0] = True
    fitting = rest[leading_on(alive, graph).reshape(-1)[rest]]
    mask.reshape(-1)[fitting[: n - np.count_nonzero(mask)]] = True
    return torch.from_numpy(mask)


def _first(ranked: Int[np.ndarray, " edge"], n: int, graph: ComputationalGraph) -> Bool[np.ndarray, "source target"]:
    mask = np.zeros(graph.shape, dtype=bool)
    mask.reshape(-1)[ranked[:n]] = True
    return pruned_mask(mask, graph)

"""Path-aware selection: only edges on a path from the input to the logits count towards the size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import numbers
from interp.graph import ComputationalGraph
from interp.selection.paths import leading_on, live, pruned_mask
from interp.selection.ranking import check_size, edge_keys, edge_positions

Places = Int[np.ndarray, " place"]  # flat indices into masks


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
    places = best_connected(ranked, n, lambda some: _pruned(some, graph), lambda some: _leading_on(some, graph))
    return torch.from_numpy(_mask(places, graph))


def best_connected(
    ranked: Places, n: int, pruned: Callable[[Places], Places], leading_on: Callable[[Places], np.ndarray]
) -> Places:
    """The first of `ranked` edges (flat places) of which at most `n` are left by `pruned`, filled up to `n`.

    What is missing is the next edges where `leading_on`, of those that are left, is true.
    """
    taken, too_many, all_and_one = n, 2 * n + 1, len(ranked) + 1  # n edges never leave more than n
    while too_many < all_and_one and len(pruned(ranked[:too_many])) <= n:
        taken, too_many = too_many, 2 * too_many
    too_many = min(too_many, all_and_one)
    while too_many - taken > 1:
        middle = (taken + too_many) // 2
        if len(pruned(ranked[:middle])) <= n:
            taken = middle
        else:
            too_many = middle
    left, rest = pruned(ranked[:taken]), ranked[taken:]
    fitting = rest[leading_on(left).reshape(-1)[rest]]
    return np.concatenate((left, fitting[: n - len(left)]))


def _mask(places: Places, graph: ComputationalGraph) -> Bool[np.ndarray, "source target"]:
    mask = np.zeros(graph.shape, dtype=bool)
    mask.reshape(-1)[places] = True
    return mask


def _pruned(places: Places, graph: ComputationalGraph) -> Places:
    return np.flatnonzero(pruned_mask(_mask(places, graph), graph))


def _leading_on(places: Places, graph: ComputationalGraph) -> Bool[np.ndarray, "source target"]:
    """Where edges may be added to a pruned circuit that join what is live."""
    alive = live(_mask(places, graph), graph)
    alive[0] = True
    return leading_on(alive, graph)

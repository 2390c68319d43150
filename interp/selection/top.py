"""The edges (or nodes) of largest score: top-n and threshold.

Ties are broken by position: of two equal scores the edge that comes first in the flattened `[source, target]`
matrix wins, so that the same scores always give the same circuit. Only real edges are ever chosen.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection.paths import leading_on, pruned_mask
from interp.selection.ranking import (
    check_size,
    edge_keys,
    edge_positions,
    finish,
    largest,
    ranking_keys,
    wrong_shape,
)


@numbers.checked(n=numbers.FROM_ZERO)
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
    key = edge_keys(scores, graph, absolute)
    best = largest(key, check_size(n, graph.n_edges, "edges"))
    return finish(edge_positions(graph)[best], graph, pruned)


@numbers.checked()
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
    key = edge_keys(scores, graph, absolute)
    return finish(edge_positions(graph)[key >= value], graph, pruned)


@numbers.checked(n=numbers.FROM_ZERO)
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
        raise wrong_shape(scores, (n_sources,), "one score per source of the graph")
    key = ranking_keys(scores, absolute, "node scores")[1:]
    best = largest(key, check_size(n, n_sources - 1, "heads and MLPs"))
    alive = torch.zeros(n_sources, dtype=torch.bool, device="cpu")
    alive[0] = True
    alive[best + 1] = True
    return among_nodes(alive, graph, pruned)


def among_nodes(
    alive: Bool[Tensor, " source"], graph: ComputationalGraph, pruned: bool = True
) -> Bool[Tensor, "source target"]:
    """All edges among some sources, and from them to the logits, then pruned."""
    mask = graph.edge_mask.numpy() & leading_on(alive.numpy(), graph)
    return torch.from_numpy(pruned_mask(mask, graph) if pruned else mask)

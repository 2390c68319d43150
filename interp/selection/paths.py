"""What of a circuit lies on paths from the input to the logits."""

from __future__ import annotations

import functools

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.graph import ComputationalGraph


def prune(mask: Bool[Tensor, "source target"], graph: ComputationalGraph) -> Bool[Tensor, "source target"]:
    """Drop dead ends from `mask` until nothing changes, as the EAP-IG reference does; returns a new mask.

    A source stays if it has an outgoing edge, and an incoming edge at any of its targets (`input` always
    counts as having one). An edge stays if its source stays and its target feeds a source that stays
    (`logits` always stays). What is left lies on a path from the input to the logits, or is empty.

    Raises `InputError` when `mask` is not a boolean mask over the graph's edges.
    """
    return torch.from_numpy(pruned_mask(graph.check_mask(mask).numpy(), graph))


def live_sources(mask: Bool[Tensor, "source target"], graph: ComputationalGraph) -> Bool[Tensor, " source"]:
    """Sources with an edge out of them and, but for `input`, an edge into any of their targets."""
    return torch.from_numpy(live(graph.check_mask(mask).numpy(), graph))


# What follows works on numpy arrays: for matrices of this size one thread is quickest, and the least disturbed by
# whatever else runs on the machine.


def pruned_mask(
    mask: Bool[np.ndarray, "source target"], graph: ComputationalGraph
) -> Bool[np.ndarray, "source target"]:
    """`prune` on numpy arrays."""
    while True:
        kept: Bool[np.ndarray, "source target"] = mask & leading_on(live(mask, graph), graph)
        if np.array_equal(mask, kept):
            return kept
        mask = kept


def live(mask: Bool[np.ndarray, "source target"], graph: ComputationalGraph) -> Bool[np.ndarray, " source"]:
    """`live_sources` on numpy arrays."""
    target, source = feeds(graph)
    incoming = np.zeros(mask.shape[0], dtype=bool)
    incoming[source[np.logical_or.reduce(mask, axis=0)[target]]] = True
    incoming[0] = True
    alive: Bool[np.ndarray, " source"] = np.logical_or.reduce(mask, axis=1) & incoming
    return alive


def leading_on(alive: Bool[np.ndarray, " source"], graph: ComputationalGraph) -> Bool[np.ndarray, "source target"]:
    """From live sources to the logits and to targets that feed a live source."""
    target, source = feeds(graph)
    live = np.zeros(graph.shape[1], dtype=bool)
    live[target[alive[source]]] = True
    live[-1] = True
    return alive[:, None] & live


@functools.lru_cache(maxsize=8)
def feeds(graph: ComputationalGraph) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Every (target, source it feeds) as two index vectors: a grouped k or v target feeds several heads."""
    pairs = [(target, source) for target, fed in enumerate(graph.target_sources) for source in fed]
    target, source = np.array(pairs, dtype=np.int64).T
    return target, source

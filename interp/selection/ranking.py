"""What selections share: scores as keys to rank by, sizes, and masks from positions.

On numpy arrays: for matrices of this size one thread is quickest, and the least disturbed by whatever else runs on
the machine.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection.paths import pruned_mask


@functools.lru_cache(maxsize=8)
def edge_positions(graph: ComputationalGraph) -> Int[np.ndarray, " edge"]:
    """Where each real edge lies in the flattened score matrix."""
    return np.flatnonzero(graph.edge_mask.numpy())


def edge_keys(scores: Tensor, graph: ComputationalGraph, absolute: bool) -> Float[np.ndarray, " edge"]:
    """What real edges are ranked by, in order of position; refuses scores that cannot be ranked."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != graph.shape:
        raise wrong_shape(scores, graph.shape, "sources, targets of the graph")
    return ranking_keys(scores, absolute, "scores", edge_positions(graph))


def ranking_keys(
    scores: Tensor, absolute: bool, what: str, positions: Int[np.ndarray, " key"] | slice = slice(None)
) -> Float[np.ndarray, " key"]:
    """Scores as numpy ranks them; refuses NaN and infinity."""
    scores = scores.detach().cpu()
    wide = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()  # numpy lacks bfloat16
    key = wide.numpy().reshape(-1)[positions]
    bad = np.count_nonzero(~np.isfinite(key))
    if bad:
        raise InputError(f"{bad:,} of {key.size:,} {what} are NaN or infinite and cannot be ranked")
    return np.abs(key) if absolute else key


def largest(key: Float[np.ndarray, " key"], n: int) -> Int[np.ndarray, " n"]:
    """Where the `n` largest keys are, in order of position; of equal keys the first."""
    if n == 0:
        return np.empty(0, dtype=np.int64)
    last = np.partition(key, len(key) - n)[len(key) - n]
    chosen = key > last
    chosen[np.flatnonzero(key == last)[: n - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def wrong_shape(scores: object, shape: tuple[int, ...], meaning: str) -> InputError:
    """The sentence for scores that do not fit the graph."""
    given = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
    return InputError(f"scores must be a tensor of shape {shape} ({meaning}); got {given}")


def check_size(n: int, largest: int, what: str) -> int:
    """`n` as an int from 0 to `largest`; raises `InputError` for anything else."""
    return numbers.whole("n", n, numbers.Limits(0, largest, advice=f"the graph has {largest:,} {what}"))


def finish(
    positions: Int[np.ndarray, " chosen"], graph: ComputationalGraph, pruned: bool
) -> Bool[Tensor, "source target"]:
    """The mask of edges at `positions`, pruned if asked."""
    mask = np.zeros(graph.shape, dtype=bool)
    mask.reshape(-1)[positions] = True
    return torch.from_numpy(pruned_mask(mask, graph) if pruned else mask)

"""Means of what sources give in clean runs, by position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from interp import ranks
from interp.anatomy import Anatomy
from interp.kernels.capture import Sources
from interp.kernels.forward import Recorder, Residual, run_blocks
from interp.kernels.means import add_real, averaged, clean_runs
from interp.parts import working
from interp.tasks.prompts import Prompts


@dataclass(frozen=True)
class Means:
    """Mean outputs of all sources by position: [pos, ...]; for `mean` every position holds the same."""

    by_position: Sources

    def rows(self, positions: Tensor) -> Sources:
        """Means at given positions, one row for each."""
        return self.by_position.each(lambda mean: mean[positions])


def zero_sources(anatomy: Anatomy, n_rows: int, dtype: torch.dtype) -> Sources:
    """Sources that give nothing."""
    like = torch.empty(0, dtype=dtype, device=anatomy.device)
    return Sources(
        like.new_zeros(n_rows, anatomy.d_model),
        [like.new_zeros(n_rows, anatomy.n_heads, anatomy.d_head) for _ in anatomy.blocks],
        [like.new_zeros(n_rows, anatomy.d_model) for _ in anatomy.blocks],
    )


class _SumRecorder(Recorder):
    """Adds a run's sources, by position, to running totals."""

    def __init__(self, totals: Sources, real: Tensor, of: Callable[[Tensor], Tensor]) -> None:
        self.totals, self.real, self.of = totals, real, of

    def heads(self, layer: int, z: Tensor) -> None:
        add_real(self.totals.heads[layer], self.of(z), self.real)

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        add_real(self.totals.mlps[layer], self.of(m), self.real)
        return m


@torch.no_grad()
def source_totals(
    anatomy: Anatomy,
    prompts: Prompts,
    batch_size: int | None = None,
    memory: int | None = None,
    of: Callable[[Tensor], Tensor] = working,
) -> Sources:
    """Sums over prompts of what sources give, or of a function of it, by position: float64 [pos, ...]."""
    totals = zero_sources(anatomy, prompts.clean.shape[1], torch.float64)
    for batch, frame, embedding in clean_runs(anatomy, prompts, batch_size, memory):
        add_real(totals.embedding, of(embedding), batch.prompts.mask)
        run_blocks(frame, embedding, _SumRecorder(totals, batch.prompts.mask, of))
    ranks.add(totals.embedding, *totals.heads, *totals.mlps)
    return totals


def source_means(
    anatomy: Anatomy, prompts: Prompts, positional: bool, batch_size: int | None = None, memory: int | None = None
) -> Means:
    """Means over prompts at each position (`positional`), or over all real positions. One forward pass."""
    dtype = working(anatomy.parameter()[:0]).dtype
    totals = source_totals(anatomy, prompts, batch_size, memory)
    return Means(totals.each(lambda total: averaged(total, prompts, positional).to(dtype)))

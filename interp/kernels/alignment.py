"""Corrupted prompts of other lengths than the clean ones: which of their positions stands for which.

Both are aligned at their ends. What a position of the clean prompt has no counterpart for counts as no difference: its
corrupted value is the clean one. A corrupted prompt runs at positions of its own.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.batching import Batch
from interp.kernels.forward import Residual, prepare
from interp.kernels.frame import Frame
from interp.tasks.prompts import Prompts


def counterparts(prompts: Prompts) -> Int[Tensor, "row pos"]:
    """For each clean position the corrupted one that stands for it; -1 where there is none."""
    positions = torch.arange(prompts.clean.shape[1], device=prompts.device).expand_as(prompts.clean)
    if prompts.corrupted_lengths is None:
        return positions
    moved = positions + (prompts.corrupted_lengths - prompts.lengths)[:, None]
    return torch.where((moved >= 0) & (moved < prompts.corrupted_lengths[:, None]), moved, -1)


class Aligned:
    """Corrupted prompts of a batch that are of other lengths, in a frame of their own."""

    def __init__(self, anatomy: Anatomy, batch: Batch) -> None:
        prompts = batch.prompts
        assert prompts.corrupted_lengths is not None
        self.frame = prepare(anatomy, prompts.corrupted, 0, prompts.corrupted_lengths)
        self.embedded = anatomy.embed(prompts.corrupted, self.frame.positions)
        there = counterparts(prompts)[:, batch.start :]
        self.lacking = (there < 0).flatten()
        rows = torch.arange(len(there), device=there.device)[:, None] * self.frame.n_positions
        self.places = (rows + there.clamp(min=0)).flatten()  # flat indices into [row, pos] of the corrupted prompts

    def moved(self, corrupted: Float[Tensor, "row pos ..."], clean: Float[Tensor, "row pos2 ..."]) -> Tensor:
        """Corrupted values where the clean ones stand, and these where there are none."""
        found = corrupted.flatten(0, 1)[self.places]
        flat = clean.flatten(0, 1)
        lacking = self.lacking.reshape(-1, *[1] * (flat.ndim - 1))
        return torch.where(lacking, flat, found).view_as(clean)


@torch.no_grad()
def corrupted_embedding(anatomy: Anatomy, batch: Batch, frame: Frame) -> Residual:
    """The embeddings of the corrupted prompts where the clean ones' stand."""
    prompts = batch.prompts
    if prompts.corrupted_lengths is None:
        return anatomy.embed(prompts.corrupted[:, batch.start :], frame.positions)
    aligned = Aligned(anatomy, batch)
    return aligned.moved(aligned.embedded, anatomy.embed(prompts.clean[:, batch.start :], frame.positions))

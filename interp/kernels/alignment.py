"""Corrupted prompts of other lengths than the clean ones: which of their positions stands for which.

Both are aligned at their ends, or span by span (`interp.tasks.counterparts`). What a position of the clean prompt has
no counterpart for counts as no difference: its corrupted value is the clean one. A corrupted prompt runs at positions
of its own.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.batching import Batch
from interp.kernels.forward import Residual, prepare
from interp.kernels.frame import Frame


class Aligned:
    """Corrupted prompts of a batch that are of other lengths, in a frame of their own."""

    def __init__(self, anatomy: Anatomy, batch: Batch) -> None:
        prompts = batch.prompts
        assert prompts.corrupted_lengths is not None
        self.frame = prepare(anatomy, prompts.corrupted, 0, prompts.corrupted_lengths)
        self.embedded = anatomy.embed(prompts.corrupted, self.frame.positions)
        assert prompts.counterparts is not None
        start, stop = prompts.counterparts[:, batch.start :].unbind(2)
        self.lacking = (start == stop).flatten()
        rows = torch.arange(len(start), device=start.device)[:, None] * self.frame.n_positions
        self.places = (rows + start).flatten()  # flat indices into [row, pos] of the corrupted prompts
        self.counts = (stop - start).clamp(min=1).flatten()  # of so many positions from there the mean is taken

    def at(self, corrupted: Float[Tensor, "flat ..."], rows: Int[Tensor, " row"]) -> Float[Tensor, "row ..."]:
        """What corrupted prompts have for the clean positions `rows`, flat indices into `[row, pos]`."""
        places, counts = self.places[rows], self.counts[rows]
        found = corrupted[places]
        several = (counts > 1).nonzero()[:, 0]
        if len(several):
            found = found.clone()
            for row in several.tolist():
                first = int(places[row])
                found[row] = corrupted[first : first + int(counts[row])].mean(0)
        return found

    def moved(self, corrupted: Float[Tensor, "row pos ..."], clean: Float[Tensor, "row pos2 ..."]) -> Tensor:
        """Corrupted values where the clean ones stand, and these where there are none."""
        found = self.at(corrupted.flatten(0, 1), torch.arange(len(self.places), device=self.places.device))
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

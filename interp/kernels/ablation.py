"""What a corrupted source gives instead of its output: the ablations, as outputs of all sources.

`zero-token` is `zero` for what positions learn nothing of: under it the input gives its position, and loses its token
alone. So does MIB's `zero`, whose `input` is the token embedding. Where positions are not learned both are one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError, choose
from interp.kernels.alignment import Aligned
from interp.kernels.batching import Batch
from interp.kernels.capture import SourceRecorder, Sources
from interp.kernels.constants import Constants
from interp.kernels.forward import Residual, run_blocks
from interp.kernels.frame import Frame
from interp.kernels.source_means import Means, source_means, zero_sources
from interp.tasks.prompts import Prompts

Ablation = Literal["patch", "zero", "mean", "mean-positional"]
ABLATIONS: tuple[str, ...] = get_args(Ablation)
OPTIMAL = "optimal"
KNOWN = (*ABLATIONS, "zero-token", OPTIMAL)


@dataclass(frozen=True)
class Ablator:
    """Gives the outputs of corrupted sources for any batch, under one ablation."""

    anatomy: Anatomy
    ablation: str
    means: Means | Constants | None = None

    @classmethod
    def of(
        cls,
        anatomy: Anatomy,
        ablation: str,
        prompts: Prompts,
        batch_size: int | None = None,
        memory: int | None = None,
    ) -> Ablator:
        """An ablator; for means, one forward pass over the clean `prompts` is made here.

        `mean` averages each source's output over all prompts and real positions, `mean-positional` over prompts
        at each position. An ablator of `optimal` is made of its `Constants`, which `fit` finds.
        """
        choose("ablation", ablation, KNOWN)
        if ablation == "patch" and not prompts.paired:
            raise InputError(
                "ablation='patch' puts in what nodes give in corrupted prompts, and the task has none; give each "
                "prompt a corrupted version, or use ablation='mean' or 'zero'"
            )
        means = None
        if ablation.startswith("mean"):
            means = source_means(anatomy, prompts, ablation == "mean-positional", batch_size, memory)
        return cls(anatomy, ablation, means)

    @property
    def skip_prefix(self) -> bool:
        """Whether positions before the first difference keep their clean values in every run."""
        return self.ablation == "patch"

    def sources(self, batch: Batch, frame: Frame, rows: Tensor) -> Sources:
        """Outputs of corrupted sources at `rows`. One forward pass for `patch`, none otherwise."""
        if self.ablation == "patch":
            return self._patched(batch, frame, rows)
        positions = frame.positions.repeat(batch.n_rows)[rows]
        if self.means is None:
            nothing = zero_sources(self.anatomy, len(rows), self.anatomy.dtype)
            return nothing if self.ablation == "zero" else replace(nothing, embedding=self._places(positions))
        return self.means.rows(positions)

    def _patched(self, batch: Batch, frame: Frame, rows: Tensor) -> Sources:
        """What sources give in the corrupted run; where the corrupted prompt has no such position, in the clean one."""
        prompts = batch.prompts
        if prompts.corrupted_lengths is None:
            return record_sources(frame, self.anatomy.embed(prompts.corrupted[:, batch.start :], frame.positions), rows)
        aligned = Aligned(self.anatomy, batch)
        whole = torch.arange(aligned.embedded.shape[:2].numel(), device=rows.device)
        found = record_sources(aligned.frame, aligned.embedded, whole)
        clean = record_sources(frame, self.anatomy.embed(prompts.clean[:, batch.start :], frame.positions), rows)
        lacking = aligned.lacking[rows]

        def filled(corrupted: Tensor, own: Tensor) -> Tensor:
            return torch.where(lacking.reshape(-1, *[1] * (own.ndim - 1)), own, aligned.at(corrupted, rows))

        return found.beside(filled, clean)

    @torch.no_grad()
    def _places(self, positions: Tensor) -> Tensor:
        return self.anatomy.embed.positional(positions)


@torch.no_grad()
def record_sources(frame: Frame, embedding: Residual, rows: Tensor) -> Sources:
    """Outputs of all sources of a plain run, at `rows`. One forward pass."""
    recorder = SourceRecorder(embedding, rows)
    run_blocks(frame, embedding, recorder)
    return recorder.sources

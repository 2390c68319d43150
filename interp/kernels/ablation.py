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
from interp.errors import choose
from interp.kernels.batching import Batch
from interp.kernels.capture import SourceRecorder, Sources
from interp.kernels.forward import Recorder, Residual, run_blocks
from interp.kernels.frame import Frame
from interp.kernels.means import add_real, averaged, clean_runs
from interp.parts import working
from interp.tasks.prompts import Prompts

Ablation = Literal["patch", "zero", "mean", "mean-positional"]
ABLATIONS: tuple[str, ...] = get_args(Ablation)
KNOWN = (*ABLATIONS, "zero-token")


@dataclass(frozen=True)
class Means:
    """Mean outputs of all sources by position: [pos, ...]; for `mean` every position holds the same."""

    by_position: Sources

    def rows(self, positions: Tensor) -> Sources:
        """Means at given positions, one row for each."""
        means = self.by_position
        return Sources(
            means.embedding[positions], [z[positions] for z in means.heads], [m[positions] for m in means.mlps]
        )


@dataclass(frozen=True)
class Ablator:
    """Gives the outputs of corrupted sources for any batch, under one ablation."""

    anatomy: Anatomy
    ablation: str
    means: Means | None = None

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
        at each position.
        """
        choose("ablation", ablation, KNOWN)
        means = None
        if ablation.startswith("mean"):
            means = _means(anatomy, prompts, ablation == "mean-positional", batch_size, memory)
        return cls(anatomy, ablation, means)

    @property
    def skip_prefix(self) -> bool:
        """Whether positions before the first difference keep their clean values in every run."""
        return self.ablation == "patch"

    def sources(self, batch: Batch, frame: Frame, rows: Tensor) -> Sources:
        """Outputs of corrupted sources at `rows`. One forward pass for `patch`, none otherwise."""
        if self.ablation == "patch":
            embedding = self.anatomy.embed(batch.prompts.corrupted[:, batch.start :], frame.positions)
            return record_sources(frame, embedding, rows)
        positions = frame.positions.repeat(len(batch))[rows]
        if self.means is None:
            nothing = zero_sources(self.anatomy, len(rows), self.anatomy.dtype)
            return nothing if self.ablation == "zero" else replace(nothing, embedding=self._places(positions))
        return self.means.rows(positions)

    @torch.no_grad()
    def _places(self, positions: Tensor) -> Tensor:
        return self.anatomy.embed.positional(positions)


@torch.no_grad()
def record_sources(frame: Frame, embedding: Residual, rows: Tensor) -> Sources:
    """Outputs of all sources of a plain run, at `rows`. One forward pass."""
    recorder = SourceRecorder(embedding, rows)
    run_blocks(frame, embedding, recorder)
    return recorder.sources


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

    def __init__(self, totals: Sources, real: Tensor) -> None:
        self.totals, self.real = totals, real

    def heads(self, layer: int, z: Tensor) -> None:
        add_real(self.totals.heads[layer], z, self.real)

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        add_real(self.totals.mlps[layer], m, self.real)
        return m


@torch.no_grad()
def _means(anatomy: Anatomy, prompts: Prompts, positional: bool, batch_size: int | None, memory: int | None) -> Means:
    totals = zero_sources(anatomy, prompts.clean.shape[1], torch.float64)
    for batch, frame, embedding in clean_runs(anatomy, prompts, batch_size, memory):
        add_real(totals.embedding, embedding, batch.prompts.mask)
        run_blocks(frame, embedding, _SumRecorder(totals, batch.prompts.mask))

    def mean(total: Tensor) -> Tensor:
        return averaged(total, prompts, positional).to(working(anatomy.parameter()[:0]).dtype)

    return Means(Sources(mean(totals.embedding), [mean(z) for z in totals.heads], [mean(m) for m in totals.mlps]))

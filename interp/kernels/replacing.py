"""Runs in which one source gives a constant in the place of its output, and everything else runs on.

The clean run is made once for a batch; each run starts from it where its source writes. Sources that write at one
place are stacked along the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.batching import Batch, refuse_nan
from interp.kernels.capture import Sources
from interp.kernels.forward import Recorder, Residual, answer_rows, finish_block, run_blocks, unembed
from interp.kernels.frame import PerHead
from interp.objectives import get_objective
from interp.parts import working


class Group(NamedTuple):
    """Sources that write at one place: the input (layer -1), some heads of a layer, or its MLP (no heads)."""

    layer: int
    heads: slice | None = None

    def of(self, sources: Sources) -> Float[Tensor, "row source ..."]:
        """Their part of all sources, a view."""
        if self.layer < 0:
            return sources.embedding[:, None]
        return sources.mlps[self.layer][:, None] if self.heads is None else sources.heads[self.layer][:, self.heads]


def groups(anatomy: Anatomy, copies: int) -> Iterator[Group]:
    """All sources in the order of the graph, at most `copies` of them in a group."""
    yield Group(-1)
    for layer in range(anatomy.n_layers):
        for first in range(0, anatomy.n_heads, copies):
            yield Group(layer, slice(first, min(first + copies, anatomy.n_heads)))
        yield Group(layer)


class _CleanRecorder(Recorder):
    """Keeps a clean run at the places where sources write."""

    def __init__(self) -> None:
        self.entering: list[Residual] = []
        self.middle: list[Residual] = []  # behind attention
        self.z: list[PerHead] = []

    def attention_input(self, layer: int, x: Residual) -> None:
        self.entering.append(x)

    def heads(self, layer: int, z: PerHead) -> None:
        self.z.append(z)

    def attention_output(self, layer: int, added: Residual) -> Residual:
        self.middle.append(self.entering[layer] + added)
        return added


class Replacing:
    """One batch of prompts, from their beginning."""

    @torch.no_grad()
    def __init__(self, anatomy: Anatomy, batch: Batch, checkpointed: bool) -> None:
        self.anatomy, self.batch, self.checkpointed = anatomy, batch, checkpointed
        self.frame = batch.frame(anatomy)
        self.rows = self.frame.positions.clamp(max=1)  # the first position has a row of its own
        self.embedding = anatomy.embed(batch.prompts.clean, self.frame.positions)
        self.clean = _CleanRecorder()
        last = run_blocks(self.frame, self.embedding, self.clean)
        self.clean_logits = unembed(anatomy, answer_rows(last, self.frame, batch.prompts))

    def losses(self, group: Group, values: Float[Tensor, "2 source ..."]) -> Float[Tensor, "source batch"]:
        """KL(model || model with that source replaced) at the answer, for each source of a group alone."""
        x = self._behind(group, values)
        x = run_blocks(self.frame, x, first=group.layer + 1, checkpointed=self.checkpointed)
        logits = unembed(self.anatomy, answer_rows(x, self.frame, self.batch.prompts))
        kl = get_objective("kl")
        each = [kl(one, self.batch.prompts, self.clean_logits) for one in logits.unflatten(0, (values.shape[1], -1))]
        found = -torch.stack(each)
        refuse_nan(found, "kl", self.batch)
        return found

    def _behind(self, group: Group, values: Float[Tensor, "2 source ..."]) -> Residual:
        """The residual stream behind the block in which the sources write, a copy for each."""
        layer, at_positions = group.layer, values[self.rows]  # [pos, source, ...]
        if layer < 0:
            return at_positions[:, 0].to(self.embedding.dtype).expand_as(self.embedding)
        entering, middle, dtype = self.clean.entering[layer], self.clean.middle[layer], self.embedding.dtype
        if group.heads is None:
            return middle + at_positions[:, 0].to(dtype)
        change = at_positions - working(self.clean.z[layer][:, :, group.heads])
        weights = self.anatomy.head_weights(layer)[group.heads]
        written = torch.einsum("bphk,hkd->hbpd", change, weights).flatten(0, 1).to(dtype)
        copies = values.shape[1]
        entering, middle = entering.repeat(copies, 1, 1), middle.repeat(copies, 1, 1)
        return finish_block(self.frame, layer, entering, middle + written, Recorder())

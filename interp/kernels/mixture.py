"""Runs in which every target reads a mixture of its own: what circuits, boolean and weighted, have in common.

    input_t = sum over sources of corrupted_u  +  sum over sources of w[u, t] (current_u - corrupted_u)

The first sum, the corrupted residual stream, is the same for all targets at one depth.
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy, Block
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator
from interp.kernels.batching import Batch
from interp.kernels.forward import answer_rows, attend, run_blocks, unembed, write_heads
from interp.kernels.frame import PerHead
from interp.parts import Affine, working


class MixtureRunner:
    """The corrupted residual stream of one batch of prompts, and heads that read separate inputs."""

    @torch.no_grad()
    def __init__(self, anatomy: Anatomy, graph: ComputationalGraph, ablator: Ablator, batch: Batch) -> None:
        self.anatomy, self.graph, self.batch = anatomy, graph, batch
        # of unequal lengths, a node that reads corrupted values alone reads them at other positions than in their run
        self.from_input = ablator.ablation == "patch" and batch.prompts.corrupted_lengths is None
        self.frame = batch.frame(anatomy)
        self.embedded = anatomy.embed(batch.prompts.clean[:, batch.start :], self.frame.positions)
        self.embedding = working(self.embedded.flatten(0, 1))
        rows = torch.arange(len(self.embedding), device=self.embedding.device)
        self.corrupted = ablator.sources(batch, self.frame, rows)
        row, position = batch.prompts.reads
        self.last = row * self.frame.n_positions + position - batch.start
        self._sum_corrupted()

    @functools.cached_property
    def clean_logits(self) -> Float[Tensor, "batch d_vocab"]:
        """Logits of the clean run, at the first use."""
        with torch.no_grad():
            clean = run_blocks(self.frame, self.embedded)
            return unembed(self.anatomy, answer_rows(clean, self.frame, self.batch.prompts))

    def _sum_corrupted(self) -> None:
        """The corrupted residual stream at each depth: what a target reads whose edges are all outside."""
        anatomy, corrupted = self.anatomy, self.corrupted
        total = working(corrupted.embedding)
        self.at_attention, self.at_mlp = [], []
        for layer, block in enumerate(anatomy.blocks):
            self.at_attention.append(total)
            heads = torch.einsum("rhk,hkd->rd", working(corrupted.heads[layer]), anatomy.head_weights(layer))
            middle = total + heads if block.o.bias is None else total + heads + working(block.o.bias)
            self.at_mlp.append(total if block.parallel else middle)
            total = middle + working(corrupted.mlps[layer])
        self.at_logits = total[self.last]

    def n_bytes(self) -> int:
        """What is held for all circuits over this batch."""
        held = [self.embedding, self.corrupted.embedding, *self.corrupted.heads, *self.corrupted.mlps]
        held += [*self.at_attention, *self.at_mlp, *(part for pair in self.frame.prefix or () for part in pair)]
        return sum(tensor.element_size() * tensor.nelement() for tensor in held)

    def ports_of(self, heads: Int[Tensor, " head"]) -> tuple[Int[Tensor, " port"], Int[Tensor, " head"]]:
        """The key (value) targets that some heads read, and for each head which of those."""
        if self.graph.n_ports == self.graph.n_heads:
            return heads, torch.arange(len(heads), device=heads.device)
        ports, per_head = self.frame.kv_of_head[heads].unique(return_inverse=True)
        return ports, per_head

    def run_heads(
        self,
        layer: int,
        x: Float[Tensor, "circuit target row d_model"],
        heads: Int[Tensor, " head"],
        ports: Int[Tensor, " port"],
        per_head: Int[Tensor, " head"],
    ) -> PerHead:
        """Outputs before W_O of some heads of a layer, circuits stacked along the batch.

        `x` is what their targets read: the queries of `heads`, then the keys of `ports`, then their values. Where a
        norm follows attention, its divisor is that of the sum of the heads given.
        """
        block = self.anatomy.blocks[layer]
        inputs = block.attention_norm(x).to(self.anatomy.dtype).split([len(heads), len(ports), len(ports)], 1)
        q, k, v = (
            self._project(block, part, each, which)
            for part, each, which in zip("qkv", inputs, (heads, ports, ports), strict=True)
        )
        z = attend(self.frame, layer, q, k[:, :, per_head], v[:, :, per_head], heads)
        return z if block.attention_post_norm is None else write_heads(block, z)[0]

    def _project(self, block: Block, part: str, x: Tensor, which: Int[Tensor, " port"]) -> Tensor:
        """Each port's own input through its own projection: [circuit * batch, pos, port, d_head]."""
        affine: Affine = getattr(block, part)
        d_head = self.anatomy.d_head
        weight = affine.weight.unflatten(0, (-1, d_head))
        if part != "q" and len(weight) != self.graph.n_ports:
            which = self.frame.kv_of_head[which]
        out = x @ weight[which].transpose(1, 2)  # [circuit port row d_head]
        if affine.bias is not None:
            out = out + affine.bias.unflatten(0, (-1, d_head))[which][:, None]
        by_prompt: Tensor = out.unflatten(2, (self.batch.n_rows, -1)).permute(0, 2, 3, 1, 4)
        return by_prompt.flatten(0, 1)

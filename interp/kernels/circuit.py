"""Running circuits: every target reads its own mixture of current and corrupted sources.

    input_t = sum over sources of corrupted_u  +  sum over edges (u, t) in the circuit of (current_u - corrupted_u)

The first sum is the same for all targets at one depth; the second is one matrix product per layer between the
mask and the differences so far. Nodes that cannot change the output are not run (`interp.kernels.reach`).
Circuits over the same prompts share the prefix and the corrupted run, and are stacked along the batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.anatomy import Anatomy, Block, working
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator
from interp.kernels.batching import Batch
from interp.kernels.capture import SourceRecorder
from interp.kernels.contract import expand_heads
from interp.kernels.forward import attend, last_rows, run_blocks, run_mlp, unembed, write_heads
from interp.kernels.reach import live_edges


class CircuitRunner:
    """Runs circuits over one batch of prompts; built once per batch, called for any number of circuits."""

    @torch.no_grad()
    def __init__(self, anatomy: Anatomy, graph: ComputationalGraph, ablator: Ablator, batch: Batch) -> None:
        self.anatomy, self.graph, self.batch = anatomy, graph, batch
        self.from_input = ablator.ablation == "patch"
        self.frame = batch.frame(anatomy)
        embedding = anatomy.embed(batch.prompts.clean[:, batch.start :], self.frame.positions)
        rows = torch.arange(embedding.shape[:2].numel(), device=embedding.device)
        recorder = SourceRecorder(embedding, rows)
        clean = run_blocks(self.frame, embedding, recorder)
        self.clean_logits = unembed(anatomy, last_rows(clean, self.frame, batch.prompts.lengths))
        self.corrupted = ablator.sources(batch, self.frame, rows)
        self.embedding = working(recorder.sources.embedding)
        self.last = (
            torch.arange(len(batch), device=rows.device) * self.frame.n_positions
            + batch.prompts.lengths
            - 1
            - batch.start
        )
        self._sum_corrupted()

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

    @torch.no_grad()
    def logits(self, masks: Bool[Tensor, "circuit source target"]) -> Float[Tensor, "circuit batch d_vocab"]:
        """Logits at the last real position of each prompt, for each circuit."""
        live = live_edges(masks, self.graph, from_input=self.from_input, coupled=self.anatomy.coupled_heads)
        run = _Run(self, live.to(self.embedding.device))
        for layer in range(self.anatomy.n_layers):
            run.attention(layer)
            run.mlp(layer)
        return run.logits()


class _Run:
    """The state of running some circuits: differences of the sources that matter, as far as they are known."""

    def __init__(self, runner: CircuitRunner, live: Bool[Tensor, "circuit source target"]) -> None:
        self.runner, self.graph, self.anatomy = runner, runner.graph, runner.anatomy
        self.used = live.any(0).any(1)  # sources with an edge in any of the circuits
        rows, d_model = runner.embedding.shape
        count = int(self.used.sum())
        self.n_circuits = len(live)
        self.weights = live[:, self.used].to(runner.embedding.dtype).transpose(1, 2)  # [circuit target source]
        self.differences = runner.embedding.new_empty(self.n_circuits, count, rows * d_model)
        self.known = 0
        if self.used[0]:
            self._add((runner.embedding - working(runner.corrupted.embedding)).expand(self.n_circuits, 1, -1, -1))

    def _add(self, differences: Float[Tensor, "circuit source row d_model"]) -> None:
        count = differences.shape[1]
        self.differences[:, self.known : self.known + count] = differences.flatten(2)
        self.known += count

    def _mix(self, base: Float[Tensor, "row d_model"], targets: Int[Tensor, " target"]) -> Tensor:
        """What targets read: [circuit, target, row, d_model]."""
        weights = self.weights[:, targets, : self.known]
        return base + torch.bmm(weights, self.differences[:, : self.known]).unflatten(2, base.shape)

    def attention(self, layer: int) -> None:
        """Run the heads of a layer that matter, each on its own queries', keys' and values' inputs."""
        runner, anatomy, block = self.runner, self.anatomy, self.anatomy.blocks[layer]
        used = self.used[self.graph.head_sources(layer)]
        if not used.any():
            return
        # a norm behind attention divides by the norm of all heads' sum: run all of them
        heads = (torch.ones_like(used) if block.attention_post_norm is not None else used).nonzero()[:, 0]
        ports, per_head = self._kv_ports(heads)
        first = self.graph.attention_targets(layer).start
        kv = first + self.graph.n_heads + ports
        targets = torch.cat((first + heads, kv, kv + self.graph.n_ports))
        mixed = block.attention_norm(self._mix(runner.at_attention[layer], targets))
        inputs = mixed.to(anatomy.dtype).split([len(heads), len(ports), len(ports)], 1)
        q, k, v = (
            self._project(block, part, x, which)
            for part, x, which in zip("qkv", inputs, (heads, ports, ports), strict=True)
        )
        z = attend(runner.frame, layer, q, k[:, :, per_head], v[:, :, per_head], heads)
        if block.attention_post_norm is not None:
            z, _ = write_heads(block, z)
        chosen = used[heads]
        z, heads = z[:, :, chosen], heads[chosen]
        current = working(z).flatten(0, 1).unflatten(0, (self.n_circuits, -1))
        change = current - working(runner.corrupted.heads[layer][:, heads])
        written = expand_heads(change.flatten(0, 1), anatomy.head_weights(layer)[heads])
        self._add(written.unflatten(1, (self.n_circuits, -1)).transpose(0, 1))

    def _kv_ports(self, heads: Int[Tensor, " head"]) -> tuple[Int[Tensor, " port"], Int[Tensor, " head"]]:
        """The key (value) targets that some heads read, and for each head which of those."""
        if self.graph.n_ports == self.graph.n_heads:
            return heads, torch.arange(len(heads), device=heads.device)
        ports, per_head = self.runner.frame.kv_of_head[heads].unique(return_inverse=True)
        return ports, per_head

    def _project(self, block: Block, part: str, x: Tensor, which: Int[Tensor, " port"]) -> Tensor:
        """Each port's own input through its own projection: [circuit * batch, pos, port, d_head]."""
        affine, d_head = getattr(block, part), self.anatomy.d_head
        weight = affine.weight.unflatten(0, (-1, d_head))
        if part != "q" and len(weight) != self.graph.n_ports:
            which = self.runner.frame.kv_of_head[which]
        out = x @ weight[which].transpose(1, 2)  # [circuit port row d_head]
        if affine.bias is not None:
            out = out + affine.bias.unflatten(0, (-1, d_head))[which][:, None]
        return out.unflatten(2, (len(self.runner.batch), -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)

    def mlp(self, layer: int) -> None:
        """Run a layer's MLP if it matters."""
        runner, block = self.runner, self.anatomy.blocks[layer]
        if not self.used[self.graph.mlp_source(layer)]:
            return
        target = torch.tensor([self.graph.mlp_target(layer)], device=self.used.device)
        x = self._mix(runner.at_mlp[layer], target)[:, 0]
        shaped = x.unflatten(1, (len(runner.batch), -1)).flatten(0, 1).to(self.anatomy.dtype)
        out = working(run_mlp(block, shaped)).flatten(0, 1).unflatten(0, (self.n_circuits, -1))
        self._add((out - working(runner.corrupted.mlps[layer]))[:, None])

    def logits(self) -> Float[Tensor, "circuit batch d_vocab"]:
        """Unembed what the logits read at the last positions."""
        runner = self.runner
        x = runner.at_logits.expand(self.n_circuits, -1, -1)
        if self.known:
            last = self.differences.unflatten(2, (-1, self.anatomy.d_model))[:, :, runner.last]
            x = x + torch.einsum("cu,cubd->cbd", self.weights[:, -1], last)
        return unembed(self.anatomy, x.to(self.anatomy.dtype))

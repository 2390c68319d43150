"""Running circuits: every target reads its own mixture of current and corrupted sources.

    input_t = sum over sources of corrupted_u  +  sum over edges (u, t) in the circuit of (current_u - corrupted_u)

The first sum is the same for all targets at one depth; the second is one matrix product per layer between the
mask and the differences so far. Nodes that cannot change the output are not run (`interp.kernels.reach`), nor are
layers at the bottom whose every edge is in all circuits: they give what they give in the clean run.
Circuits over the same prompts share the prefix and the corrupted run, and are stacked along the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.anatomy import Anatomy
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator, record_sources
from interp.kernels.batching import Batch, bytes_per_position
from interp.kernels.capture import Sources
from interp.kernels.contract import expand_heads
from interp.kernels.forward import run_mlp, unembed
from interp.kernels.grain import BatchRunner, Grain
from interp.kernels.mixture import MixtureRunner
from interp.kernels.reach import live_edges
from interp.kernels.span_rows import SpanRows
from interp.parts import working
from interp.spans import Placed


@dataclass(frozen=True, eq=False)
class Edges(Grain):
    """Masks over the edges of a graph, `[source, target]`; where positions are told apart, `[span, source, target]`.

    `placed` says which span each position of all prompts is in.
    """

    anatomy: Anatomy
    graph: ComputationalGraph
    ablator: Ablator
    placed: Placed | None = None

    def empty(self) -> Bool[Tensor, "*span source target"]:
        nothing = torch.zeros_like(self.graph.edge_mask)
        return nothing if self.placed is None else nothing.repeat(len(self.placed.spans), 1, 1)

    def runner(self, batch: Batch) -> CircuitRunner:
        return CircuitRunner(self.anatomy, self.graph, self.ablator, batch, self.placed)

    def sizes(self, masks: Bool[Tensor, "circuit *span source target"]) -> Sequence[int]:
        """How many sources of each circuit can change its output."""
        coupled = self.anatomy.coupled_heads
        live = live_edges(_anywhere(masks), self.graph, from_input=self.ablator.ablation == "patch", coupled=coupled)
        return live.any(2).sum(1).tolist()

    def row_bytes(self, size: int | None = None) -> int:
        """Differences of so many sources, and one layer's separate inputs."""
        sources = len(self.graph.sources) if size is None else size
        floats = (sources + 8 * self.anatomy.n_heads) * self.anatomy.d_model
        return 4 * floats + bytes_per_position(self.anatomy, gradient=False)


class CircuitRunner(MixtureRunner, BatchRunner):
    """Runs circuits over one batch of prompts; built once per batch, called for any number of circuits.

    `placed`: the spans that circuits tell apart. At positions in none all edges are ablated.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        graph: ComputationalGraph,
        ablator: Ablator,
        batch: Batch,
        placed: Placed | None = None,
    ) -> None:
        super().__init__(anatomy, graph, ablator, batch)
        width = batch.prompts.clean.shape[1]
        spans = None if placed is None else placed.rows(batch.indices, batch.start, width)
        self.rows = SpanRows.of(spans, self.embedding)

    @torch.no_grad()
    def logits(self, masks: Bool[Tensor, "circuit *span source target"]) -> Float[Tensor, "circuit batch d_vocab"]:
        """Logits at the last real position of each prompt, for each circuit."""
        somewhere, by_span = _anywhere(masks), masks if masks.ndim == 4 else masks[:, None]
        live = live_edges(somewhere, self.graph, from_input=self.from_input, coupled=self.anatomy.coupled_heads)
        whole = 0 if self.rows.some_in_none else _whole_layers(by_span.all(1), self.graph)
        live[:, :, : whole * self.graph.targets_per_layer] = False  # read by what is not run
        run = _Run(self, (by_span & live[:, None]).to(self.embedding.device))
        for layer in range(whole):
            run.as_in_clean(layer)
        for layer in range(whole, self.anatomy.n_layers):
            run.attention(layer)
            run.mlp(layer)
        return run.logits()

    @functools.cached_property
    def clean_differences(self) -> Sources:
        """Clean less corrupted outputs of all sources. One forward pass, at the first use."""
        rows = torch.arange(len(self.embedding), device=self.embedding.device)
        return record_sources(self.frame, self.embedded, rows).minus(self.corrupted)

    def n_bytes(self) -> int:
        """With the clean differences, which are as many numbers as the corrupted outputs."""
        outputs = [self.embedding, *map(working, (*self.corrupted.heads, *self.corrupted.mlps))]
        return super().n_bytes() + sum(tensor.element_size() * tensor.nelement() for tensor in outputs)


def _anywhere(masks: Bool[Tensor, "circuit *span source target"]) -> Bool[Tensor, "circuit source target"]:
    """The edges that are in at any span."""
    return masks.any(1) if masks.ndim == 4 else masks


def _whole_layers(masks: Bool[Tensor, "circuit source target"], graph: ComputationalGraph) -> int:
    """How many layers from the bottom have every edge into them in all circuits."""
    held = (masks.all(0) | ~graph.edge_mask.to(masks.device)).all(0)
    whole = held[:-1].unflatten(0, (graph.n_layers, -1)).all(1)
    return int(whole.cumprod(0).sum())


class _Run:
    """The state of running some circuits: differences of the sources that matter, as far as they are known."""

    def __init__(self, runner: CircuitRunner, live: Bool[Tensor, "circuit span source target"]) -> None:
        self.runner, self.graph, self.anatomy = runner, runner.graph, runner.anatomy
        self.used = live.any(0).any(0).any(1)  # sources with an edge in any of the circuits
        rows, d_model = runner.embedding.shape
        count = int(self.used.sum())
        self.n_circuits = len(live)
        self.weights = live[:, :, self.used].transpose(2, 3)  # [circuit span target source]
        self.differences = runner.embedding.new_empty(self.n_circuits, count, rows * d_model)
        self.known = 0
        if self.used[0]:
            self._add((runner.embedding - working(runner.corrupted.embedding)).expand(self.n_circuits, 1, -1, -1))

    def _add(self, differences: Float[Tensor, "circuit source row d_model"]) -> None:
        count = differences.shape[1]
        self.differences[:, self.known : self.known + count] = self.runner.rows.ordered(differences).flatten(2)
        self.known += count

    def _mix(self, base: Float[Tensor, "row d_model"], targets: Int[Tensor, " target"]) -> Tensor:
        """What targets read: [circuit, target, row, d_model]."""
        weights = self.weights[:, :, targets, : self.known].to(base.dtype)
        return base + self.runner.rows.mixed(weights, self.differences[:, : self.known])

    def as_in_clean(self, layer: int) -> None:
        """Take the sources of a layer that matter as the clean run has them."""
        clean, used = self.runner.clean_differences, self.used
        heads = used[self.graph.head_sources(layer)].nonzero()[:, 0]
        if len(heads):
            weights = self.anatomy.head_weights(layer)[heads]
            self._add(expand_heads(clean.heads[layer][:, heads], weights).expand(self.n_circuits, -1, -1, -1))
        if used[self.graph.mlp_source(layer)]:
            self._add(clean.mlps[layer].expand(self.n_circuits, 1, -1, -1))

    def attention(self, layer: int) -> None:
        """Run the heads of a layer that matter, each on its own queries', keys' and values' inputs."""
        runner, anatomy, block = self.runner, self.anatomy, self.anatomy.blocks[layer]
        used = self.used[self.graph.head_sources(layer)]
        if not used.any():
            return
        # a norm behind attention divides by the norm of all heads' sum: run all of them
        heads = (torch.ones_like(used) if block.attention_post_norm is not None else used).nonzero()[:, 0]
        ports, per_head = runner.ports_of(heads)
        first = self.graph.attention_targets(layer).start
        kv = first + self.graph.n_heads + ports
        targets = torch.cat((first + heads, kv, kv + self.graph.n_ports))
        z = runner.run_heads(layer, self._mix(runner.at_attention[layer], targets), heads, ports, per_head)
        chosen = used[heads]
        z, heads = z[:, :, chosen], heads[chosen]
        current = working(z).flatten(0, 1).unflatten(0, (self.n_circuits, -1))
        change = current - working(runner.corrupted.heads[layer][:, heads])
        written = expand_heads(change.flatten(0, 1), anatomy.head_weights(layer)[heads])
        self._add(written.unflatten(1, (self.n_circuits, -1)).transpose(0, 1))

    def mlp(self, layer: int) -> None:
        """Run a layer's MLP if it matters."""
        runner, block = self.runner, self.anatomy.blocks[layer]
        if not self.used[self.graph.mlp_source(layer)]:
            return
        target = torch.tensor([self.graph.mlp_target(layer)], device=self.used.device)
        x = self._mix(runner.at_mlp[layer], target)[:, 0]
        shaped = x.unflatten(1, (runner.batch.n_rows, -1)).flatten(0, 1).to(self.anatomy.dtype)
        out = working(run_mlp(block, shaped)).flatten(0, 1).unflatten(0, (self.n_circuits, -1))
        self._add((out - working(runner.corrupted.mlps[layer]))[:, None])

    def logits(self) -> Float[Tensor, "circuit batch d_vocab"]:
        """Unembed what the logits read at the last positions."""
        runner = self.runner
        x = runner.at_logits.expand(self.n_circuits, -1, -1)
        if self.known:
            last, spans = runner.rows.at(runner.last)
            differences = self.differences.unflatten(2, (-1, self.anatomy.d_model))[:, :, last]
            weights = self.weights[:, :, -1].to(x.dtype)
            if spans is None:
                x = x + torch.einsum("cu,cubd->cbd", weights[:, 0], differences)
            else:
                beyond = torch.zeros_like(weights[:, :1])  # of rows in no span
                x = x + torch.einsum("cbu,cubd->cbd", torch.cat((weights, beyond), 1)[:, spans], differences)
        return unembed(self.anatomy, x.to(self.anatomy.dtype))

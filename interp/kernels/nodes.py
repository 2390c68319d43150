"""Running circuits of heads, MLPs, neurons or experts: every node outside gives its counterfactual, all edges are in.

    what a layer adds to the residual stream  =  what it computes here  +  sum over nodes of (1 - w) (other - own) W_out

`own` is what a node computes in this very run, `other` what it gives under the ablation (`interp.kernels.stacked`),
both in units of the residual stream behind a norm that follows attention or MLP (`interp.kernels.neurons`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.kernels.batching import Batch, bytes_per_position
from interp.kernels.forward import Recorder, Residual, run_blocks
from interp.kernels.frame import PerHead
from interp.kernels.neurons import (
    Means,
    activation_totals,
    hear_neurons,
    in_stream,
    mean_activations,
    widths,
    written_by,
)
from interp.kernels.stacked import NodeGrain, StackedRunner, Weights
from interp.kernels.unit_constants import UnitConstants, beside_each_other, by_position
from interp.mlps import Hidden
from interp.node_mask import OF_NEURONS, all_nodes, by_layer
from interp.parts import working


@dataclass(frozen=True, eq=False, kw_only=True)
class Nodes(NodeGrain):
    """Masks over heads (`head`), heads and MLPs (`node`), neurons (`neuron`) or experts (`expert`)."""

    @functools.cached_property
    def full(self) -> Tensor:
        return all_nodes(self.anatomy, self.level, self.spans)

    @functools.cached_property
    def means(self) -> Means | None:
        """What neurons give, by position, for ablations that give the same for every prompt; None for others."""
        kind = self.ablator.ablation
        if self.level not in OF_NEURONS:
            return None
        if self.fitted is not None:
            units, length = self.fitted().on(self.anatomy, widths(self.anatomy)).units, self.prompts.clean.shape[1]
            return [by_position(units[:, layer, :n], length) for layer, n in enumerate(widths(self.anatomy))]
        if not kind.startswith("mean"):
            return None
        positional = kind == "mean-positional"
        return mean_activations(self.anatomy, self.prompts, positional, self.batch_size, self.memory)

    def totals(self, of: Callable[[Tensor], Tensor]) -> Means:
        return activation_totals(self.anatomy, self.prompts, self.batch_size, self.memory, of)

    def constants(self, parts: Sequence[Tensor], losses: Tensor) -> UnitConstants:
        told = losses, self.anatomy.name, tuple(self.anatomy.weights_digest())
        return UnitConstants(beside_each_other(parts), None, *told)

    def runner(self, batch: Batch) -> NodeRunner:
        return NodeRunner(self, batch)

    def row_bytes(self, size: int | None = None) -> int:
        anatomy = self.anatomy
        floats = sum(widths(anatomy)) if self.level in OF_NEURONS else 0
        return floats * anatomy.parameter().element_size() + bytes_per_position(anatomy, gradient=False)


class NodeRunner(StackedRunner):
    """Runs circuits of heads, MLPs, neurons or experts over one batch of prompts."""

    @torch.no_grad()
    def __init__(self, grain: Nodes, batch: Batch) -> None:
        super().__init__(grain, batch)
        self.grain = grain
        self.heads: list[Tensor] = []  # by layer [batch, pos, head, d_head]
        self.mlps: list[Tensor] = []  # by layer [batch, pos, d_model], or neurons [batch, pos, d_mlp]
        if grain.level in OF_NEURONS and (means := grain.means) is not None:
            self.give(means)
        elif grain.level in OF_NEURONS:
            self.mlps = self._other_neurons()
        else:
            rows = torch.arange(self.embedded.shape[:2].numel(), device=self.embedded.device)
            sources = grain.ablator.sources(batch, self.frame, rows)
            self.heads = [z.unflatten(0, (batch.n_rows, -1)) for z in sources.heads]
            self.mlps = [m.unflatten(0, (batch.n_rows, -1)) for m in sources.mlps]

    def _other_neurons(self) -> list[Tensor]:
        """What neurons give under the ablation, in units of the stream; `[1, 1, 1]` of nothing."""
        anatomy, frame = self.anatomy, self.frame
        if self.grain.ablator.ablation.startswith("zero"):
            return [working(self.embedded[:1, :1, :1]) * 0] * anatomy.n_layers
        found: list[Tensor] = []

        def hear(layer: int, hidden: Hidden, written: Residual) -> None:
            found.append(in_stream(anatomy.blocks[layer], hidden, written))

        hear_neurons(frame, self.corrupted(), self.batch, hear)
        return found

    def give(self, parts: Sequence[Tensor]) -> None:
        like = working(self.embedded)
        self.mlps = [part[self.frame.positions][None].to(like) for part in parts]

    def run(self, x: Residual, weights: Weights, checkpointed: bool) -> Residual:
        return run_blocks(self.frame, x, _Ablated(self, weights), checkpointed=checkpointed)

    def held(self) -> list[Tensor]:
        return [*self.heads, *self.mlps]


class _Ablated(Recorder):
    """A run of stacked circuits in which the nodes outside of each give what they give under the ablation."""

    def __init__(self, runner: NodeRunner, weights: Weights) -> None:
        self.runner, self.weights = runner, weights
        self.hears_neurons = runner.grain.level in OF_NEURONS
        self.change: Tensor | None = None  # of what comes next, in the residual stream

    def _missing(self, layer: int, of_heads: bool) -> Tensor | None:
        """1 - w of a layer's nodes; None where all of them are in."""
        runner = self.runner
        parts = by_layer(self.weights, runner.grain.level, layer, runner.anatomy.n_heads)
        return runner.missing(parts[0 if of_heads else 1])

    def heads(self, layer: int, z: PerHead) -> None:
        if (missing := self._missing(layer, of_heads=True)) is None:
            return
        change = self.runner.change(missing[..., None], self.runner.heads[layer], z)
        self.change = torch.einsum("bphk,hkd->bpd", change, self.runner.anatomy.head_weights(layer))

    def attention_output(self, layer: int, added: Residual) -> Residual:
        return self._changed(added)

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        if (missing := self._missing(layer, of_heads=False)) is None:
            return
        block = self.runner.anatomy.blocks[layer]
        own = in_stream(block, hidden, written)
        if self.runner.grain.level == "expert":  # its neurons are in or out together
            n_experts = block.mlp.n_experts
            missing = missing[..., :n_experts].repeat_interleave(own.shape[-1] // n_experts, -1)
        change = self.runner.change(missing[..., : own.shape[-1]], self.runner.mlps[layer], own)
        self.change = written_by(block, change.to(hidden.dtype))

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        if self.runner.grain.level == "node" and (missing := self._missing(layer, of_heads=False)) is not None:
            self.change = self.runner.change(missing, self.runner.mlps[layer], m)
        return self._changed(m)

    def _changed(self, x: Residual) -> Residual:
        change, self.change = self.change, None
        if change is not None:
            x = x + change.to(x.dtype)
        return x

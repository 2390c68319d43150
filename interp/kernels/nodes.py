"""Running circuits of nodes: every node outside gives its counterfactual, and all edges between the others are in.

    what a layer adds to the residual stream  =  what it computes here  +  sum over nodes of (1 - w) (other - own) W_out

`own` is what a node computes in this very run, downstream of all ablations before it, `other` what it gives under the
ablation: both in units of the residual stream behind a norm that follows attention or MLP (`interp.kernels.neurons`).
One plain forward pass for each circuit; circuits over the same prompts share the prefix and the counterfactual run, and
are stacked along the batch. Weights w may be real numbers: gradients pass through them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.kernels.ablation import Ablator
from interp.kernels.batching import Batch, bytes_per_position
from interp.kernels.forward import Recorder, Residual, last_rows, run_blocks, unembed
from interp.kernels.frame import PerHead
from interp.kernels.grain import BatchRunner, Grain
from interp.kernels.neurons import Means, hear_neurons, in_stream, mean_activations, widths, written_by
from interp.mlps import Hidden
from interp.node_mask import Spans, all_nodes, by_layer, with_input
from interp.parts import working
from interp.tasks.prompts import Prompts

Weights = Float[Tensor, "circuit ... unit"]


@dataclass(frozen=True, eq=False)
class Nodes(Grain):
    """Masks over the nodes of a level (`interp.node_mask`); means are taken over `prompts`.

    Raises `InputError` for positions beyond the prompts, and where prompts of unequal lengths have no positions in
    common.
    """

    anatomy: Anatomy
    ablator: Ablator
    prompts: Prompts
    level: str
    spans: Spans = None
    batch_size: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.spans is None:
            return
        length = self.prompts.clean.shape[1]
        if bool((self.prompts.lengths != length).any()):
            raise InputError(
                "spans names absolute positions, and the prompts are of unequal lengths: a position is another word in "
                "each; use nodes at all positions (spans=None)"
            )
        if max(self.spans) >= length:
            raise InputError(f"spans names position {max(self.spans)}; the prompts have {length} tokens")

    def empty(self) -> Tensor:
        return with_input(torch.zeros_like(self.full), self.level)

    @functools.cached_property
    def full(self) -> Tensor:
        """The mask that holds every node."""
        return all_nodes(self.anatomy, self.level, self.spans)

    @functools.cached_property
    def means(self) -> Means | None:
        """Mean activations of neurons, for ablations that want them."""
        kind = self.ablator.ablation
        if self.level != "neuron" or not kind.startswith("mean"):
            return None
        positional = kind == "mean-positional"
        return mean_activations(self.anatomy, self.prompts, positional, self.batch_size, self.memory)

    def runner(self, batch: Batch) -> NodeRunner:
        return NodeRunner(self, batch)

    def sizes(self, masks: Tensor) -> Sequence[int]:
        return [1] * len(masks)

    def row_bytes(self, size: int | None = None) -> int:
        anatomy = self.anatomy
        floats = sum(widths(anatomy)) if self.level == "neuron" else 0
        return floats * anatomy.parameter().element_size() + bytes_per_position(anatomy, gradient=False)


class NodeRunner(BatchRunner):
    """Runs circuits of nodes over one batch of prompts."""

    @torch.no_grad()
    def __init__(self, grain: Nodes, batch: Batch) -> None:
        self.grain, self.batch, self.anatomy = grain, batch, grain.anatomy
        self.frame = batch.frame(grain.anatomy)
        self.embedded = grain.anatomy.embed(batch.prompts.clean[:, batch.start :], self.frame.positions)
        self.heads: list[Tensor] = []  # by layer [batch, pos, head, d_head]
        self.mlps: list[Tensor] = []  # by layer [batch, pos, d_model], or neurons [batch, pos, d_mlp]
        if grain.level == "neuron":
            self.mlps = self._other_neurons()
        else:
            rows = torch.arange(self.embedded.shape[:2].numel(), device=self.embedded.device)
            sources = grain.ablator.sources(batch, self.frame, rows)
            self.heads = [z.unflatten(0, (len(batch), -1)) for z in sources.heads]
            self.mlps = [m.unflatten(0, (len(batch), -1)) for m in sources.mlps]
        self.places = self._places()

    def _other_neurons(self) -> list[Tensor]:
        """What neurons give under the ablation, in units of the stream; `[1, 1, 1]` of nothing."""
        anatomy, batch, frame = self.anatomy, self.batch, self.frame
        if self.grain.ablator.ablation.startswith("zero"):
            return [working(self.embedded[:1, :1, :1]) * 0] * anatomy.n_layers
        if (means := self.grain.means) is not None:
            return [mean[frame.positions][None].to(working(self.embedded).dtype) for mean in means]
        found: list[Tensor] = []

        def hear(layer: int, hidden: Hidden, written: Residual) -> None:
            found.append(in_stream(anatomy.blocks[layer], hidden, written))

        hear_neurons(frame, anatomy.embed(batch.prompts.corrupted[:, batch.start :], frame.positions), batch, hear)
        return found

    def _places(self) -> Tensor | None:
        """For each position that is run its span, or the number of spans where it has none."""
        spans = self.grain.spans
        if spans is None:
            return None
        places = torch.full((self.frame.n_positions,), len(spans), dtype=torch.long, device=self.embedded.device)
        for i, position in enumerate(spans):
            if position >= self.batch.start:
                places[position - self.batch.start] = i
        return places

    @functools.cached_property
    def clean_logits(self) -> Float[Tensor, "batch d_vocab"]:
        with torch.no_grad():
            clean = run_blocks(self.frame, self.embedded)
            logits: Tensor = unembed(self.anatomy, last_rows(clean, self.frame, self.batch.prompts.lengths))
        return logits

    def logits(self, masks: Weights, checkpointed: bool = False) -> Float[Tensor, "circuit batch d_vocab"]:
        """Logits at the last real positions under each mask (bool), or under real weights, which take gradients."""
        recorder = _Ablated(self, masks.to(self.embedded.device))
        x = self.embedded.repeat(len(masks), 1, 1)
        x = run_blocks(self.frame, x, recorder, checkpointed=checkpointed)
        logits: Tensor = unembed(self.anatomy, last_rows(x, self.frame, self.batch.prompts.lengths))
        by_circuit: Tensor = logits.unflatten(0, (len(masks), -1))
        return by_circuit

    def n_bytes(self) -> int:
        held = [self.embedded, *self.heads, *self.mlps, *(part for pair in self.frame.prefix or () for part in pair)]
        return sum(tensor.element_size() * tensor.nelement() for tensor in held)


class _Ablated(Recorder):
    """A run of stacked circuits in which the nodes outside of each give what they give under the ablation."""

    def __init__(self, runner: NodeRunner, weights: Weights) -> None:
        self.runner, self.weights = runner, weights
        self.hears_neurons = runner.grain.level == "neuron"
        self.change: Tensor | None = None  # of what comes next, in the residual stream

    def _missing(self, layer: int, of_heads: bool) -> Tensor | None:
        """1 - w of a layer's nodes, [circuit, 1, pos or 1, unit]; None where all of them are in."""
        runner = self.runner
        part = by_layer(self.weights, runner.grain.level, layer, runner.anatomy.n_heads)[0 if of_heads else 1]
        if part is None:
            return None
        if part.dtype == torch.bool:
            if runner.places is None and bool(part.all()):
                return None
            part = part.to(working(runner.embedded).dtype)
        if runner.places is None:
            return 1 - part[:, None, None]
        beyond = part.new_zeros(len(part), 1, part.shape[-1])
        return 1 - torch.cat((part, beyond), 1)[:, None, runner.places]

    def _by_circuit(self, x: Tensor) -> Tensor:
        stacked: Tensor = working(x).unflatten(0, (len(self.weights), -1))
        return stacked

    def heads(self, layer: int, z: PerHead) -> None:
        if (missing := self._missing(layer, of_heads=True)) is None:
            return
        change = missing[..., None] * (working(self.runner.heads[layer]) - self._by_circuit(z))
        self.change = torch.einsum("cbphk,hkd->cbpd", change, self.runner.anatomy.head_weights(layer)).flatten(0, 1)

    def attention_output(self, layer: int, added: Residual) -> Residual:
        return self._changed(added)

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        if (missing := self._missing(layer, of_heads=False)) is None:
            return
        block = self.runner.anatomy.blocks[layer]
        own = self._by_circuit(in_stream(block, hidden, written))
        width = own.shape[-1]
        change = missing[..., :width] * (self.runner.mlps[layer] - own)
        self.change = written_by(block, change.flatten(0, 1).to(hidden.dtype))

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        if self.runner.grain.level == "node" and (missing := self._missing(layer, of_heads=False)) is not None:
            self.change = (missing * (working(self.runner.mlps[layer]) - self._by_circuit(m))).flatten(0, 1)
        return self._changed(m)

    def _changed(self, x: Residual) -> Residual:
        change, self.change = self.change, None
        if change is not None:
            x = x + change.to(x.dtype)
        return x

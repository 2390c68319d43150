"""Information flow routes: what each target's input is made of, walked back from the logits in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.method import Method, Passes
from attribution.over_prompts import mean_over_prompts
from interp.graph import ComputationalGraph
from interp.kernels.batching import Batch, budget_of, bytes_per_position
from interp.kernels.capture import SourceRecorder
from interp.kernels.contract import expand_sources
from interp.kernels.forward import Residual, attention_parts, run_blocks
from interp.kernels.frame import PerHead, PerPort
from interp.kernels.source_means import zero_sources
from interp.parts import working
from interp.setting import Setting

FLOOR = 1e-5  # the least that a part contributes, before normalisation


@dataclass(frozen=True)
class InformationFlow(Method):
    """How much of the logits' input flows through each edge (after Ferrando and Voita 2024).

    A part z of a vector y contributes max(|y|_1 - |y - z|_1, 1e-5), as a share of all parts of y. Parts of what a
    target reads at a position are the outputs of the sources there and the biases of attention; parts of a head's
    output are its values at the positions that it attends to, each times its weight.

    The logits read the last position, with importance 1. The score of an edge is the sum over positions of its share
    times the target's importance; a node's importance at a position is the sum over the edges out of it. An MLP hands
    its importance on at its position, a head a third each to its query there, and to its keys and its values at the
    positions attended to, by their shares. Scores are means over prompts, positive, and without a sign: an edge that
    speaks against the answer has one as well.

    Neither the corrupted prompts nor the ablation nor the objective play a part.
    """

    name = "information-flow"
    paper: ClassVar[str] = "Ferrando and Voita 2024, arXiv:2403.00824"
    formula: ClassVar[tuple[str, str]] = ("1", "0")

    def passes(self, graph: ComputationalGraph) -> Passes:
        return Passes(1, 0)

    @torch.no_grad()
    def values(self, setting: Setting) -> Tensor:
        anatomy, run = setting.anatomy, setting.run
        size = run.batch_size or max(1, budget_of(anatomy.device, run.memory) // _prompt_bytes(setting))
        with run.progress(f"scoring edges ({self.name})", len(setting)) as bar:
            return mean_over_prompts(
                setting, size, lambda batch: _Walk(setting, batch).scores(), bar.advance, skip_prefix=False
            )


def _prompt_bytes(setting: Setting) -> int:
    """What one prompt takes: the outputs of all sources, those of a layer's heads thrice, and the run itself."""
    anatomy = setting.anatomy
    floats = (len(setting.graph.sources) + 3 * anatomy.n_heads) * anatomy.d_model
    each = floats * working(anatomy.parameter()[:0]).element_size() + bytes_per_position(anatomy, gradient=False)
    return setting.prompts.longest * each


class _Clean(SourceRecorder):
    """The sources of the clean run, and what attention is made of."""

    def __init__(self, embedding: Residual, rows: Tensor) -> None:
        super().__init__(embedding, rows)
        self.qkv: list[tuple[PerHead, PerPort, PerPort]] = []

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        self.qkv.append((q, k, v))
        return q, k, v


class _Walk:
    """The walk from the logits to the input, for one batch; scores are summed over its prompts."""

    def __init__(self, setting: Setting, batch: Batch) -> None:
        self.anatomy, self.graph = setting.anatomy, setting.graph
        self.frame, self.batch = batch.frame(self.anatomy), batch
        embedding = self.anatomy.embed(batch.prompts.clean, self.frame.positions)
        count = embedding.shape[:2].numel()
        self.rows = torch.arange(count, device=embedding.device)
        self.clean = _Clean(embedding, self.rows)
        run_blocks(self.frame, embedding, self.clean)
        outputs = self.clean.sources.minus(zero_sources(self.anatomy, count, self.anatomy.dtype))
        sources = slice(0, len(self.graph.sources))
        self.outputs = outputs.embedding.new_empty(sources.stop, count, self.anatomy.d_model)
        expand_sources(self.anatomy, self.graph, outputs, slice(0, count), sources, self.outputs)
        self.importance = self.outputs.new_zeros(sources.stop, count)

    def scores(self) -> Float[Tensor, "source target"]:
        """Of all edges."""
        graph, reads = self.graph, self.batch.prompts.reads
        self.values = self.outputs.new_zeros(graph.shape)
        asked = self.outputs.new_zeros(self.batch.n_rows, self.frame.n_positions)
        answers = self.batch.prompts.answers
        prompt = reads.row if answers is None else answers.prompt[reads.row]
        asked[reads.row, reads.position] = 1 / prompt.bincount()[prompt].to(asked)  # the mean over what is read
        self._flow(len(graph.sources), graph.n_layers, [graph.shape[1] - 1], asked.flatten()[None])
        for layer in reversed(range(graph.n_layers)):
            mlp, heads = graph.mlp_source(layer), graph.head_sources(layer)
            above = layer if graph.parallel else layer + 1
            self._flow(graph.sources_before_mlp(layer), above, [graph.mlp_target(layer)], self.importance[[mlp]])
            targets = graph.attention_targets(layer)
            ports = self._through_heads(layer, self.importance[heads])
            self._flow(graph.sources_before_attention(layer), layer, list(range(targets.start, targets.stop)), ports)
        return self.values

    def _flow(self, seen: int, above: int, targets: list[int], importance: Float[Tensor, "target row"]) -> None:
        """Share the importance of some targets out over the `seen` sources that they all read.

        `above` is the number of layers whose attention has written.
        """
        parts = self.outputs[:seen]
        biases = [working(b.o.bias) for b in self.anatomy.blocks[:above] if b.o.bias is not None]
        rest = sum(biases, start=parts.new_zeros(self.anatomy.d_model))
        read = parts.sum(0) + rest
        near = torch.stack([_contribution(read, part) for part in parts])
        whole = near.sum(0) + (_contribution(read, rest) if biases else 0)
        share = near / whole
        self.values[:seen, targets] = share @ importance.T
        self.importance[:seen] += share * importance.sum(0)

    def _through_heads(self, layer: int, importance: Float[Tensor, "head row"]) -> Float[Tensor, "port row"]:
        """From heads to what their queries, keys and values read: a third each."""
        share = self._attended(layer)
        by_prompt = importance.unflatten(1, (self.batch.n_rows, -1)).transpose(0, 1)
        keys = torch.einsum("bhqk,bhq->hbk", share, by_prompt).flatten(1)
        if self.graph.n_ports != len(keys):
            keys = keys.unflatten(0, (self.graph.n_ports, -1)).sum(1)
        return torch.cat((importance, keys, keys)) / 3

    def _attended(self, layer: int) -> Float[Tensor, "batch head query key"]:
        """The share of each position attended to in what each head writes."""
        anatomy, block = self.anatomy, self.anatomy.blocks[layer]
        pattern, v = map(working, attention_parts(self.frame, layer, *self.clean.qkv[layer]))
        written = self.outputs[self.graph.head_sources(layer)].unflatten(1, (self.batch.n_rows, -1)).transpose(0, 1)
        weights = pattern
        if block.attention_post_norm is not None:  # its divisor belongs to the heads
            summed = block.o((pattern @ v).transpose(1, 2).flatten(2).to(anatomy.dtype))
            weights = pattern / block.attention_post_norm.divisor(summed)[:, None]
        moved = v @ anatomy.head_weights(layer)  # [batch head key d_model]
        near = torch.stack(
            [_contribution(written, weights[..., [key]] * moved[:, :, [key]]) for key in range(moved.shape[2])], -1
        )
        near = torch.where(pattern > 0, near, 0.0)  # what is masked is no part
        return near / near.sum(-1, keepdim=True)


def _contribution(whole: Float[Tensor, "*row d_model"], part: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row"]:
    """How near a part is to the whole."""
    return (whole.abs().sum(-1) - (whole - part).abs().sum(-1)).clamp(min=FLOOR)

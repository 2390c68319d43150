"""CD-T: contextual decomposition of every activation into what comes from one source and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.contextual import (
    Part,
    through_activation,
    through_affine,
    through_attention,
    through_mlp,
    through_norm,
    through_projections,
)
from attribution.edges.method import Method, Passes
from attribution.over_prompts import mean_over_prompts
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.ablation import record_sources
from interp.kernels.batching import Batch, budget_of, bytes_per_position, refuse_nan
from interp.kernels.contract import expand_sources
from interp.kernels.forward import Recorder, Residual, attend, last_rows, run_block, unembed
from interp.kernels.frame import Frame, PerHead, PerPort
from interp.mlps import Mixture
from interp.setting import Setting
from interp.tasks.refusals import refuse_answers


@dataclass(frozen=True)
class CDT(Method):
    """Contextual decomposition for transformers (Hsu et al. 2024, arXiv:2407.00886).

    x = beta + gamma, where beta starts as what a source gives beyond its ablated value, and gamma is the rest. With
    opposite signs settled after each step (the larger in size takes the sum), beta passes

    - linear layers and norms, by the whole's divisor; their biases are split by |beta| : |gamma|;
    - an activation f as f(beta + gamma) - f(gamma);
    - attention as the pattern of beta's own scores times its own values;
    - a gated MLP as the product of both parts of beta.

    A node matters as much as the objective falls without its beta, carried through all layers behind it to the logits.
    The score of an edge is that of its target's node times the source's share in what the target makes of its input:
    |beta| there, as the target reads the source itself, over the sum of that of all sources. An edge into the logits
    scores what the objective loses without the beta that they read directly.

    Differences from the paper: scores are of all edges at once, where the paper's are of nodes, target by target, and
    beta at a target has come by all ways; the rule for gated MLPs is ours.
    """

    name = "cd-t"
    paper: ClassVar[str] = "Hsu et al. 2024, arXiv:2407.00886"
    formula: ClassVar[tuple[str, str]] = ("N/2", "0")

    def passes(self, graph: ComputationalGraph) -> Passes:
        return Passes(2 + len(graph.sources) / 2, 0)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if any(isinstance(block.mlp, Mixture) for block in setting.anatomy.blocks):
            raise InputError("method='cd-t' has no rule for a mixture of experts; use method='eap-ig'")
        refuse_answers(setting.prompts, "method='cd-t'")

    @torch.no_grad()
    def values(self, setting: Setting) -> Tensor:
        anatomy, run = setting.anatomy, setting.run
        at_once = setting.graph.n_heads + 1
        each = 2 * at_once * setting.prompts.clean.shape[1] * bytes_per_position(anatomy, gradient=False)
        size = run.batch_size or max(1, budget_of(anatomy.device, run.memory) // each)
        with run.progress(f"scoring edges ({self.name})", len(setting)) as bar:
            return mean_over_prompts(
                setting, size, lambda batch: _Decomposition(setting, batch).scores(), bar.advance, skip_prefix=False
            )


class _Clean(Recorder):
    """What the heads of each layer give in the clean run, and what its MLP reads."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.heads_out: list[PerHead] = []
        self.middle: list[Residual] = []

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        self.heads_out.append(attend(self.frame, layer, q, k, v))
        return q, k, v

    def mlp_input(self, layer: int, x: Residual) -> Residual:
        self.middle.append(x)
        return x


class _Decomposition:
    """The walk of every source's part through the layers behind it, for one batch.

    It starts at the first position at which a source may differ from its ablated value: in front all parts are 0.
    """

    def __init__(self, setting: Setting, batch: Batch) -> None:
        self.setting, self.batch, self.anatomy, self.graph = setting, batch, setting.anatomy, setting.graph
        self.frame = batch.frame(self.anatomy)
        embedding = self.anatomy.embed(batch.prompts.clean, self.frame.positions)
        rows = torch.arange(embedding.shape[:2].numel(), device=embedding.device)
        self.delta = record_sources(self.frame, embedding, rows).minus(setting.ablator.sources(batch, self.frame, rows))
        differ = int(batch.prompts.first_difference.min()) if setting.skip_prefix else 0
        self.first = min(differ, embedding.shape[1] - 1)
        self.real = batch.prompts.mask.to(embedding.device)[:, self.first :]
        clean, x = _Clean(self.frame), embedding
        self.entering: list[Residual] = []
        for layer in range(self.anatomy.n_layers):
            self.entering.append(x[:, self.first :])
            x = run_block(self.frame, layer, x, clean)
        self.middle, self.z = ([one[:, self.first :] for one in kept] for kept in (clean.middle, clean.heads_out))
        self.final = x
        self.logits = unembed(self.anatomy, last_rows(x, self.frame, batch.prompts.lengths))
        self.whole = self._values(self.logits[None])
        # |beta| at every target but the logits, where it is what the objective loses; and that of whole nodes
        self.sizes = self.final.new_zeros(len(batch), *self.graph.shape)
        self.nodes = self.final.new_zeros(len(batch), self.graph.shape[0])

    def scores(self) -> Float[Tensor, "source target"]:
        """Of all edges, summed over prompts."""
        graph = self.graph
        self._walk(-1, slice(0, 1))
        for layer in range(graph.n_layers):
            self._walk(layer, slice(graph.head_sources(layer).start, graph.mlp_source(layer) + 1))
        scores = self.sizes / self.sizes.sum(1, keepdim=True).clamp(min=torch.finfo(self.sizes.dtype).tiny)
        for target, nodes in enumerate(graph.target_sources[:-1]):
            scores[:, :, target] *= self.nodes[:, list(nodes)].sum(1, keepdim=True)
        scores[:, :, -1] = self.sizes[:, :, -1]
        return scores.sum(0)

    def _walk(self, layer: int, group: slice) -> None:
        """Carry the heads and the MLP of a layer (-1: the input) to the logits, and see what each target reads."""
        graph = self.graph
        flat = self.delta.embedding.new_empty(group.stop - group.start, *self.delta.embedding.shape)
        expand_sources(self.anatomy, graph, self.delta, slice(0, flat.shape[1]), group, flat)
        own: Part = flat.unflatten(1, self.final.shape[:2])[:, :, self.first :]
        beta = own
        if layer >= 0 and not graph.parallel:  # the layer's MLP reads its heads
            heads = own.clone()
            heads[-1] = 0
            added = self._mlp(layer, heads)
            self._see(graph.mlp_target(layer), added[..., None, :], group)
            beta = own + added
        for later in range(layer + 1, graph.n_layers):
            ports = through_projections(self.frame, later, own, self.entering[later])
            first = graph.attention_targets(later).start
            for (part, _), count in zip(ports, (graph.n_heads, graph.n_ports, graph.n_ports), strict=True):
                self._see(first, part.repeat_interleave(count // part.shape[-2], -2), group)
                first += count
            self._see(graph.mlp_target(later), self._mlp(later, own)[..., None, :], group)
            middle = beta + through_attention(self.frame, later, beta, self.entering[later], self.z[later])
            beta = middle + self._mlp(later, beta if graph.parallel else middle)
        self.sizes[:, group, -1] = self._lost(own)
        self.nodes[:, group] = self._lost(beta)

    def _mlp(self, layer: int, beta: Part) -> Part:
        return through_mlp(self.anatomy.blocks[layer], beta, self.middle[layer])

    def _see(self, first: int, part: Float[Tensor, "source batch pos target width"], group: slice) -> None:
        """Note |beta| at targets from number `first` on."""
        sizes = (part.abs().sum(-1) * self.real[..., None]).sum(2)
        self.sizes[:, group, first : first + sizes.shape[-1]] = sizes.transpose(0, 1).to(self.sizes.dtype)

    def _lost(self, beta: Part) -> Float[Tensor, "batch source"]:
        """What the objective of each prompt loses without beta in the last residual stream."""
        lengths, anatomy = self.batch.prompts.lengths, self.anatomy
        last = beta[:, torch.arange(len(lengths), device=beta.device), lengths - 1 - self.first]
        part, x = through_norm(anatomy.final_norm, last, last_rows(self.final, self.frame, lengths))
        part, x = through_affine(anatomy.unembed, part, x)
        if anatomy.cap is not None:
            part, x = through_activation(anatomy.cap, part, x)
        return (self.whole - self._values(self.logits - part)).T

    def _values(self, logits: Float[Tensor, "source batch d_vocab"]) -> Float[Tensor, "source batch"]:
        goal = self.setting.goal
        values = torch.stack([goal(one, self.batch.prompts, self.logits) for one in logits])
        refuse_nan(values, goal.name, self.batch)
        return values

"""Circuits with real-valued edge weights, and the gradient of the objective at every weight.

    input_t = sum over sources of corrupted_u  +  sum over sources of w[u, t] (current_u - corrupted_u)

    dM/dw[u, t] = sum over rows of (current_u - corrupted_u) . dM/d input_t

Where spans are told apart each has weights of its own, or all the same. At w = 1 everywhere this is the score of edge
attribution patching, at a boolean w a circuit. The forward pass keeps
the sources' differences and nothing else. The backward pass goes through the sub-layers from the last to the first:
each is run again from the mixture that it read, and gives the gradients at its inputs. One matrix product with the
differences makes them the gradients at the weights of its edges, one with the weights hands them on to the sources.
Memory is two numbers for each source, row and dimension, whatever the number of edges. Circuits are stacked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import ranks
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator
from interp.kernels.batching import (
    Batch,
    budget_of,
    bytes_per_position,
    check_batch_size,
    own_batches,
    refuse_nan,
    run_shared,
)
from interp.kernels.contract import expand_heads
from interp.kernels.forward import run_mlp, unembed
from interp.kernels.mixture import MixtureRunner
from interp.kernels.span_rows import SpanRows
from interp.objectives import Objective
from interp.parts import working
from interp.spans import Placed, RowSpans
from interp.tasks.prompts import Prompts


@dataclass(frozen=True)
class SoftValues:
    """Objectives per prompt and gradients of their mean; float32 (float64 for a float64 model), on the CPU.

    Where spans are told apart, gradients are at an edge's weight at each of them, `[circuit, span, source, target]`.
    """

    values: Float[Tensor, "circuit n"]
    gradients: Float[Tensor, "circuit *span source target"]


def soft_values(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    prompts: Prompts,
    weights: Float[Tensor, "circuit *each source target"],
    ablator: Ablator,
    objective: Objective,
    *,
    batch_size: int | None = None,
    memory: int | None = None,
    placed: Placed | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> SoftValues:
    """The objective under each set of edge weights, prompt by prompt, and dM/dw[u, t] of its mean for every edge.

    Edges of weight 0 have a gradient too: what a little of them would bring. Where no edge exists it is 0.

    Cost per batch: a corrupted forward pass, and for each set of weights two forward passes and one backward pass
    of separate inputs, with three products of [source, target] matrices with the sources' differences. `advance` is
    called with prompts x circuits done. Raises `InputError` where the objective is NaN or has no gradient.
    """
    check_batch_size(batch_size)
    dtype = torch.float64 if anatomy.dtype == torch.float64 else torch.float32
    values = torch.zeros(len(weights), len(prompts), dtype=dtype, device="cpu")
    spans = () if placed is None else (len(placed.spans),)
    gradients = torch.zeros(len(weights), *spans, *graph.shape, dtype=torch.float64, device="cpu")

    told = ranks.for_all(advance)

    def work(batch: Batch) -> None:
        runner = SoftRunner(anatomy, graph, ablator, batch)
        if placed is not None:
            runner.row_spans = placed.rows(batch.indices, batch.start, batch.prompts.clean.shape[1])
        found = [runner.differentiate(each[None], objective) for each in weights]
        for i, (value, gradient) in enumerate(found):
            values[i, list(batch.indices)] = value[0].to(dtype).cpu()
            gradients[i] += gradient[0].double().cpu()
        told(len(batch) * len(weights))

    size = batch_size or prompts_that_fit(anatomy, graph, prompts, memory)
    with torch.inference_mode(False):
        run_shared(own_batches(prompts, size, anatomy.device, skip_prefix=ablator.skip_prefix), work)
    ranks.add(values, gradients)
    return SoftValues(values, (gradients / len(prompts)).to(dtype))


def prompts_that_fit(
    anatomy: Anatomy, graph: ComputationalGraph, prompts: Prompts, memory: int | None, circuits: int = 1
) -> int:
    """How many prompts a budget of `memory` bytes takes at once, each under so many stacked circuits."""
    floats = (2 * len(graph.sources) + 12 * graph.targets_per_layer) * anatomy.d_model
    row = circuits * (4 * floats + bytes_per_position(anatomy, gradient=True, checkpointed=True))
    return max(1, min(len(prompts), budget_of(anatomy.device, memory) // (prompts.longest * row)))


class SoftRunner(MixtureRunner):
    """Differentiates weighted circuits over one batch of prompts; built once per batch, for any number of weights.

    `row_spans`: the spans at which an edge's weight is differentiated, and may differ; None: all rows together.
    """

    row_spans: RowSpans | None = None

    @torch.no_grad()
    def differentiate(
        self, weights: Float[Tensor, "circuit *each source target"], objective: Objective
    ) -> tuple[Float[Tensor, "circuit batch"], Float[Tensor, "circuit *span source target"]]:
        """The objective of each prompt, and the gradient of their sum at every edge's weight (at each span).

        Circuits are stacked.
        """
        mask = self.graph.edge_mask.to(self.embedding.device)
        run = _Run(self, (weights if weights.ndim == 4 else weights[:, None]).to(self.embedding) * mask)
        run.forward()
        values, gradient = self._at_logits(run.logits_input(), objective)
        run.backward(gradient)
        slopes = run.slopes * mask
        return values, slopes[:, 0] if self.row_spans is None else slopes

    def _at_logits(self, x: Float[Tensor, "circuit batch d_model"], objective: Objective) -> tuple[Tensor, Tensor]:
        """The objective, and the gradient of its sum at what the logits read."""
        clean = self.clean_logits if objective.needs_clean else None
        with torch.enable_grad():
            x = x.requires_grad_()
            logits = unembed(self.anatomy, x.to(self.anatomy.dtype))
            values = torch.stack([objective(one, self.batch.prompts, clean) for one in logits])
            refuse_nan(values, objective.name, self.batch)
            if not values.requires_grad:
                raise InputError(
                    f"objective={objective.name!r} has no gradient in the logits; is something detached in it?"
                )
            (gradient,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), gradient


@dataclass(frozen=True)
class _SubLayer:
    """A layer's attention or its MLP: from what its targets read to how its sources differ from corrupted ones."""

    targets: slice
    sources: slice
    seen: int  # so many sources, the first ones, can be read
    base: Float[Tensor, "row d_model"]
    run: Callable[[Float[Tensor, "circuit target row d_model"]], Float[Tensor, "circuit source row d_model"]]


class _Run:
    """One pass forward and backward under some weights, circuits stacked."""

    def __init__(self, runner: SoftRunner, weights: Float[Tensor, "circuit each source target"]) -> None:
        self.runner, self.graph, self.anatomy = runner, runner.graph, runner.anatomy
        self.weights = weights
        rows, d_model = runner.embedding.shape
        self.differences = runner.embedding.new_empty(len(weights), weights.shape[2], rows * d_model)
        self.spans = SpanRows.of(runner.row_spans, runner.embedding)
        count = 1 if runner.row_spans is None else runner.row_spans.count
        self.slopes = weights.new_zeros(len(weights), count, *weights.shape[2:])

    def _weighed(self, among: Int[Tensor, " some"] | None = None) -> Iterator[tuple[int, slice | Int[Tensor, " row"]]]:
        """Each set of weights with the rows (of `among`) that it is for."""
        if self.weights.shape[1] == 1:
            yield 0, slice(None)
        else:
            yield from self.spans.each(among)

    def _sub_layers(self) -> Iterator[_SubLayer]:
        graph, runner = self.graph, self.runner
        for layer in range(graph.n_layers):
            yield _SubLayer(
                graph.attention_targets(layer),
                graph.head_sources(layer),
                graph.sources_before_attention(layer),
                runner.at_attention[layer],
                functools.partial(self._attention, layer),
            )
            mlp, target = graph.mlp_source(layer), graph.mlp_target(layer)
            yield _SubLayer(
                slice(target, target + 1),
                slice(mlp, mlp + 1),
                graph.sources_before_mlp(layer),
                runner.at_mlp[layer],
                functools.partial(self._mlp, layer),
            )

    def _attention(
        self, layer: int, x: Float[Tensor, "circuit target row d_model"]
    ) -> Float[Tensor, "circuit head row d_model"]:
        runner, anatomy = self.runner, self.anatomy
        heads = torch.arange(anatomy.n_heads, device=x.device)
        z = runner.run_heads(layer, x, heads, *runner.ports_of(heads))
        change = working(z).unflatten(0, (len(x), -1)).flatten(1, 2) - working(runner.corrupted.heads[layer])
        written = expand_heads(change.flatten(0, 1), anatomy.head_weights(layer))  # [head, circuit * row, d_model]
        by_circuit: Tensor = written.unflatten(1, (len(x), -1)).transpose(0, 1)
        return by_circuit

    def _mlp(self, layer: int, x: Float[Tensor, "circuit 1 row d_model"]) -> Float[Tensor, "circuit 1 row d_model"]:
        shaped = x[:, 0].unflatten(1, (self.runner.batch.n_rows, -1)).flatten(0, 1).to(self.anatomy.dtype)
        out = working(run_mlp(self.anatomy.blocks[layer], shaped)).unflatten(0, (len(x), -1)).flatten(1, 2)
        change: Tensor = (out - working(self.runner.corrupted.mlps[layer]))[:, None]
        return change

    def _mix(self, part: _SubLayer) -> Float[Tensor, "circuit target row d_model"]:
        """What the targets of a sub-layer read."""
        weights = self.weights[:, :, : part.seen, part.targets].transpose(2, 3)
        if weights.shape[1] == 1:
            whole: Tensor = torch.bmm(weights[:, 0], self.differences[:, : part.seen]).unflatten(2, part.base.shape)
            return whole.add_(part.base)
        mixed = self.differences.new_zeros(len(weights), weights.shape[2], *part.base.shape)
        for each, rows in self._weighed():
            found = torch.bmm(weights[:, each], self._at(self.differences[:, : part.seen], rows))
            mixed[:, :, rows] = found.unflatten(2, (-1, self.anatomy.d_model))
        return mixed.add_(part.base)

    def forward(self) -> None:
        """Fill in the differences of all sources."""
        self.differences[:, 0] = (self.runner.embedding - working(self.runner.corrupted.embedding)).flatten()
        for part in self._sub_layers():
            self.differences[:, part.sources] = part.run(self._mix(part)).flatten(2)

    def _at(
        self, values: Float[Tensor, "circuit each flat"], rows: slice | Int[Tensor, " some"]
    ) -> Float[Tensor, "circuit each at_rows"]:
        """The same at some rows."""
        if isinstance(rows, slice):
            return values
        some: Tensor = values.unflatten(2, (-1, self.anatomy.d_model))[:, :, rows].flatten(2)
        return some

    def _last(self, of_sources: Float[Tensor, "circuit source flat"]) -> Float[Tensor, "circuit source batch d_model"]:
        last: Tensor = of_sources.unflatten(2, (-1, self.anatomy.d_model))[:, :, self.runner.last]
        return last

    def logits_input(self) -> Float[Tensor, "circuit batch d_model"]:
        """What the logits read at the last positions."""
        last = self._last(self.differences)
        mixed = torch.zeros_like(last[:, 0])
        for each, rows in self._weighed(self.runner.last):
            mixed[:, rows] = torch.einsum("cu,cubd->cbd", self.weights[:, each, :, -1], last[:, :, rows])
        return self.runner.at_logits + mixed

    def backward(self, gradient: Float[Tensor, "circuit batch d_model"]) -> None:
        """Fill in the slopes, from the gradient at what the logits read."""
        last = self._last(self.differences)
        for span, rows in self.spans.each(self.runner.last):
            self.slopes[:, span, :, -1] = torch.einsum("cubd,cbd->cu", last[:, :, rows], gradient[:, rows])
        gradients = torch.zeros_like(self.differences)
        by_row = gradients.unflatten(2, (-1, self.anatomy.d_model))
        for each, rows in self._weighed(self.runner.last):
            by_row[:, :, self.runner.last[rows]] = self.weights[:, each, :, -1, None, None] * gradient[:, None, rows]
        heard = (self.weights[..., -1] != 0).any(1).any(0)  # sources that anything that matters reads
        for part in reversed([*self._sub_layers()]):
            if not heard[part.sources].any():
                continue
            with torch.enable_grad():
                x = self._mix(part).requires_grad_()
                (at_targets,) = torch.autograd.grad(part.run(x), x, by_row[:, part.sources])
            flat = at_targets.flatten(2)
            for span, rows in self.spans.each():
                seen, here = self._at(self.differences[:, : part.seen], rows), self._at(flat, rows)
                self.slopes[:, span, : part.seen, part.targets] = torch.bmm(seen, here.transpose(1, 2))
            weights = self.weights[:, :, : part.seen, part.targets]
            for each, rows in self._weighed():
                if isinstance(rows, slice):
                    gradients[:, : part.seen].baddbmm_(weights[:, each], flat)
                    continue
                passed = torch.bmm(weights[:, each], self._at(flat, rows)).unflatten(2, (-1, self.anatomy.d_model))
                by_row[:, : part.seen, rows] += passed
            heard[: part.seen] |= (weights != 0).any(3).any(1).any(0)

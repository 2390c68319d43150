"""Circuits with real-valued edge weights, and the gradient of the objective at every weight.

    input_t = sum over sources of corrupted_u  +  sum over sources of w[u, t] (current_u - corrupted_u)

    dM/dw[u, t] = sum over rows of (current_u - corrupted_u) . dM/d input_t

At w = 1 everywhere this is the score of edge attribution patching, at a boolean w a circuit. The forward pass keeps
the sources' differences and nothing else. The backward pass goes through the sub-layers from the last to the first:
each is run again from the mixture that it read, and gives the gradients at its inputs. One matrix product with the
differences makes them the gradients at the weights of its edges, one with the weights hands them on to the sources.
Memory is two numbers for each source, row and dimension, whatever the number of edges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator
from interp.kernels.batching import (
    Batch,
    budget_of,
    bytes_per_position,
    check_batch_size,
    make_batches,
    refuse_nan,
    run_batches,
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
    weights: Float[Tensor, "circuit source target"],
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

    def work(batch: Batch) -> None:
        width = batch.prompts.clean.shape[1]
        rows = None if placed is None else placed.rows(batch.indices, batch.start, width)
        runner = SoftRunner(anatomy, graph, ablator, batch)
        runner.row_spans = rows
        found = [runner.differentiate(each, objective) for each in weights]
        for i, (value, gradient) in enumerate(found):
            values[i, list(batch.indices)] = value.to(dtype).cpu()
            gradients[i] += gradient.double().cpu()
        advance(len(batch) * len(weights))

    size = batch_size or prompts_that_fit(anatomy, graph, prompts, memory)
    with torch.inference_mode(False):
        run_batches(make_batches(prompts, size, anatomy.device, skip_prefix=ablator.skip_prefix), work)
    return SoftValues(values, (gradients / len(prompts)).to(dtype))


def prompts_that_fit(anatomy: Anatomy, graph: ComputationalGraph, prompts: Prompts, memory: int | None) -> int:
    """How many prompts a budget of `memory` bytes takes at once."""
    floats = (2 * len(graph.sources) + 12 * graph.targets_per_layer) * anatomy.d_model
    row = 4 * floats + bytes_per_position(anatomy, gradient=True, checkpointed=True)
    return max(1, min(len(prompts), budget_of(anatomy.device, memory) // (prompts.clean.shape[1] * row)))


class SoftRunner(MixtureRunner):
    """Differentiates weighted circuits over one batch of prompts; built once per batch, for any number of weights.

    `row_spans`: the spans at which an edge's weight is differentiated; None: all rows together.
    """

    row_spans: RowSpans | None = None

    @torch.no_grad()
    def differentiate(
        self, weights: Float[Tensor, "source target"], objective: Objective
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "*span source target"]]:
        """The objective of each prompt, and the gradient of their sum at every edge's weight (at each span)."""
        mask = self.graph.edge_mask.to(self.embedding.device)
        run = _Run(self, weights.to(self.embedding) * mask)
        run.forward()
        values, gradient = self._at_logits(run.logits_input(), objective)
        run.backward(gradient)
        slopes = run.slopes * mask
        return values, slopes[0] if self.row_spans is None else slopes

    def _at_logits(self, x: Float[Tensor, "batch d_model"], objective: Objective) -> tuple[Tensor, Tensor]:
        """The objective, and the gradient of its sum at what the logits read."""
        clean = self.clean_logits if objective.needs_clean else None
        with torch.enable_grad():
            x = x.requires_grad_()
            values = objective(unembed(self.anatomy, x.to(self.anatomy.dtype)), self.batch.prompts, clean)
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
    run: Callable[[Float[Tensor, "target row d_model"]], Float[Tensor, "source row d_model"]]


class _Run:
    """One pass forward and backward under some weights."""

    def __init__(self, runner: SoftRunner, weights: Float[Tensor, "source target"]) -> None:
        self.runner, self.graph, self.anatomy = runner, runner.graph, runner.anatomy
        self.weights = weights
        rows, d_model = runner.embedding.shape
        self.differences = runner.embedding.new_empty(len(weights), rows * d_model)
        self.spans = SpanRows.of(runner.row_spans, runner.embedding)
        self.slopes = weights.new_zeros(1 if runner.row_spans is None else runner.row_spans.count, *weights.shape)

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

    def _attention(self, layer: int, x: Float[Tensor, "target row d_model"]) -> Float[Tensor, "head row d_model"]:
        runner, anatomy = self.runner, self.anatomy
        heads = torch.arange(anatomy.n_heads, device=x.device)
        z = runner.run_heads(layer, x[None], heads, *runner.ports_of(heads))
        change = working(z).flatten(0, 1) - working(runner.corrupted.heads[layer])
        return expand_heads(change, anatomy.head_weights(layer))

    def _mlp(self, layer: int, x: Float[Tensor, "1 row d_model"]) -> Float[Tensor, "1 row d_model"]:
        shaped = x[0].unflatten(0, (len(self.runner.batch), -1)).to(self.anatomy.dtype)
        out = working(run_mlp(self.anatomy.blocks[layer], shaped)).flatten(0, 1)
        return (out - working(self.runner.corrupted.mlps[layer]))[None]

    def _mix(self, part: _SubLayer) -> Float[Tensor, "target row d_model"]:
        """What the targets of a sub-layer read."""
        mixed = self.weights[: part.seen, part.targets].T @ self.differences[: part.seen]
        return mixed.view(-1, *part.base.shape).add_(part.base)

    def forward(self) -> None:
        """Fill in the differences of all sources."""
        self.differences[0] = (self.runner.embedding - working(self.runner.corrupted.embedding)).flatten()
        for part in self._sub_layers():
            self.differences[part.sources] = part.run(self._mix(part)).flatten(1)

    def _last(self, of_sources: Float[Tensor, "source flat"]) -> Float[Tensor, "source batch d_model"]:
        return of_sources.view(len(of_sources), -1, self.anatomy.d_model)[:, self.runner.last]

    def _at(self, values: Float[Tensor, "each flat"], rows: slice | Int[Tensor, " some"]) -> Float[Tensor, "each some"]:
        """The same at some rows."""
        if isinstance(rows, slice):
            return values
        return values.view(len(values), -1, self.anatomy.d_model)[:, rows].flatten(1)

    def logits_input(self) -> Float[Tensor, "batch d_model"]:
        """What the logits read at the last positions."""
        return self.runner.at_logits + torch.einsum("u,ubd->bd", self.weights[:, -1], self._last(self.differences))

    def backward(self, gradient: Float[Tensor, "batch d_model"]) -> None:
        """Fill in the slopes, from the gradient at what the logits read."""
        for span, rows in self.spans.each(self.runner.last):
            differences = self._last(self.differences)[:, rows]
            self.slopes[span, :, -1] = torch.einsum("ubd,bd->u", differences, gradient[rows])
        gradients = torch.zeros_like(self.differences)
        by_row = gradients.view(len(gradients), -1, self.anatomy.d_model)
        by_row[:, self.runner.last] = self.weights[:, -1, None, None] * gradient
        heard = self.weights[:, -1] != 0  # sources that anything that matters reads
        for part in reversed([*self._sub_layers()]):
            if not heard[part.sources].any():
                continue
            with torch.enable_grad():
                x = self._mix(part).requires_grad_()
                (at_targets,) = torch.autograd.grad(part.run(x), x, by_row[part.sources])
            flat = at_targets.flatten(1)
            for span, rows in self.spans.each():
                seen, here = self._at(self.differences[: part.seen], rows), self._at(flat, rows)
                self.slopes[span, : part.seen, part.targets] = seen @ here.T
            weights = self.weights[: part.seen, part.targets]
            gradients[: part.seen].addmm_(weights, flat)
            heard[: part.seen] |= (weights != 0).any(1)

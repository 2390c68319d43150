"""Contract: from captured activations and gradients to edge scores, one matrix product per layer and chunk.

    score[u, t] = sum over rows of  delta_u . J^T W_t^T g_t

delta_u is the difference that source u's corruption makes in the residual stream, g_t the gradient at a
projection W_t, and J the Jacobian of the norm in front of it. For y = gain * x / r (x centred for LayerNorm):
J^T W^T g = P (gain * W^T g) / r - x (g . Wy) / (d r^2), with P the centring for LayerNorm and the identity for
RMSNorm. Everything but x is linear in g, so that points of a path are summed before they are expanded to
d_model; only the rank-one part is kept per point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy, Block
from interp.graph import ComputationalGraph
from interp.kernels.capture import Sources, TargetGradients
from interp.parts import working

Products = Literal["float32", "bfloat16"]
PRODUCTS: tuple[str, ...] = get_args(Products)  # what products are made in; float32: or wider, as the model is
CHUNK_BYTES = 48 << 20  # of expanded sources and targets: about a core's outer cache
_STREAMED_CHUNK_BYTES = 3 << 29  # where each chunk costs a pass over the files
_COLUMNS = 100  # targets of a product: with the 28 of one small layer it waits for memory, at half the speed


def chunk_rows(anatomy: Anatomy, n_expanded: int, n_rows: int, itemsize: int) -> int:
    """How many rows are expanded at a time, for sources and targets of some number; chunks are of like size."""
    budget = _STREAMED_CHUNK_BYTES if anatomy.streams else CHUNK_BYTES
    most = max(1, budget // (n_expanded * anatomy.d_model * itemsize))
    return -(-n_rows // -(-n_rows // most))


def layer_groups(graph: ComputationalGraph) -> list[range]:
    """Layers whose targets are multiplied with sources at once."""
    count = min(graph.n_layers, -(-_COLUMNS // graph.targets_per_layer))
    return [range(first, min(graph.n_layers, first + count)) for first in range(0, graph.n_layers, count)]


def group_sources(graph: ComputationalGraph, layers: range) -> int:
    """How many sources (a prefix) the targets of a group read; those of the last group are read by the logits."""
    return len(graph.sources) if layers.stop == graph.n_layers else graph.sources_before_mlp(layers[-1])


def group_targets(graph: ComputationalGraph, layers: range) -> slice:
    """Where the targets of a group stand among all; the logits belong to the last layer."""
    last = graph.mlp_target(layers[-1])
    return slice(graph.attention_targets(layers[0]).start, last + (2 if layers.stop == graph.n_layers else 1))


def most_targets(graph: ComputationalGraph) -> int:
    """How many targets are expanded at a time."""
    groups = (group_targets(graph, layers) for layers in layer_groups(graph))
    most: int = max(one.stop - one.start for one in groups)
    return most


def contract(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    delta: Sources,
    gradients: TargetGradients,
    only: slice | None = None,
    counts: Sequence[int] | None = None,
    products: Products = "float32",
) -> Float[Tensor, "span source target"]:
    """Scores summed over the rows of each span, in at least float32, on the model's device. Zero where no edge exists.

    Rows stand span by span, `counts` of them in each; None: all of one. `only` restricts the work to some sources (a
    slice of `graph.sources`); the others score zero. Beside the scores this takes what rows take, however many spans.
    `products="bfloat16"` rounds both factors of every product; sums stay as they are.
    """
    n_rows, d_model = delta.embedding.shape
    counts = [n_rows] if counts is None else counts
    scores = delta.embedding.new_zeros(len(counts), *graph.shape)
    if n_rows == 0:
        return scores
    only = only or slice(0, len(graph.sources))
    tall = only.stop - only.start, most_targets(graph)
    step = chunk_rows(anatomy, sum(tall), n_rows, delta.embedding.element_size())
    # buffers for all chunks: fresh pages would cost as much time as the products
    buffers = [delta.embedding.new_empty(n * step * d_model) for n in tall]
    for first in range(0, n_rows, step):
        rows = slice(first, min(n_rows, first + step))
        width = (rows.stop - rows.start) * d_model
        sources, targets = (buffer[: n * width].view(n, width) for buffer, n in zip(buffers, tall, strict=True))
        into = _Into(sources, targets, products)
        _add_chunk(anatomy, graph, delta, gradients, rows, only, into, scores, [*_parts(counts, rows)])
    return scores.masked_fill_(~graph.edge_mask.to(scores.device), 0)


@dataclass(frozen=True)
class _Into:
    """Buffers of a chunk's sources and of a group's targets, rows side by side, and how they are multiplied."""

    sources: Float[Tensor, "source row_d_model"]
    targets: Float[Tensor, "target row_d_model"]
    products: Products

    def product(self, n_sources: int, n_targets: int, part: slice) -> Float[Tensor, "source target"]:
        """Of the first sources and targets, summed over a part of the rows."""
        sources, targets = self.sources[:n_sources, part], self.targets[:n_targets, part].T
        if self.products == "float32":
            return sources @ targets
        if sources.is_cuda:
            return torch.mm(sources.bfloat16(), targets.bfloat16(), out_dtype=torch.float32)
        # a CPU's own product of bfloat16 rounds the sums, too
        return sources.bfloat16().to(sources.dtype) @ targets.bfloat16().to(targets.dtype)


def _parts(counts: Sequence[int], rows: slice) -> Iterator[tuple[int, slice]]:
    """The spans that some rows are of, each with the rows' place among these."""
    first = 0
    for span, count in enumerate(counts):
        start, stop = max(first, rows.start), min(first + count, rows.stop)
        if start < stop:
            yield span, slice(start - rows.start, stop - rows.start)
        first += count


def _add_chunk(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    delta: Sources,
    gradients: TargetGradients,
    rows: slice,
    only: slice,
    into: _Into,
    scores: Float[Tensor, "span all_sources all_targets"],
    parts: Sequence[tuple[int, slice]],
) -> None:
    """Add the products of some rows' differences with the gradients at all targets, both expanded `into` buffers.

    Group by group of layers, so that a layer's weights are asked for once; products of what is no edge come with it.
    """
    sources, targets = (buffer.unflatten(1, (-1, anatomy.d_model)) for buffer in (into.sources, into.targets))
    flat = [(span, slice(part.start * anatomy.d_model, part.stop * anatomy.d_model)) for span, part in parts]
    _expand_embedding(delta, rows, only, sources)
    for layers in layer_groups(graph):
        seen, columns = min(group_sources(graph, layers), only.stop), group_targets(graph, layers)
        for layer in layers:
            if seen > only.start:
                first = graph.attention_targets(layer).start - columns.start
                _expand_targets(anatomy, graph, gradients, layer, rows, targets[first:])
            _expand_layer(anatomy, graph, delta, layer, rows, only, sources)
        for span, part in flat if seen > only.start else ():
            scores[span, only.start : seen, columns] += into.product(
                seen - only.start, columns.stop - columns.start, part
            )


def expand_sources(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    delta: Sources,
    rows: slice,
    only: slice,
    out: Float[Tensor, "source row d_model"],
) -> None:
    """Write the differences of the sources `only` in residual space at some rows into `out`."""
    _expand_embedding(delta, rows, only, out)
    for layer in range(anatomy.n_layers):
        _expand_layer(anatomy, graph, delta, layer, rows, only, out)


def _expand_embedding(delta: Sources, rows: slice, only: slice, out: Tensor) -> None:
    if only.start == 0:
        out[0] = delta.embedding[rows]


def _expand_layer(
    anatomy: Anatomy, graph: ComputationalGraph, delta: Sources, layer: int, rows: slice, only: slice, out: Tensor
) -> None:
    """What `expand_sources` does, of one layer."""
    heads, mlp = graph.head_sources(layer), graph.mlp_source(layer)
    if only.start <= heads.start and heads.stop <= only.stop:
        into = out[heads.start - only.start : heads.stop - only.start]
        torch.bmm(delta.heads[layer][rows].transpose(0, 1), anatomy.head_weights(layer), out=into)
    if only.start <= mlp < only.stop:
        out[mlp - only.start] = delta.mlps[layer][rows]


def expand_heads(
    z: Float[Tensor, "row head d_head"], weights: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "head row d_model"]:
    """Head outputs in residual space."""
    return torch.bmm(z.transpose(0, 1).to(weights.dtype), weights)


def _expand_targets(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    gradients: TargetGradients,
    layer: int,
    rows: slice,
    out: Float[Tensor, "target row d_model"],
) -> None:
    """Write the gradients at a layer's targets, and behind the last one's those at the logits, to the top of `out`."""
    ports = graph.targets_per_layer - 1
    expand_ports(anatomy, graph, gradients, layer, rows, out[:ports])
    out[ports] = gradients.mlps[layer][rows]
    if layer == graph.n_layers - 1:
        assert gradients.logits is not None
        out[ports + 1] = gradients.logits[rows]


def expand_ports(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    gradients: TargetGradients,
    layer: int,
    rows: slice,
    out: Float[Tensor, "port row d_model"],
) -> None:
    """Write the gradients of a layer's q, k and v targets, carried back to the attention norm's input, to `out`."""
    block = anatomy.blocks[layer]
    if gradients.reads:
        out.copy_(gradients.reads[layer][rows].transpose(0, 1))
        if gradients.whole:
            return
    else:
        _through_weights(anatomy, graph, block, gradients.ports[layer][rows].transpose(0, 1), out)
    if block.attention_norm.gain is not None:
        out *= working(block.attention_norm.gain)
    if block.attention_norm.kind == "layer":
        out -= out.mean(-1, keepdim=True)
    for inner, inputs in zip(gradients.inner[layer], gradients.inputs[layer], strict=True):  # none if norms are held
        for by_port, x in zip(inner[:, rows], inputs[:, rows], strict=True):  # rank one per row and point
            out.addcmul_(by_port.T[..., None], x, value=-1)


def _through_weights(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    block: Block,
    ports: Float[Tensor, "port row d_head"],
    out: Float[Tensor, "port row d_model"],
) -> None:
    """W^T g of every port."""
    first = 0
    for affine, count in ((block.q, graph.n_heads), (block.k, graph.n_ports), (block.v, graph.n_ports)):
        where = slice(first, first + count)
        weight = working(affine.weight).unflatten(0, (-1, anatomy.d_head))
        # heads that share a key-value head share its weight: their rows go through it together
        grouped = ports[where].reshape(len(weight), -1, anatomy.d_head)
        torch.bmm(grouped, weight, out=out[where].view(len(weight), -1, anatomy.d_model))
        first = where.stop

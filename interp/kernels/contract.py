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

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy, Block
from interp.graph import ComputationalGraph
from interp.kernels.capture import Sources, TargetGradients
from interp.parts import working

CHUNK_BYTES = 24 << 20  # of expanded differences: small enough to stay in a core's outer cache
_STREAMED_CHUNK_BYTES = 3 << 29  # where each chunk costs a pass over the files


def chunk_rows(anatomy: Anatomy, n_sources: int, n_rows: int, itemsize: int) -> int:
    """How many rows are expanded at a time."""
    row = n_sources * anatomy.d_model * itemsize
    return max(1, min(n_rows, (_STREAMED_CHUNK_BYTES if anatomy.streams else CHUNK_BYTES) // row))


def contract(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    delta: Sources,
    gradients: TargetGradients,
    only: slice | None = None,
    counts: Sequence[int] | None = None,
) -> Float[Tensor, "span source target"]:
    """Scores summed over the rows of each span, in at least float32, on the model's device. Zero where no edge exists.

    Rows stand span by span, `counts` of them in each; None: all of one. `only` restricts the work to some sources (a
    slice of `graph.sources`); the others score zero. Beside the scores this takes what rows take, however many spans.
    """
    n_rows, d_model = delta.embedding.shape
    counts = [n_rows] if counts is None else counts
    scores = delta.embedding.new_zeros(len(counts), *graph.shape)
    if n_rows == 0:
        return scores
    only = only or slice(0, len(graph.sources))
    count = only.stop - only.start
    step = chunk_rows(anatomy, count, n_rows, delta.embedding.element_size())
    # one buffer for all chunks: fresh pages would cost as much time as the products
    buffer = delta.embedding.new_empty(count * step * d_model)
    for first in range(0, n_rows, step):
        rows = slice(first, min(n_rows, first + step))
        shape = count, rows.stop - rows.start, d_model
        expanded = buffer[: count * shape[1] * d_model].view(shape)
        _add_chunk(anatomy, graph, delta, expanded, gradients, rows, only, scores, [*_parts(counts, rows)])
    return scores.mul_(graph.edge_mask.to(scores.device))


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
    into: Float[Tensor, "source row d_model"],
    gradients: TargetGradients,
    rows: slice,
    only: slice,
    scores: Float[Tensor, "span all_sources target"],
    parts: Sequence[tuple[int, slice]],
) -> None:
    """Add the products of some rows' differences, expanded `into` a buffer, with the gradients at all targets.

    Span by span, and layer by layer, so that a layer's weights are asked for once.
    """
    flat = [(span, slice(part.start * anatomy.d_model, part.stop * anatomy.d_model)) for span, part in parts]
    _expand_embedding(delta, rows, only, into)
    expanded = into.flatten(1)
    for layer in range(anatomy.n_layers):
        seen = min(graph.sources_before_attention(layer), only.stop)
        if seen > only.start:
            reads = expand_ports(anatomy, graph, gradients, layer, rows).flatten(1)
            for span, part in flat:
                product = expanded[: seen - only.start, part] @ reads[:, part].T
                scores[span, only.start : seen, graph.attention_targets(layer)] += product
        _expand_layer(anatomy, graph, delta, layer, rows, only, into)
    assert gradients.logits is not None
    others = torch.stack([g[rows].flatten() for g in (*gradients.mlps, gradients.logits)])
    columns = [*(graph.mlp_target(layer) for layer in range(anatomy.n_layers)), graph.shape[1] - 1]
    for span, part in flat:
        scores[span][only, columns] += expanded[:, part] @ others[:, part].T


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


def expand_ports(
    anatomy: Anatomy, graph: ComputationalGraph, gradients: TargetGradients, layer: int, rows: slice
) -> Float[Tensor, "port row d_model"]:
    """Gradients of a layer's q, k and v targets carried back to the input of the attention norm."""
    block = anatomy.blocks[layer]
    if gradients.whole:
        return gradients.reads[layer][rows].transpose(0, 1)
    if gradients.reads:
        reads = gradients.reads[layer][rows].transpose(0, 1).contiguous()
    else:
        reads = _through_weights(anatomy, graph, block, gradients.ports[layer][rows].transpose(0, 1))
    if block.attention_norm.gain is not None:
        reads *= working(block.attention_norm.gain)
    if block.attention_norm.kind == "layer":
        reads -= reads.mean(-1, keepdim=True)
    for inner, inputs in zip(gradients.inner[layer], gradients.inputs[layer], strict=True):  # none if norms are held
        # rank one per row and point: [row port point] @ [row point d_model]
        along = torch.bmm(inner[:, rows].permute(1, 2, 0), inputs[:, rows].transpose(0, 1))
        reads -= along.transpose(0, 1)
    return reads


def _through_weights(
    anatomy: Anatomy, graph: ComputationalGraph, block: Block, ports: Float[Tensor, "port row d_head"]
) -> Float[Tensor, "port row d_model"]:
    """W^T g of every port."""
    reads = ports.new_empty(*ports.shape[:2], anatomy.d_model)
    first = 0
    for affine, count in ((block.q, graph.n_heads), (block.k, graph.n_ports), (block.v, graph.n_ports)):
        where = slice(first, first + count)
        weight = working(affine.weight).unflatten(0, (-1, anatomy.d_head))
        # heads that share a key-value head share its weight: their rows go through it together
        grouped = ports[where].reshape(len(weight), -1, anatomy.d_head)
        torch.bmm(grouped, weight, out=reads[where].view(len(weight), -1, anatomy.d_model))
        first = where.stop
    return reads

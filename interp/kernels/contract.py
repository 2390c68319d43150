"""Contract: from captured activations and gradients to edge scores, one matrix product per layer and chunk.

    score[u, t] = sum over rows of  delta_u . J^T W_t^T g_t

delta_u is the difference that source u's corruption makes in the residual stream, g_t the gradient at a
projection W_t, and J the Jacobian of the norm in front of it. For y = gain * x / r (x centred for LayerNorm):
J^T W^T g = P (gain * W^T g) / r - x (g . Wy) / (d r^2), with P the centring for LayerNorm and the identity for
RMSNorm. Everything but x is linear in g, so that points of a path are summed before they are expanded to
d_model; only the rank-one part is kept per point.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy, working
from interp.graph import ComputationalGraph
from interp.kernels.capture import Sources, TargetGradients

CHUNK_BYTES = 24 << 20  # of expanded differences: small enough to stay in a core's outer cache


def contract(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    delta: Sources,
    gradients: TargetGradients,
    only: slice | None = None,
) -> Float[Tensor, "source target"]:
    """Scores summed over rows, in at least float32, on the model's device. Zero where no edge exists.

    `only` restricts the work to some sources (a slice of `graph.sources`); the others score zero.
    """
    n_rows, d_model = delta.embedding.shape
    scores = delta.embedding.new_zeros(graph.shape)
    if n_rows == 0:
        return scores
    only = only or slice(0, len(graph.sources))
    per_row = (only.stop - only.start) * d_model * delta.embedding.element_size()
    step = max(1, min(n_rows, CHUNK_BYTES // per_row))
    readers = [port_weights(anatomy, graph, layer) for layer in range(anatomy.n_layers)]
    for first in range(0, n_rows, step):
        rows = slice(first, first + step)
        expanded = expand_sources(anatomy, graph, delta, rows, only).flatten(1)
        for layer in range(anatomy.n_layers):
            seen = min(graph.sources_before_attention(layer), only.stop)
            if seen > only.start:
                reads = expand_ports(anatomy, readers[layer], gradients, layer, rows).flatten(1)
                targets = graph.attention_targets(layer)
                scores[only.start : seen, targets] += expanded[: seen - only.start] @ reads.T
        assert gradients.logits is not None
        others = torch.stack([g[rows].flatten() for g in (*gradients.mlps, gradients.logits)])
        columns = [*(graph.mlp_target(layer) for layer in range(anatomy.n_layers)), graph.shape[1] - 1]
        scores[only, columns] += expanded @ others.T
    return scores * graph.edge_mask.to(scores.device)


def expand_sources(
    anatomy: Anatomy, graph: ComputationalGraph, delta: Sources, rows: slice, only: slice
) -> Float[Tensor, "source row d_model"]:
    """Differences of the sources `only` in residual space at some rows."""
    parts = [delta.embedding[rows][None]] if only.start == 0 else []
    for layer in range(anatomy.n_layers):
        heads, mlp = graph.head_sources(layer), graph.mlp_source(layer)
        if only.start < heads.stop and heads.start < only.stop:
            parts.append(expand_heads(delta.heads[layer][rows], anatomy.head_weights(layer)))
        if only.start <= mlp < only.stop:
            parts.append(delta.mlps[layer][rows][None])
    return torch.cat(parts)


def expand_heads(
    z: Float[Tensor, "row head d_head"], weights: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "head row d_model"]:
    """Head outputs in residual space."""
    return torch.bmm(z.transpose(0, 1).to(weights.dtype), weights)


def port_weights(anatomy: Anatomy, graph: ComputationalGraph, layer: int) -> Float[Tensor, "port d_head d_model"]:
    """W_Q, W_K and W_V per q, k and v target of a layer, the norm's gain folded in."""
    block = anatomy.blocks[layer]
    q, k, v = (working(a.weight).unflatten(0, (-1, anatomy.d_head)) for a in (block.q, block.k, block.v))
    if graph.n_ports != len(k):
        groups = anatomy.kv_of_head()
        k, v = k[groups], v[groups]
    weights, gain = torch.cat((q, k, v)), block.attention_norm.gain
    return weights if gain is None else weights * working(gain)


def expand_ports(
    anatomy: Anatomy,
    weights: Float[Tensor, "port d_head d_model"],
    gradients: TargetGradients,
    layer: int,
    rows: slice,
) -> Float[Tensor, "port row d_model"]:
    """Gradients of a layer's q, k and v targets carried back to the input of the attention norm."""
    reads = torch.bmm(gradients.ports[layer][rows].transpose(0, 1), weights)
    if anatomy.blocks[layer].attention_norm.kind == "layer":
        reads -= reads.mean(-1, keepdim=True)
    for inner, inputs in zip(gradients.inner[layer], gradients.inputs[layer], strict=True):
        # rank one per row and point: [row port point] @ [row point d_model]
        along = torch.bmm(inner[:, rows].permute(1, 2, 0), inputs[:, rows].transpose(0, 1))
        reads -= along.transpose(0, 1)
    return reads

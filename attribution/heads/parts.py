"""What each source gives a head's query, keys and values: linear maps of the residual stream, norms' divisors held.

    x_p = sum over sources u of out_u,p        q_t = sum over u of q_t^u + biases        (k, v likewise)

A source is the token's embedding, the learned position, a head or an MLP of an earlier layer (with the bias of its
output matrix). `biases` are all others: of output matrices of heads, norms, projections and q/k norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.tracing.held import Held
from interp.kernels.frame import Frame
from interp.parts import Affine, Norm, working

BIASES = "biases"
Parts = Float[Tensor, "source pos d_head"]


@dataclass(frozen=True)
class HeadParts:
    """A head's queries and keys as they are multiplied, and its values, by source; `biases` last."""

    sources: list[str]
    q: Parts
    k: Parts
    v: Parts


def stream_parts(held: Held, layer: int) -> Iterator[tuple[list[str], Float[Tensor, "source pos d_model"]]]:
    """Sources of the residual stream in front of a layer, a layer's heads at a time; their biases are the last."""
    anatomy, biases = held.anatomy, torch.zeros_like(held.words)
    yield ["token"], held.words[None]
    if anatomy.embed.places is not None:
        yield ["position"], held.places[None]
    for before in range(layer):
        one = held.layers[before]
        written = torch.einsum("phd,hdm->hpm", one.z, anatomy.head_weights(before))
        if one.attention_post_divisor is not None:
            written = written / one.attention_post_divisor
        yield [f"a{before}.h{head}" for head in range(anatomy.n_heads)], written
        yield [f"m{before}"], one.added[None]
        for values in held.attention_constants(before).values():
            biases = biases + values
    yield [BIASES], biases[None]


@torch.no_grad()
def head_parts(held: Held, layer: int, head: int) -> HeadParts:
    """Split a head's queries, keys and values; memory: sources x positions x d_head, three times."""
    block, anatomy = held.block(layer), held.anatomy
    shared = int(anatomy.kv_of_head()[head])
    places = ((block.q, head), (block.k, shared), (block.v, shared))
    norm, divisor = block.attention_norm, held.layers[layer].attention_divisor
    names, found = list[str](), [list[Tensor]() for _ in places]
    for some, vectors in stream_parts(held, layer):
        names += some
        normed = held_norm(norm, vectors, divisor, with_bias=some == [BIASES])
        for kept, (affine, number) in zip(found, places, strict=True):
            kept.append(_projected(affine, number, anatomy.d_head, normed, with_bias=some == [BIASES]))
    q, k, v = (torch.cat(kept) for kept in found)
    if block.q_norm is not None:
        q = held_norm(block.q_norm, q, block.q_norm.divisor(q.sum(0)), with_bias=True)
    if block.k_norm is not None:
        k = held_norm(block.k_norm, k, block.k_norm.divisor(k.sum(0)), with_bias=True)
    lengths = torch.tensor([held.n_positions], device=q.device)
    q, k = Frame.of(anatomy, 0, held.n_positions, lengths).turn(layer, q[:, :, None], k[:, :, None])
    return HeadParts(names, q[:, :, 0], k[:, :, 0], v)


def held_norm(norm: Norm, parts: Tensor, divisor: Tensor, with_bias: bool) -> Tensor:
    """Parts behind a norm whose divisor is held; its bias goes to the last of them, if they hold the biases."""
    moved = norm.centred(parts) / divisor
    moved = moved if norm.gain is None else moved * working(norm.gain)
    return _plus_bias(moved, norm.bias) if with_bias else moved


def _projected(affine: Affine, number: int, d_head: int, normed: Tensor, with_bias: bool) -> Tensor:
    rows = slice(number * d_head, (number + 1) * d_head)
    moved = normed @ working(affine.weight[rows]).T
    return _plus_bias(moved, None if affine.bias is None else affine.bias[rows]) if with_bias else moved


def _plus_bias(parts: Tensor, bias: Tensor | None) -> Tensor:
    return parts if bias is None else torch.cat((parts[:-1], parts[-1:] + working(bias)))

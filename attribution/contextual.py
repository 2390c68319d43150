"""Contextual decomposition: the part of every activation that comes from one source, carried through a layer.

An activation is x = beta + gamma, beta what comes from the source (Hsu et al. 2024, arXiv:2407.00886). Here beta and x
are carried, which says the same: what is left is gamma, and beta + gamma is x everywhere. `beta` has an axis of sources
in front, over which x is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Block
from interp.errors import InputError
from interp.kernels.forward import attend
from interp.kernels.frame import Frame
from interp.mlps import Gated, Mixture
from interp.parts import Affine, Norm

Part = Float[Tensor, "source *batch width"]
Whole = Float[Tensor, "*batch width"]


def settled(beta: Part, x: Whole) -> Part:
    """Where beta and gamma have opposite signs, the larger takes their sum and the other is 0.

    They have where beta is not between 0 and x: beta is the larger beyond x, and gamma beyond 0.
    """
    return beta.clamp(x.clamp(max=0.0), x.clamp(min=0.0))


def _settled_with_bias(beta: Part, x: Whole, bias: Tensor | None) -> Part:
    """beta of x with its share of a bias, which x holds and which is split by |beta| : |gamma|."""
    if bias is None:
        return settled(beta, x)
    own = beta.abs()
    sizes = own + (x - bias - beta).abs()
    return settled(beta + bias * torch.where(sizes > 0, own / sizes, 0.0), x)


def through_affine(affine: Affine, beta: Part, x: Whole) -> tuple[Part, Whole]:
    """Behind a linear layer."""
    out = affine(x)
    return _settled_with_bias(beta @ affine.weight.T, out, affine.bias), out


def through_norm(norm: Norm, beta: Part, x: Whole) -> tuple[Part, Whole]:
    """Behind a norm: each part less its own mean, divided by the divisor of the whole."""
    factor = 1 / norm.divisor(x)
    if norm.gain is not None:
        factor = factor * norm.gain
    out = norm(x)
    return _settled_with_bias(norm.centred(beta) * factor, out, norm.bias), out


def through_activation(function: Callable[[Tensor], Tensor], beta: Part, x: Whole) -> tuple[Part, Whole]:
    """Behind an elementwise function f: gamma' = f(gamma), and beta' is what f(x) has beyond that."""
    out = function(x)
    return settled(out - function(x - beta), out), out


def through_projections(frame: Frame, layer: int, beta: Part, x: Whole) -> list[tuple[Part, Whole]]:
    """Queries, keys and values of a layer, `[..., head, d_head]`, from what its attention reads."""
    block = frame.anatomy.blocks[layer]
    beta, x = through_norm(block.attention_norm, beta, x)
    found = []
    for affine in (block.q, block.k, block.v):
        part, whole = (one.unflatten(-1, (-1, frame.anatomy.d_head)) for one in through_affine(affine, beta, x))
        found.append((part, whole))
    return found


def through_attention(frame: Frame, layer: int, beta: Part, x: Whole, z: Float[Tensor, "*batch head d_head"]) -> Part:
    """The part of what attention adds: the pattern of beta's own scores times its own values.

    `z` is what the heads of the whole give. `beta`, `x` and `z` may leave out the first positions, where beta is 0:
    beta's scores of keys there are 0, and so are its values. The frame must run whole prompts: keys of a shared prefix
    are not decomposed.
    """
    anatomy, block = frame.anatomy, frame.anatomy.blocks[layer]
    ready = through_projections(frame, layer, beta, x)
    for place, norm in enumerate((block.q_norm, block.k_norm)):
        if norm is not None:
            ready[place] = through_norm(norm, *ready[place])
    bare = replace(block, q_norm=None, k_norm=None)  # the norms are behind us
    blocks = tuple(bare if one is block else one for one in anatomy.blocks)
    unnormed = replace(frame, anatomy=replace(anatomy, blocks=blocks))
    first = frame.positions.shape[-1] - beta.shape[-2]
    q, k, v = (F.pad(part.flatten(0, 1), (0, 0, 0, 0, first, 0)) for part, _ in ready)
    own = attend(unnormed, layer, q, k, v)[:, first:].unflatten(0, (len(beta), -1))
    added, out = through_affine(block.o, settled(own, z).flatten(-2), z.flatten(-2))
    if block.attention_post_norm is not None:
        added, out = through_norm(block.attention_post_norm, added, out)
    return added


def through_mlp(block: Block, beta: Part, x: Whole) -> Part:
    """The part of what the MLP adds. Raises `InputError` for a mixture of experts."""
    mlp = block.mlp
    if isinstance(mlp, Mixture):
        raise InputError("method='cd-t' has no rule for a mixture of experts; use method='eap-ig'")
    beta, x = through_norm(block.mlp_norm, beta, x)
    up = through_affine(mlp.up, beta, x)
    if isinstance(mlp, Gated):
        gate, opened = through_activation(mlp.act, *through_affine(mlp.gate, beta, x))
        hidden = opened * up[1]
        part = settled(gate * up[0], hidden)
    else:
        part, hidden = through_activation(mlp.act, *up)
    beta, x = through_affine(mlp.down, part, hidden)
    if block.mlp_post_norm is not None:
        beta, x = through_norm(block.mlp_post_norm, beta, x)
    return beta

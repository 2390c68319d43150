"""The held run of a causal language model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from attribution.decompx.steps import HeldAttention, HeldHead, HeldMLP, HeldNorm, HeldRun, Sublayer
from interp.anatomy import Anatomy, Block
from interp.errors import InputError
from interp.kernels.backward import PLAIN
from interp.kernels.forward import Residual, attend, attention_pattern, prepare, project
from interp.mlps import Dense, Gated
from interp.parts import Norm


def refuse_other_decoders(anatomy: Anatomy) -> None:
    """Raise `InputError` for blocks that DecompX has no rule for."""
    for block in anatomy.blocks:
        if block.parallel:
            raise InputError(
                f"decompx needs attention and MLP in sequence; in {anatomy.name!r} they are parallel; use 'attnlrp'"
            )
        if not isinstance(block.mlp, Dense | Gated):
            raise InputError(f"decompx cannot enter the mixture of experts of {anatomy.name!r}; use 'attnlrp'")


@torch.no_grad()
def held_decoder(anatomy: Anatomy, ids: Int[Tensor, " pos"], positive: int, negative: int) -> HeldRun:
    """The run over one prompt; what is explained is the logit of `positive`, less that of `negative` unless -1."""
    ids = ids.to(anatomy.device)[None]
    frame = prepare(anatomy, ids, 0, torch.tensor([ids.shape[1]], device="cpu"))
    x = start = anatomy.embed(ids, frame.positions)
    layers = []
    for layer, block in enumerate(anatomy.blocks):
        before = HeldNorm.of(block.attention_norm, x[0])
        q, k, v = project(block, block.attention_norm(x), anatomy.d_head, PLAIN)
        pattern = attention_pattern(frame, layer, q, k, v)[0]
        summed = block.o(attend(frame, layer, q, k, v).flatten(2))
        after, added = _behind(block.attention_post_norm, summed)
        attention = HeldAttention(pattern, block.v, block.o, frame.kv_of_head)
        x = x + added
        mlp, x = _feed_forward(block, x)
        layers.append((Sublayer(attention, before, after), mlp))
    return HeldRun(start[0], tuple(layers), *_head(anatomy, x[0, -1:], ids.shape[1] - 1, positive, negative), True)


def _head(
    anatomy: Anatomy, last: Float[Tensor, "1 d"], position: int, positive: int, negative: int
) -> tuple[HeldHead, Float[Tensor, " cls"]]:
    """From the last position to the explained logit, or the difference of two; and what the model says."""
    rows = [positive] if negative < 0 else [positive, negative]
    weight, bias = anatomy.unembed.weight[rows], anatomy.unembed.bias
    own = None if bias is None else bias[rows]
    sign = weight.new_tensor([[1.0, -1.0][: len(rows)]])
    norm = HeldNorm.of(anatomy.final_norm, last)
    raw = F.linear(anatomy.final_norm(last), weight, own)[0]
    if anatomy.cap is None:
        return HeldHead(position, ((sign @ weight, None if own is None else sign[0] @ own[:, None]),), norm), sign @ raw
    head = HeldHead(position, ((weight, own), (sign, None)), norm, anatomy.cap, raw)
    return head, sign @ anatomy.cap(raw)


def _behind(norm: Norm | None, out: Residual) -> tuple[HeldNorm | None, Residual]:
    return (None, out) if norm is None else (HeldNorm.of(norm, out[0]), norm(out))


def _feed_forward(block: Block, x: Residual) -> tuple[Sublayer, Residual]:
    before = HeldNorm.of(block.mlp_norm, x[0])
    normed = block.mlp_norm(x)
    mlp = block.mlp
    assert isinstance(mlp, Dense | Gated)
    up = mlp.up(normed)
    if isinstance(mlp, Gated):
        gate = mlp.gate(normed)
        held = HeldMLP(mlp.up, mlp.down, mlp.act, up[0], mlp.gate, gate[0])
    else:
        held = HeldMLP(mlp.up, mlp.down, mlp.act, up[0])
    after, added = _behind(block.mlp_post_norm, mlp(normed))
    return Sublayer(held, before, after), x + added

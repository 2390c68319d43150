"""The real model run with some units set, attention patterns as they were or free: the truth beside direct effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.tracing.held import Held
from attribution.tracing.logits import raw_logits
from attribution.tracing.units import Changes, Later, Places, Units
from interp.kernels.forward import attend, prepare, project, write_heads
from interp.kernels.frame import Frame

Attention = Literal["frozen", "free"]
Hear = Callable[[int, Float[Tensor, "copy pos number"]], None]


@torch.no_grad()
def run_changed(
    held: Held,
    units: Units,
    places: Places,
    copies: Int[Tensor, " unit"],
    values: Float[Tensor, " unit"],
    attention: Attention,
    hear: Hear = lambda layer, activations: None,
) -> Float[Tensor, "copy d_vocab"]:
    """Logits at the last position, in front of a soft cap, of `copies` of the prompt in which units are set to values.

    Norms, activation functions and all MLPs are live; so is attention, unless it is `frozen`. `hear` is told the
    activations of every layer's units. Cost: a forward pass for each copy.
    """
    anatomy, n_copies = held.anatomy, int(copies.max()) + 1 if len(copies) else 1
    lengths = torch.tensor([held.n_positions], device=anatomy.device)
    frame = prepare(anatomy, held.ids[None], 0, lengths)
    x = anatomy.embed(held.ids[None], frame.positions).expand(n_copies, -1, -1)
    later: Later = {}
    for layer in range(held.n_layers):
        block = held.block(layer)
        here = (places.layers == layer).nonzero()[:, 0]
        at = here.to(x.device)
        changes = Changes(
            copies.to(x.device)[at], places.positions[here].to(x.device), places.units[here].to(x.device),
            values.to(x.device)[at],
        )  # fmt: skip
        z = _heads(frame, held, layer, x, attention)
        more, heads = units.attended(layer, z, changes)
        middle = x + write_heads(block, z)[1]
        middle = middle if more is None else middle + more
        added, activations = units.run(layer, x if block.parallel else middle, changes, later)
        hear(layer, torch.cat((heads, activations), -1))
        x = middle + added
    return raw_logits(anatomy, x[:, -1])


def _heads(frame: Frame, held: Held, layer: int, x: Tensor, attention: Attention) -> Tensor:
    block = held.block(layer)
    q, k, v = project(block, frame.backward.norm(block.attention_norm, x), frame.anatomy.d_head, frame.backward)
    if attention == "free":
        return attend(frame, layer, q, k, v)
    return torch.einsum("hts,cshd->cthd", held.layers[layer].pattern.to(v.dtype), v[:, :, frame.kv_of_head])

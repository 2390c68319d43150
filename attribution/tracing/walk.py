"""Gradients of many targets, back through one held run: each enters where its target reads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.tracing.held import Gradients, Held
from attribution.tracing.units import Targets

AtMLP = Callable[[int, Gradients], "Gradients | None"]
Hear = Callable[[int, str, Tensor], None]


def walk(held: Held, targets: Targets, at_mlp: AtMLP, hear: Hear) -> Gradients:
    """Gradients at the embedding, `[row, pos, d_model]`, up to the last position that a target reads at.

    `targets` are in falling order of layers. `at_mlp` is told of the gradients at what each MLP adds, of all rows that
    read behind it, and returns what of them comes out in front of the MLP's norm, if anything. `hear` is told the
    gradients at every place of attention where a bias may be added. What both are told holds no later than the call.
    """
    length = int(targets.positions.max()) + 1
    gradients = targets.vectors.new_zeros(len(targets), length, targets.vectors.shape[1])
    layers = targets.layers.tolist()
    open_rows = _entered(gradients, targets, 0, sum(layer >= held.n_layers for layer in layers))
    for layer in reversed(range(held.n_layers)):
        entering = sum(one >= layer for one in layers)
        before = at_mlp(layer, gradients[:open_rows]) if open_rows else None
        if held.block(layer).parallel:  # attention and MLP read one stream
            _attend(held, layer, gradients[:open_rows], hear)
        if before is not None:
            gradients[:open_rows] += before
        last, open_rows = open_rows, _entered(gradients, targets, open_rows, entering)
        if not held.block(layer).parallel:
            _attend(held, layer, gradients[:open_rows], hear)
        assert last <= open_rows
    return gradients


def _entered(gradients: Gradients, targets: Targets, first: int, stop: int) -> int:
    rows = torch.arange(first, stop, device=gradients.device)
    gradients[rows, targets.positions[first:stop].to(rows.device)] += targets.vectors[first:stop]
    return stop


def _attend(held: Held, layer: int, gradients: Float[Tensor, "row pos d_model"], hear: Hear) -> None:
    if len(gradients):
        gradients += held.attention_pull(layer, gradients, lambda place, found: hear(layer, place, found))

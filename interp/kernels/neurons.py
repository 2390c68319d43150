"""Neurons' activations in runs: heard layer by layer, in units of the residual stream, and their means.

A neuron p of a layer writes a_p w_p. In the residual stream, behind a norm that follows the MLP, that is
a_p / r * gain * centred(w_p), r being the norm's divisor of the MLP's whole output: so differences of neurons add up to
the difference of the MLP, as those of heads do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import ranks
from interp.anatomy import Anatomy, Block
from interp.kernels.batching import Batch
from interp.kernels.forward import Recorder, Residual, answer_rows, run_blocks, unembed
from interp.kernels.frame import Frame
from interp.kernels.means import add_real, averaged, clean_runs
from interp.mlps import Hidden
from interp.parts import working
from interp.tasks.prompts import Prompts

Hear = Callable[[int, Hidden, Residual], None]  # layer, activations, the MLP's output in front of a norm behind it
Means = list[Float[Tensor, "pos d_mlp"]]


def widths(anatomy: Anatomy) -> list[int]:
    """How many neurons each layer has."""
    return [block.mlp.width for block in anatomy.blocks]


def in_stream(block: Block, hidden: Hidden, written: Residual) -> Hidden:
    """Activations over the divisor of a norm behind the MLP, where there is one."""
    norm = block.mlp_post_norm
    return working(hidden) if norm is None else working(hidden) / norm.divisor(working(written))


def directions(block: Block, neurons: Int[Tensor, " neuron"]) -> Float[Tensor, "neuron d_model"]:
    """What neurons add to the residual stream for each unit of `in_stream`."""
    return past_norm(block, working(block.mlp.directions(neurons)))


def past_norm(block: Block, written: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """What comes of an MLP's output past a norm behind it, but for the norm's divisor."""
    norm = block.mlp_post_norm
    if norm is None:
        return written
    centred = norm.centred(written)
    return centred if norm.gain is None else centred * working(norm.gain).to(centred.dtype)


def written_by(block: Block, change: Hidden) -> Residual:
    """What a change of activations (`in_stream`) adds to the residual stream: linear, so without the output's bias."""
    nothing = change.new_zeros(1, 1, change.shape[-1])
    return past_norm(block, block.mlp.write(change) - block.mlp.write(nothing))


class _Heard(Recorder):
    hears_neurons = True

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        self._hear(layer, hidden, written)


@torch.no_grad()
def hear_neurons(frame: Frame, embedding: Residual, batch: Batch, hear: Hear) -> Float[Tensor, "batch d_vocab"]:
    """Run from an embedding on, telling of every layer's neurons; the logits."""
    x = run_blocks(frame, embedding, _Heard(hear))
    return unembed(frame.anatomy, answer_rows(x, frame, batch.prompts))


@torch.no_grad()
def activation_totals(
    anatomy: Anatomy,
    prompts: Prompts,
    batch_size: int | None = None,
    memory: int | None = None,
    of: Callable[[Tensor], Tensor] = working,
) -> Means:
    """Sums over clean prompts of activations (`in_stream`), or of a function of them, by position: float64.

    One forward pass.
    """
    length = prompts.clean.shape[1]
    totals = [torch.zeros(length, n, dtype=torch.float64, device=anatomy.device) for n in widths(anatomy)]
    for batch, frame, embedding in clean_runs(anatomy, prompts, batch_size, memory):

        def hear(layer: int, hidden: Hidden, written: Residual, real: Tensor = batch.prompts.mask) -> None:
            add_real(totals[layer], of(in_stream(anatomy.blocks[layer], hidden, written)), real)

        hear_neurons(frame, embedding, batch, hear)
    ranks.add(*totals)
    return totals


def mean_activations(
    anatomy: Anatomy, prompts: Prompts, positional: bool, batch_size: int | None = None, memory: int | None = None
) -> Means:
    """Mean activations over the clean prompts (`in_stream`), `positional`: at each position, or else over all of them.

    One forward pass.
    """
    totals = activation_totals(anatomy, prompts, batch_size, memory)
    return [averaged(total, prompts, positional) for total in totals]

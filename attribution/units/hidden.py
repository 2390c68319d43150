"""Neurons' activations met by gradients: one forward pass, in which every layer is scored as it goes by.

A neuron p of a layer writes a_p w_p. In the residual stream, behind a norm that follows the MLP, that is
a_p / r * gain * centred(w_p), r being the norm's divisor of the MLP's whole output: so differences of neurons add up to
the difference of the MLP, as those of heads do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy, Block
from interp.kernels.backward import Backward
from interp.kernels.batching import Batch, make_batches, plan
from interp.kernels.forward import Recorder, Residual, last_rows, run_blocks, unembed
from interp.kernels.frame import Frame
from interp.mlps import Hidden
from interp.parts import working
from interp.setting import Setting

Hear = Callable[[int, Hidden, Residual], None]  # layer, activations, the MLP's output in front of a norm behind it
Means = list[Float[Tensor, "pos d_mlp"]]


def widths(anatomy: Anatomy) -> list[int]:
    """How many neurons each layer has."""
    return [block.mlp.width for block in anatomy.blocks]


def in_stream(block: Block, hidden: Hidden, written: Residual) -> Hidden:
    """Activations over the divisor of a norm behind the MLP, where there is one."""
    norm = block.mlp_post_norm
    return working(hidden) if norm is None else working(hidden) / norm.divisor(working(written))


def from_stream(block: Block, gradient: Residual) -> Hidden:
    """The gradient at what `in_stream` gives, from that in the residual stream."""
    norm = block.mlp_post_norm
    if norm is not None:
        gradient = norm.centred(gradient if norm.gain is None else gradient * working(norm.gain))
    return block.mlp.carried(gradient)


def direction(block: Block, neuron: int) -> Float[Tensor, " d_model"]:
    """What a neuron adds to the residual stream for each unit of `in_stream`."""
    written, norm = working(block.mlp.direction(neuron)), block.mlp_post_norm
    if norm is None:
        return written
    return norm.centred(written) if norm.gain is None else norm.centred(written) * working(norm.gain)


def plainly_linear(block: Block, backward: Backward) -> bool:
    """Whether rules leave what lies behind the neurons, output matrix and norm, the linear map that it is."""
    return backward.pull is None and (block.mlp_post_norm is None or backward.norms_held)


def in_front(block: Block, hidden: Hidden, gradient: Residual, backward: Backward) -> Hidden:
    """The gradient in front of the output matrix under rules, from that in the residual stream."""
    with torch.enable_grad():
        leaf = hidden.detach().requires_grad_()
        added = block.mlp.write(leaf, backward)
        if block.mlp_post_norm is not None:
            added = backward.norm(block.mlp_post_norm, added)
        (found,) = torch.autograd.grad(added, leaf, gradient.to(added.dtype))
    return working(found)


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
    return unembed(frame.anatomy, last_rows(x, frame, batch.prompts.lengths))


@torch.no_grad()
def mean_neurons(setting: Setting) -> Means:
    """Mean activations over the clean prompts (`in_stream`), at each position or, for `mean`, over all of them.

    One forward pass.
    """
    anatomy, prompts = setting.anatomy, setting.prompts
    length = prompts.clean.shape[1]
    size = plan(anatomy, len(prompts), length, batch_size=setting.run.batch_size, memory=setting.run.memory)
    totals = [torch.zeros(length, n, dtype=torch.float64, device=anatomy.device) for n in widths(anatomy)]
    counts = prompts.mask.sum(0).to(anatomy.device)
    for batch in make_batches(prompts, size.batch_size, anatomy.device, skip_prefix=False):
        frame, real = batch.frame(anatomy), batch.prompts.mask[..., None]

        def hear(layer: int, hidden: Hidden, written: Residual, real: Tensor = real) -> None:
            values = in_stream(anatomy.blocks[layer], hidden, written)
            totals[layer][: values.shape[1]] += torch.where(real, values, 0.0).sum(0)

        hear_neurons(frame, anatomy.embed(batch.prompts.clean, frame.positions), batch, hear)
    if setting.ablation == "mean":
        return [(total.sum(0) / counts.sum()).expand_as(total) for total in totals]
    return [total / counts[:, None] for total in totals]


def corrupted_neurons(
    means: Means | None, layer: int, stacked: Hidden, n_prompts: int, positions: Int[Tensor, " pos"]
) -> tuple[Hidden, Hidden | Tensor]:
    """Clean and corrupted activations: the second half of the stack, means, or nothing where neither is there."""
    clean, other = stacked[:n_prompts], stacked[n_prompts:]
    if len(other):
        return clean, other
    return clean, clean.new_zeros(()) if means is None else means[layer][positions].to(clean.dtype)

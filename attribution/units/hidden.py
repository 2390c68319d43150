"""Neurons' activations met by gradients, in units of the residual stream (`interp.kernels.neurons`)."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from interp.anatomy import Block
from interp.kernels.backward import Backward
from interp.kernels.forward import Residual
from interp.kernels.neurons import Means
from interp.kernels.nodes import Nodes
from interp.mlps import Hidden
from interp.parts import working
from interp.setting import Setting


def from_stream(block: Block, gradient: Residual) -> Hidden:
    """The gradient at what `in_stream` gives, from that in the residual stream."""
    norm = block.mlp_post_norm
    if norm is not None:
        gradient = norm.centred(gradient if norm.gain is None else gradient * working(norm.gain))
    return block.mlp.carried(gradient)


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


def mean_neurons(setting: Setting) -> Means | None:
    """What ablated neurons give, by position, where that is the same for all prompts: means or constants; or None."""
    grain = setting.nodes("neuron")
    assert isinstance(grain, Nodes)
    return grain.means


def corrupted_neurons(
    means: Means | None, layer: int, stacked: Hidden, n_prompts: int, positions: Int[Tensor, " pos"]
) -> tuple[Hidden, Hidden | Tensor]:
    """Clean and corrupted activations: the second half of the stack, means, or nothing where neither is there."""
    clean, other = stacked[:n_prompts], stacked[n_prompts:]
    if len(other):
        return clean, other
    return clean, clean.new_zeros(()) if means is None else means[layer][positions].to(clean.dtype)

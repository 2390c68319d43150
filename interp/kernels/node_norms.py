"""How much each node moves the residual stream when it is ablated: what random nodes are matched by."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Block
from interp.kernels.batching import budget_of, make_batches
from interp.kernels.forward import Recorder, Residual, run_blocks
from interp.kernels.frame import PerHead
from interp.kernels.neurons import directions, in_stream, past_norm
from interp.kernels.nodes import NodeRunner, Nodes
from interp.mlps import Hidden
from interp.node_mask import OF_NEURONS
from interp.parts import working

_AT_ONCE = 1024  # neurons whose directions are held together


@torch.no_grad()
def node_norms(grain: Nodes) -> Float[Tensor, "*axes"]:
    """Root mean square, over prompts and real positions, of the norm of (own - ablated) output in the residual stream.

    [layer, d_mlp] and so on, without spans; `input` of level `node` has 0. Cost: two forward passes.
    """
    anatomy, prompts = grain.anatomy, grain.prompts
    size = max(1, budget_of(anatomy.device, grain.memory) // (prompts.clean.shape[1] * grain.row_bytes()))
    squares = _Squares(grain)
    skip = grain.ablator.skip_prefix
    for batch in make_batches(prompts, grain.batch_size or size, anatomy.device, skip_prefix=skip):
        squares.begin(NodeRunner(grain, batch))
        run_blocks(squares.runner.frame, squares.runner.embedded, squares)
    count = prompts.mask.sum()
    heads = [(total / count).sqrt().cpu() for total in squares.of_heads]
    mlps = [(total / count).sqrt().cpu() for total in squares.of_mlps]
    if grain.level == "head":
        return torch.stack(heads)
    if grain.level in OF_NEURONS:
        found = torch.zeros(len(mlps), max(map(len, mlps)), dtype=mlps[0].dtype, device="cpu")
        for layer, norms in enumerate(mlps):
            of_one = _direction_norms(anatomy.blocks[layer]).cpu() if grain.level == "neuron" else 1
            found[layer, : len(norms)] = norms * of_one
        return found
    return torch.cat([heads[0].new_zeros(1), *(torch.cat((heads[i], mlps[i])) for i in range(anatomy.n_layers))])


def _direction_norms(block: Block) -> Float[Tensor, " d_mlp"]:
    """The norm of what each neuron writes for each unit of its activation (`in_stream`)."""
    neurons = torch.arange(block.mlp.width, device="cpu")
    return torch.cat([directions(block, some).norm(dim=-1) for some in neurons.split(_AT_ONCE)])


class _Squares(Recorder):
    """Adds up squares of differences of a clean run's nodes, and of the norms of their vectors."""

    def __init__(self, grain: Nodes) -> None:
        self.grain = grain
        self.hears_neurons = grain.level in OF_NEURONS
        self.of_heads: list[Tensor] = []
        self.of_mlps: list[Tensor] = []
        self.first = True

    def begin(self, runner: NodeRunner) -> None:
        self.first = not self.of_heads and not self.of_mlps
        self.runner = runner
        self.real = runner.batch.prompts.mask[:, runner.batch.start :]

    def _add(self, totals: list[Tensor], layer: int, squares: Tensor) -> None:
        real = self.real.reshape(*self.real.shape, *[1] * (squares.ndim - 2))
        total = torch.where(real, squares, 0.0).sum((0, 1))
        if self.first:
            totals.append(total)
        else:
            totals[layer] += total

    def heads(self, layer: int, z: PerHead) -> None:
        if self.grain.level not in OF_NEURONS:
            change = working(z) - working(self.runner.heads[layer])
            weights = self.grain.anatomy.head_weights(layer)
            written = torch.einsum("bphk,hkd->bphd", change, weights)
            self._add(self.of_heads, layer, written.square().sum(-1))

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        block = self.grain.anatomy.blocks[layer]
        change = in_stream(block, hidden, written) - self.runner.mlps[layer]
        if self.grain.level == "expert":
            added = past_norm(block, block.mlp.write_apart(change))
            self._add(self.of_mlps, layer, added.square().sum(-1))
        else:
            self._add(self.of_mlps, layer, change.square())

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        if self.grain.level == "node":
            change = working(m) - working(self.runner.mlps[layer])
            self._add(self.of_mlps, layer, change.square().sum(-1, keepdim=True))
        return m

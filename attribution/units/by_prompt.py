"""Scores of neurons along their weights, prompt by prompt: what `attribution.units.weights` gives as means.

    score(p) = sum over points of  weight * sum over positions of  (a_p - other_p) . dM/da_p     at  w = alpha

Every neuron of weight w gives w times its own activation and 1 - w times what it gives under the ablation, all layers
at once: integrated gradients from all neurons ablated to the model as it is. Of each prompt the scores of all neurons
add up to M(clean) - M(all neurons ablated), as far as the quadrature goes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.units.hidden import from_stream
from attribution.units.weights import Points, refuse_mixtures
from interp.kernels.batching import Batch, make_batches, plan, refuse_nan, run_batches
from interp.kernels.forward import Recorder, Residual, answer_rows, run_blocks, unembed
from interp.kernels.neurons import in_stream, written_by
from interp.kernels.nodes import NodeRunner
from interp.mlps import Hidden
from interp.parts import working
from interp.setting import Setting
from interp.tasks.prompts import Prompts


def neurons_by_prompt(setting: Setting, points: Points) -> Float[Tensor, "n layer d_mlp"]:
    """Scores of all neurons, of each prompt summed over its positions (and answers); float64, on the CPU.

    Cost: a forward and a backward pass for each point. Raises `InputError` for a mixture of experts, whose own module
    takes no gradients at its neurons.
    """
    refuse_mixtures(setting, "neuron")
    grain, run = setting.nodes("neuron"), setting.run
    planned = plan(setting.anatomy, len(setting), setting.prompts.longest, batch_size=run.batch_size, memory=run.memory)
    found = torch.zeros(len(setting), *grain.full.shape, dtype=torch.float64, device="cpu")

    def work(batch: Batch) -> None:
        runner = grain.runner(batch)
        assert isinstance(runner, NodeRunner)
        total = torch.zeros(len(batch), *grain.full.shape, dtype=torch.float64, device="cpu")
        for alpha, weight in points:
            total += weight * _slopes(setting, runner, alpha, planned.checkpointed)
        found[list(batch.indices)] = total

    skip = setting.ablator.skip_prefix
    with torch.inference_mode(False):
        run_batches(make_batches(setting.prompts, planned.batch_size, setting.anatomy.device, skip_prefix=skip), work)
    return found


def _slopes(
    setting: Setting, runner: NodeRunner, alpha: float, checkpointed: bool
) -> Float[Tensor, "batch layer d_mlp"]:
    """dM/dw of every neuron at one weight of all, prompt by prompt."""
    goal, prompts = setting.goal, runner.batch.prompts
    clean = runner.clean_logits if goal.needs_clean else None
    weighted = _Weighted(runner, alpha)
    with torch.enable_grad():
        start = runner.embedded.detach().requires_grad_()
        x = run_blocks(runner.frame, start, weighted, checkpointed=checkpointed)
        weighted.open = False
        values = goal(unembed(runner.anatomy, answer_rows(x, runner.frame, prompts)), prompts, clean)
        refuse_nan(values, goal.name, runner.batch)
        torch.autograd.grad(values.sum(), start)
    by_row = torch.stack([weighted.slopes[layer] for layer in range(runner.anatomy.n_layers)], 1)
    return summed_rows(by_row, prompts)


def summed_rows(by_row: Float[Tensor, "row ..."], prompts: Prompts) -> Float[Tensor, "n ..."]:
    """What is found by row, summed over the rows of each prompt; on the CPU."""
    total = by_row.new_zeros(len(prompts), *by_row.shape[1:])
    return total.index_add(0, prompts.prompt_of.cpu(), by_row)


class _Weighted(Recorder):
    """A run in which every neuron has the same weight; hears the slope at each one's own weight, row by row."""

    hears_neurons = True

    def __init__(self, runner: NodeRunner, alpha: float) -> None:
        self.runner, self.alpha = runner, alpha
        self.slopes: dict[int, Tensor] = {}  # by layer [row, d_mlp]
        self.open = True  # checkpointing runs blocks again: only the first run is heard
        self._difference: Tensor | None = None

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        own = in_stream(self.runner.anatomy.blocks[layer], hidden, written)
        self._difference = own - working(self.runner.mlps[layer])

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        block, difference = self.runner.anatomy.blocks[layer], self._difference
        assert difference is not None
        out = m - (1 - self.alpha) * written_by(block, difference.to(m.dtype))
        if self.open:
            self._listen(layer, out, difference.detach())
        return out

    def _listen(self, layer: int, out: Residual, difference: Tensor) -> None:
        block, width = self.runner.anatomy.blocks[layer], self.runner.grain.full.shape[1]

        def receive(gradient: Tensor) -> None:
            slopes = (difference * from_stream(block, working(gradient))).sum(1).double().cpu()
            self.slopes[layer] = torch.nn.functional.pad(slopes, (0, width - slopes.shape[1]))

        out.register_hook(receive)

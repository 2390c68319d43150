"""Runs in which nodes give a multiple of their own output: factors are real weights of nodes under zero ablation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp import ranks
from interp.kernels.batching import Batch, budget_of, own_batches, refuse_nan, run_shared
from interp.kernels.stacked import NodeGrain
from interp.objectives import Objective
from interp.run import Run


@torch.no_grad()
def scaled_values(
    grain: NodeGrain,
    factors: Float[Tensor, "scaling ... unit"],
    objectives: Sequence[Objective],
    run: Run,
    advance: Callable[[float], None] = lambda n: None,
) -> Float[Tensor, "objective scaling_and_clean n"]:
    """Objectives by prompt: of the model as it is, then with every node's output times its factor, at all positions.

    What a node computes in the very run is scaled. Cost: a forward pass for each scaling, and one of the clean prompts.
    `advance` is called with prompts x scalings done. Raises `InputError` where an objective is NaN.
    """
    anatomy, prompts = grain.anatomy, grain.prompts
    dtype = torch.float64 if anatomy.dtype == torch.float64 else torch.float32
    values = torch.zeros(len(objectives), 1 + len(factors), len(prompts), dtype=dtype, device="cpu")
    fitting = budget_of(anatomy.device, run.memory, anatomy.streams) // (prompts.longest * grain.row_bytes())
    told = ranks.for_all(advance)

    def work(batch: Batch) -> None:
        runner = grain.runner(batch)
        for row in range(1 + len(factors)):
            logits = runner.clean_logits if row == 0 else runner.logits(factors[row - 1][None].to(dtype))[0]
            for number, objective in enumerate(objectives):
                one = objective(logits, batch.prompts, runner.clean_logits)
                refuse_nan(one, objective.name, batch)
                values[number, row, list(batch.indices)] = one.to(dtype).cpu()
        told(len(batch) * len(factors))

    size = run.batch_size or max(1, min(len(prompts), fitting))
    run_shared(own_batches(prompts, size, anatomy.device, skip_prefix=False), work)
    ranks.add(values)
    return values

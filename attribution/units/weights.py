"""Scores of nodes inside a circuit: gradients with respect to nodes' weights, at a circuit or on the way to it.

    score(p) = sum over points of  weight * dM/dw[p]  at  w = alpha * mask

A node of weight w gives w times its own output and 1 - w times its counterfactual (`interp.kernels.nodes`). Along
[0, 1] the scores of the circuit's nodes add up to M(circuit) - M(empty circuit); a node outside is scored by what a
little of it would bring. Means over prompts, or prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.over_prompts import mean_over_prompts
from interp import ranks
from interp.errors import InputError
from interp.kernels.batching import Batch, Plan, make_batches, plan, refuse_nan, run_batches
from interp.kernels.stacked import NodeGrain, StackedRunner
from interp.mlps import Mixture
from interp.node_mask import OF_NEURONS, NodeMask, Spans
from interp.setting import Setting

Points = Sequence[tuple[float, float]]  # (alpha, weight)


def inside_node_scores(setting: Setting, mask: NodeMask, points: Points) -> Float[Tensor, "*axes"]:
    """Scores of all nodes of the mask's level, in the circuit and outside: means over prompts, float32 or float64.

    Cost: a clean and a corrupted forward pass, and a forward and a backward pass for each point. Raises `InputError`
    for neurons and experts of a mixture, whose own module takes no gradients there.
    """
    grain, inside, planned = _ready(setting, mask)

    def summed(batch: Batch) -> Tensor:
        runner = grain.runner(batch)
        found = torch.zeros(inside.shape, dtype=torch.float64, device="cpu")
        for alpha, weight in points:
            found += weight * _slopes(setting, runner, alpha * inside, planned.checkpointed)
            told(len(batch) / len(points))
        return found

    skip = setting.skip_prefix
    bars = setting.run.progress(f"scoring {mask.level}s by their weights", len(setting))
    with bars as bar, torch.inference_mode(False):
        told = ranks.for_all(bar.advance)
        return mean_over_prompts(setting, planned.batch_size, summed, skip_prefix=skip)


def node_scores_by_prompt(setting: Setting, mask: NodeMask, points: Points) -> Float[Tensor, "prompt ... unit"]:
    """The same of each prompt (and all of its answers); float64, on the CPU. Cost and errors as there."""
    grain, inside, planned = _ready(setting, mask)
    found = torch.zeros(len(setting), *inside.shape, dtype=torch.float64, device="cpu")

    def work(batch: Batch) -> None:
        runner, each = grain.runner(batch), inside.expand(len(batch), *inside.shape)
        found[list(batch.indices)] = sum(
            (
                weight * _slopes(setting, runner, alpha * each, planned.checkpointed, apart=True)
                for alpha, weight in points
            ),
            start=torch.zeros(each.shape, dtype=torch.float64, device="cpu"),
        )

    skip = setting.skip_prefix
    with torch.inference_mode(False):
        run_batches(make_batches(setting.prompts, planned.batch_size, setting.anatomy.device, skip_prefix=skip), work)
    return found


def _ready(setting: Setting, mask: NodeMask) -> tuple[NodeGrain, Float[Tensor, "*axes"], Plan]:
    """What runs the mask's level, the mask in the dtype of its weights, and how prompts are batched."""
    if mask.level in OF_NEURONS:
        refuse_mixtures(setting, mask.level)
    grain = setting.nodes(mask.level, mask.spans)
    run, length = setting.run, setting.prompts.longest
    planned = plan(setting.anatomy, len(setting), length, batch_size=run.batch_size, memory=run.memory)
    wide = torch.float64 if setting.anatomy.dtype == torch.float64 else torch.float32
    return grain, mask.check(grain.full, setting.anatomy.name).to(wide), planned


def refuse_mixtures(setting: Setting, level: str) -> None:
    """Raise `InputError` for a mixture of experts, whose neurons and experts have no weights to take gradients at."""
    if any(isinstance(block.mlp, Mixture) for block in setting.anatomy.blocks):
        raise InputError(
            f"{level}s of a mixture of experts have no weights to take gradients at; use method='eap-ig' or 'relp'"
        )


def _slopes(
    setting: Setting, runner: StackedRunner, weights: Float[Tensor, "*axes"], checkpointed: bool, apart: bool = False
) -> Float[Tensor, "*axes"]:
    """dM/dw, summed over the prompts of a batch, or `apart` with weights `[prompt, *axes]` of each."""
    goal, batch = setting.goal, runner.batch
    clean = runner.clean_logits if goal.needs_clean else None
    with torch.enable_grad():
        leaf = weights.to(setting.anatomy.device).requires_grad_()
        logits = runner.logits_apart(leaf, checkpointed) if apart else runner.logits(leaf[None], checkpointed)[0]
        values = goal(logits, batch.prompts, clean)
        refuse_nan(values, goal.name, batch)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return gradient.double().cpu()


def full_circuit(setting: Setting, level: str, spans: Spans = None) -> NodeMask:
    """All nodes of a level."""
    return NodeMask(setting.nodes(level, spans).full, level, spans)

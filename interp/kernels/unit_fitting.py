"""Fitting the constants of neurons or features under `ablation="optimal"`, all of them together.

    a* = argmin over a of  E over prompts and circuits C of  KL(model || model in which what is not in C gives a)

A model has too many neurons for a run with each alone replaced, so circuits are drawn: for each prompt a share of nodes
between none and all, evenly, and so many nodes at random. Constants start at means over clean positions; at the first
position they stay there, as for sources (`interp.kernels.fitting`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.kernels.batching import Batch, make_batches, plan, refuse_nan, run_batches
from interp.kernels.fitting import Fitting, descend, shifted, two_rows
from interp.kernels.stacked import NodeGrain
from interp.kernels.unit_constants import UnitConstants, by_position
from interp.objectives import get_objective
from interp.parts import working
from interp.progress import Bar
from interp.run import Run
from interp.tasks.prompts import Prompts

_JUDGED = 4  # circuits of each prompt that decide whether the fit was of use

Parts = list[Float[Tensor, "2 ..."]]


def fit_units(grain: NodeGrain, fitting: Fitting, run: Run) -> UnitConstants:
    """The constants of all units of a grain, on its clean prompts.

    They stay means where the fit does not lower the loss on all prompts. Cost: two forward passes over all prompts, one
    forward and backward pass for each of `fitting.prompts` x `fitting.steps` prompts, and `2 * _JUDGED` forward passes
    over all prompts. Raises `InputError` where the loss is NaN.
    """
    start, spread = _moments(grain)
    moved = [torch.zeros_like(rows[1:]) for rows in start]  # in units of the spread
    generator = torch.Generator(device="cpu").manual_seed(fitting.seed)
    prompts = grain.prompts
    judges = _drawn(grain.full, _JUDGED * len(prompts), generator).unflatten(0, (_JUDGED, -1))

    def now() -> Parts:
        return [shifted(*one) for one in zip(start, moved, spread, strict=True)]

    def slopes(chosen: list[int]) -> Sequence[Tensor]:
        masks = _drawn(grain.full, len(chosen), generator)
        found = _slopes(grain, prompts.select(chosen), masks, now(), run)
        return [slope * scale for slope, scale in zip(found, spread, strict=True)]

    with run.progress(f"fitting constants of {grain.level}s", fitting.steps + 2) as bar, torch.inference_mode(False):
        before = _loss(grain, judges, start, run, bar)
        descend(moved, slopes, fitting, len(prompts), bar)
        after = _loss(grain, judges, now(), run, bar)
    kept = now() if after < before else start
    losses = torch.tensor([[before], [min(before, after)]], dtype=torch.float64, device="cpu")
    return grain.constants(kept, losses)


def _moments(grain: NodeGrain) -> tuple[Parts, Parts]:
    """Means at the first and over all further real positions, and how far units are from the latter."""
    dtype = working(grain.anatomy.parameter()[:0]).dtype
    means = [two_rows(total, grain.prompts) for total in grain.totals(working)]
    squares = [two_rows(total, grain.prompts) for total in grain.totals(lambda x: working(x).square())]
    spread = [
        (square - mean.square())[1:].clamp(min=0).sqrt().to(dtype) for square, mean in zip(squares, means, strict=True)
    ]
    return [mean.to(dtype) for mean in means], spread


def _drawn(full: Bool[Tensor, "*axes"], n: int, generator: torch.Generator) -> Bool[Tensor, "circuit ..."]:
    """Circuits at random, of all sizes alike."""
    shares = torch.rand(n, generator=generator, dtype=torch.float32, device="cpu").reshape(-1, *[1] * full.ndim)
    drawn = torch.rand(n, *full.shape, generator=generator, dtype=torch.float32, device="cpu")
    return (drawn < shares) & full


def _run(
    grain: NodeGrain, prompts: Prompts, run: Run, work: Callable[[Batch, Callable[[Parts, Tensor], Tensor]], None]
) -> None:
    """Call `work` on each batch, with what gives the loss of each of its prompts under constants and masks."""
    anatomy = grain.anatomy
    planned = plan(anatomy, len(prompts), prompts.longest, batch_size=run.batch_size, memory=run.memory)
    kl, length = get_objective("kl"), prompts.clean.shape[1]

    def each(batch: Batch) -> None:
        runner = grain.runner(batch)

        def losses(values: Parts, masks: Tensor) -> Float[Tensor, " batch"]:
            runner.give([by_position(one, length) for one in values])
            logits = runner.logits_apart(masks[list(batch.indices)], planned.checkpointed)
            found = -kl(logits, batch.prompts, runner.clean_logits)
            refuse_nan(found, "kl", batch)
            return found

        work(batch, losses)

    run_batches(make_batches(prompts, planned.batch_size, anatomy.device, skip_prefix=False), each)


def _slopes(grain: NodeGrain, prompts: Prompts, masks: Tensor, values: Parts, run: Run) -> Parts:
    """The gradient of the mean loss at the constants of further positions."""
    total = [torch.zeros_like(one[1:]) for one in values]

    def work(batch: Batch, losses: Callable[[Parts, Tensor], Tensor]) -> None:
        with torch.enable_grad():
            leaves = [one[1:].detach().requires_grad_() for one in values]
            whole = [torch.cat((one[:1], leaf)) for one, leaf in zip(values, leaves, strict=True)]
            found = torch.autograd.grad(losses(whole, masks).sum(), leaves, allow_unused=True, materialize_grads=True)
        for one, slope in zip(total, found, strict=True):
            one.add_(slope, alpha=1 / len(prompts))

    _run(grain, prompts, run, work)
    return total


@torch.no_grad()
def _loss(grain: NodeGrain, judges: Bool[Tensor, "draw prompt ..."], values: Parts, run: Run, bar: Bar) -> float:
    """The mean over all prompts and some circuits of each."""
    sums: list[float] = []

    def work(batch: Batch, losses: Callable[[Parts, Tensor], Tensor]) -> None:
        sums.append(sum(float(losses(values, masks).double().sum()) for masks in judges))

    _run(grain, grain.prompts, run, work)
    bar.advance(1)
    return sum(sums) / judges.shape[:2].numel()

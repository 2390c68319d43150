"""Fitting the constants of `ablation="optimal"` (Li and Janson 2024, arXiv:2409.09951).

    a*_u = argmin over a of  mean over prompts of KL(model || model in which source u alone gives a)  at the answer

Each source is fitted with all others alive, from its mean over clean positions. As in the paper the first position,
where attention rests and most prompts have their beginning-of-sequence token, is not ablated: there a source gives its
mean over prompts at that position, which is its clean value where all prompts begin with the same token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.kernels.batching import Batch, draws, make_batches, plan, run_batches
from interp.kernels.capture import Sources
from interp.kernels.constants import Constants
from interp.kernels.replacing import Group, Replacing, groups
from interp.kernels.source_means import source_totals
from interp.parts import working
from interp.progress import Bar
from interp.run import Run
from interp.tasks.prompts import Prompts

_ROWS = 256  # rows (copies x prompts x positions) beyond which stacking more brings no speed


@dataclass(frozen=True)
class Fitting:
    """How constants are fitted; checks itself.

    Attributes:
        steps: steps of Adam.
        prompts: prompts in each step, drawn anew until all were seen.
        rate: length of the first step of each coordinate, in units of the spread of its source's outputs; it falls to
            0 by half a cosine.
        seed: of the draws.
    """

    steps: int = 40
    prompts: int = 8
    rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        numbers.settle(
            self, steps=numbers.Limits(1, advice="40 is usual"), prompts=numbers.COUNT, rate=numbers.POSITIVE
        )


def fit(anatomy: Anatomy, prompts: Prompts, fitting: Fitting, run: Run) -> Constants:
    """The constants of all sources on clean `prompts`.

    A source keeps its mean where the fit does not lower its loss on all prompts. Cost: two forward passes over all
    prompts, and for `fitting.prompts` x `fitting.steps` prompts forward and backward through what lies behind each
    source (about half the model, for every source), and twice forward for all prompts. Raises `InputError` where the
    loss is NaN.
    """
    start, spread = _moments(anatomy, prompts, run)
    moved = start.each(lambda rows: torch.zeros_like(rows[1:]))  # in units of the spread

    def now() -> Sources:
        return start.beside(shifted, moved, spread)

    def slopes(chosen: list[int]) -> Sequence[Tensor]:
        found = _slopes(anatomy, prompts.select(chosen), now(), run).beside(torch.mul, spread)
        return found.embedding, *found.heads, *found.mlps

    with run.progress("fitting constants", fitting.steps + 2) as bar, torch.inference_mode(False):
        before = _losses(anatomy, prompts, start, run, bar)
        descend([moved.embedding, *moved.heads, *moved.mlps], slopes, fitting, len(prompts), bar)
        fitted = now()
        after = _losses(anatomy, prompts, fitted, run, bar)
    values = _better(anatomy, start, fitted, after < before)
    kept = torch.minimum(before, after)
    return Constants.of(values, torch.stack((before, kept)), anatomy)


def descend(
    parameters: Sequence[Tensor],
    slopes: Callable[[list[int]], Sequence[Tensor]],
    fitting: Fitting,
    n_prompts: int,
    bar: Bar,
) -> None:
    """Adam on `parameters`, in place: `slopes` gives their gradients on some prompts, by number."""
    with torch.device("cpu"):  # Adam counts its steps on the default device
        optimiser = torch.optim.Adam(parameters, lr=fitting.rate, betas=(0.9, 0.95), eps=1e-10)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, fitting.steps)
    generator = torch.Generator(device="cpu").manual_seed(fitting.seed)
    for chosen in draws(n_prompts, fitting.prompts, fitting.steps, generator):
        for parameter, slope in zip(parameters, slopes(chosen), strict=True):
            parameter.grad = slope
        with torch.device("cpu"):
            optimiser.step()
            rates.step()
        bar.advance(1)


def two_rows(total: Float[Tensor, "pos ..."], prompts: Prompts) -> Float[Tensor, "2 ..."]:
    """Means at the first and over all further real positions, from sums by position."""
    counts = prompts.mask.sum(0).to(total.device)
    further = total[1:].sum(0) / counts[1:].sum().clamp(min=1)
    return torch.stack((total[0] / counts[0], further))


def shifted(rows: Tensor, change: Tensor, scale: Tensor) -> Tensor:
    """Constants, from how far those of further positions have moved."""
    return torch.cat((rows[:1], rows[1:] + change.detach() * scale))


def _moments(anatomy: Anatomy, prompts: Prompts, run: Run) -> tuple[Sources, Sources]:
    """Means at the first and over all further real positions [2, ...], and how far outputs are from the latter."""
    dtype = working(anatomy.parameter()[:0]).dtype

    def two(total: Tensor) -> Tensor:
        return two_rows(total, prompts)

    sums = source_totals(anatomy, prompts, run.batch_size, run.memory).each(two)
    squares = source_totals(anatomy, prompts, run.batch_size, run.memory, lambda x: working(x).square()).each(two)

    def spread(square: Tensor, mean: Tensor) -> Tensor:
        return (square - mean.square())[1:].clamp(min=0).mean(-1, keepdim=True).sqrt().to(dtype)

    return sums.each(lambda rows: rows.to(dtype)), squares.beside(spread, sums)


def _batches(anatomy: Anatomy, prompts: Prompts, run: Run) -> tuple[Iterator[Batch], int, bool]:
    """Batches, how many sources are stacked, and whether activations are computed again."""
    length = prompts.clean.shape[1]
    planned = plan(
        anatomy, len(prompts), prompts.longest, copies=anatomy.n_heads, batch_size=run.batch_size, memory=run.memory
    )
    batches = make_batches(prompts, planned.batch_size, anatomy.device, skip_prefix=False)
    copies = max(1, min(planned.copies, _ROWS // (planned.batch_size * length)))
    return batches, copies if anatomy.device.type == "cpu" else planned.copies, planned.checkpointed


def _slopes(anatomy: Anatomy, prompts: Prompts, constants: Sources, run: Run) -> Sources:
    """The gradient of each source's mean loss at its own constant, [1, ...]."""
    total = constants.each(lambda rows: torch.zeros_like(rows[1:]))
    batches, copies, checkpointed = _batches(anatomy, prompts, run)

    def work(batch: Batch) -> None:
        replacing, found = Replacing(anatomy, batch, checkpointed), list[tuple[Group, Tensor]]()
        for group in groups(anatomy, copies):
            own = group.of(constants)
            with torch.enable_grad():
                leaf = own[1:].detach().requires_grad_()
                loss = replacing.losses(group, torch.cat((own[:1], leaf))).sum()
                found.append((group, torch.autograd.grad(loss, leaf)[0]))
        for group, slope in found:
            group.of(total).add_(slope, alpha=1 / len(prompts))

    run_batches(batches, work)
    return total


@torch.no_grad()
def _losses(anatomy: Anatomy, prompts: Prompts, constants: Sources, run: Run, bar: Bar) -> Float[Tensor, " source"]:
    """The mean loss of each source, in the order of the graph, on the CPU."""
    batches, copies, checkpointed = _batches(anatomy, prompts, run)
    sums: list[Tensor] = []

    def work(batch: Batch) -> None:
        replacing = Replacing(anatomy, batch, checkpointed)
        each = [replacing.losses(group, group.of(constants)).sum(1) for group in groups(anatomy, copies)]
        sums.append(torch.cat(each).double().cpu())

    run_batches(batches, work)
    bar.advance(1)
    return torch.stack(sums).sum(0) / len(prompts)


def _better(anatomy: Anatomy, start: Sources, fitted: Sources, lower: Tensor) -> Sources:
    """Fitted constants where their loss is lower, means elsewhere."""
    chosen = fitted.each(torch.clone)
    for number, group in enumerate(groups(anatomy, 1)):
        if not lower[number]:
            group.of(chosen).copy_(group.of(start))
    return chosen

"""Batches: prompts that are run together, within a memory budget, and what to do when one does not fit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers, ranks
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.kernels.forward import prepare
from interp.kernels.frame import Frame
from interp.streaming.folders import memory_available
from interp.tasks.prompts import Prompts

DEFAULT_BUDGET = 1 << 30  # bytes; larger batches bring no speed on a CPU


@dataclass(frozen=True)
class Batch:
    """Some prompts of a task: `indices` into it, and the first position that has to be run."""

    indices: tuple[int, ...]
    prompts: Prompts
    start: int

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def n_rows(self) -> int:
        """How many rows of tokens are run: more than prompts where an answer has several tokens."""
        return self.prompts.n_rows

    @property
    def n_positions(self) -> int:
        """How many positions of each row are run."""
        return self.prompts.clean.shape[1] - self.start

    def frame(self, anatomy: Anatomy) -> Frame:
        """The frame in which both the clean and the corrupted prompts run."""
        return prepare(anatomy, self.prompts.clean, self.start, self.prompts.lengths, self.prompts.answers)

    def rows(self) -> Tensor:
        """Flat indices into [batch, pos] of the positions that can matter.

        Not padding, and, where a shared prefix is skipped, not before the first difference.
        """
        positions = torch.arange(self.start, self.prompts.clean.shape[1], device=self.prompts.device)
        real = positions < self.prompts.lengths[:, None]
        if self.start:
            real &= positions >= self.prompts.first_difference[:, None]
        return real.flatten().nonzero()[:, 0]

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the size."""
        middle = len(self) // 2
        first, second = list(range(middle)), list(range(middle, len(self)))
        return self._part(first), self._part(second)

    def _part(self, chosen: list[int]) -> Batch:
        indices = tuple(self.indices[i] for i in chosen)
        return Batch(indices, self.prompts.select(chosen), self.start)


@dataclass(frozen=True)
class Plan:
    """How many prompts, and how many stacked copies of them, run at once."""

    batch_size: int
    copies: int
    checkpointed: bool


def check_batch_size(batch_size: int | None) -> None:
    """Raise `InputError` unless the batch size is None or at least 1."""
    if batch_size is not None:
        numbers.whole("batch_size", batch_size, numbers.COMMON["batch_size"])


def budget_of(device: torch.device, memory: int | None, streams: bool = False) -> int:
    """Bytes that a batch may take: `memory`, or half of what the device has free, at most 1 GiB on a CPU.

    Where weights stream on a CPU an eighth of what is free, if that is more: each batch costs a pass over the files.
    """
    if memory is not None:
        return numbers.whole("memory", memory, numbers.COMMON["memory"])
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return max(DEFAULT_BUDGET, int(memory_available(device) // 8)) if streams else DEFAULT_BUDGET


def bytes_per_position(anatomy: Anatomy, *, gradient: bool, checkpointed: bool = False) -> int:
    """What one position of one prompt takes in a pass: activations of all layers with gradients on, and
    what is recorded at sources and targets; with checkpointing the activations of one layer.
    """
    heads = anatomy.n_heads * anatomy.d_head
    recorded = 4 * anatomy.d_model + 4 * heads
    block = 12 * anatomy.d_model + 12 * heads + 5 * anatomy.d_mlp
    if not gradient:
        floats = block + anatomy.n_layers * (heads + anatomy.d_model)
    elif checkpointed:
        floats = block + anatomy.n_layers * (recorded + anatomy.d_model)
    else:
        floats = anatomy.n_layers * (recorded + block)
    return floats * anatomy.parameter().element_size()


def plan(
    anatomy: Anatomy,
    n_prompts: int,
    n_positions: int,
    *,
    copies: int = 1,
    batch_size: int | None = None,
    checkpointed: bool | None = None,
    memory: int | None = None,
) -> Plan:
    """Choose batch size, stacked copies and checkpointing so that a gradient pass keeps to the budget.

    Checkpointing goes on by itself when a single prompt would not fit without it, and where weights stream when not
    all prompts would: passes over the files cost more than computing activations again.
    """
    check_batch_size(batch_size)
    budget = budget_of(anatomy.device, memory, anatomy.streams)
    scores = anatomy.n_heads * n_positions**2 * anatomy.parameter().element_size()
    softcapped = any(block.softcap is not None for block in anatomy.blocks)

    def prompt_bytes(recompute: bool) -> int:
        attention = scores * 4 * (1 if recompute else anatomy.n_layers) if softcapped else 0
        return n_positions * bytes_per_position(anatomy, gradient=True, checkpointed=recompute) + attention

    together = (batch_size or n_prompts) * copies if anatomy.streams else batch_size or 1
    recompute = checkpointed if checkpointed is not None else prompt_bytes(False) * together > budget
    fitting = max(1, budget // prompt_bytes(recompute))
    size = batch_size or min(n_prompts, fitting)
    return Plan(size, max(1, min(copies, fitting // size)), recompute)


def draws(n: int, size: int, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """For each step the numbers of `size` prompts: all `n` in a drawn order, and again in another."""
    waiting: list[int] = []
    for _ in range(steps):
        if len(waiting) < min(n, size):
            waiting += torch.randperm(n, generator=generator, device="cpu").tolist()
        chosen, waiting = waiting[: min(n, size)], waiting[min(n, size) :]
        yield sorted(set(chosen))


def make_batches(prompts: Prompts, size: int, device: torch.device, *, skip_prefix: bool) -> Iterator[Batch]:
    """Prompts in batches of like length and like shared prefix; every prompt is in exactly one."""
    yield from _batches(prompts, in_order(prompts), size, device, skip_prefix)


def in_order(prompts: Prompts) -> list[int]:
    """Numbers of the prompts, those of like length and like shared prefix beside each other."""
    rows = list(range(len(prompts))) if prompts.answers is None else prompts.answers.first.tolist()
    return sorted(
        range(len(prompts)), key=lambda i: (int(prompts.lengths[rows[i]]), int(prompts.first_difference[rows[i]]), i)
    )


def _batches(prompts: Prompts, order: list[int], size: int, device: torch.device, skip_prefix: bool) -> Iterator[Batch]:
    for first in range(0, len(order), size):
        indices = order[first : first + size]
        chosen = prompts.select(indices)
        start = int(chosen.first_run.min()) if skip_prefix else 0
        yield Batch(tuple(indices), chosen.to(device), start)


def own_batches(prompts: Prompts, size: int, device: torch.device, *, skip_prefix: bool) -> Iterator[Batch]:
    """The batches of this rank's share of the prompts (`interp.ranks`): of all of them where there is one rank."""
    yield from _batches(prompts, ranks.share(in_order(prompts)), size, device, skip_prefix)


def run_shared(batches: Iterator[Batch], work: Callable[[Batch], None]) -> None:
    """`run_batches` on `own_batches`: an error on one rank is raised on all. Sums are then to be added up."""
    with ranks.together():
        run_batches(batches, work)


def run_batches(batches: Iterator[Batch], work: Callable[[Batch], None]) -> None:
    """Call `work` on each batch; one that does not fit into memory is halved and tried again.

    `work` must add its result only when it is done, so that what other batches gave is kept.
    """
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        while waiting:
            current = waiting.pop()
            try:
                work(current)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(current) == 1:
                    raise InputError(
                        "a single prompt does not fit into memory; use shorter prompts, checkpointed=True, "
                        "a smaller dtype, or a device with more memory"
                    ) from error
                waiting += reversed(current.halves())
            else:
                continue
            free_memory()  # outside the handler: the exception holds the failed run's tensors


def refuse_nan(values: Float[Tensor, "... batch"], objective: str, batch: Batch) -> None:
    """Raise `InputError` if the objective of a prompt is NaN."""
    bad = values.isnan().reshape(-1, len(batch)).any(0)
    if bad.any():
        index = batch.indices[int(bad.nonzero()[0])]
        raise InputError(
            f"objective={objective!r} is NaN on prompt {index}; check that prompt, "
            "and the model's dtype (float16 overflows easily: try bfloat16 or float32)"
        )


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory ran out, on a CPU or a GPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def free_memory() -> None:
    """Give back what a failed run held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

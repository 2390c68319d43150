"""Objectives of circuits over all prompts of a task, batch by batch.

A `Meter` keeps what all circuits over the same prompts share: the clean, the corrupted and the empty run of each
batch, as far as a part of the memory budget holds them, and the objectives of circuits that it has measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import ranks
from interp.keeping import kept
from interp.kernels.batching import (
    Batch,
    budget_of,
    check_batch_size,
    own_batches,
    refuse_nan,
    run_shared,
)
from interp.kernels.grain import BatchRunner, Grain
from interp.objectives import Objective
from interp.tasks.prompts import Prompts

# rows (prompts x positions) beyond which stacking more circuits brings no speed
_ROWS_STACKED = 256
_KEPT = 4  # this part of the budget holds runs for later circuits

Masks = Bool[Tensor, "circuit *mask"]
Values = Float[Tensor, "... n"]


@kept
@dataclass(frozen=True)
class CircuitValues:
    """Objectives per prompt, in the order of the prompts; float32 (float64 for a float64 model), on the CPU."""

    clean: Float[Tensor, " n"]
    empty: Float[Tensor, " n"]
    circuits: Float[Tensor, "circuit n"]

    def only(self, chosen: slice | Sequence[int]) -> CircuitValues:
        """The same of some of the circuits."""
        return CircuitValues(self.clean, self.empty, self.circuits[chosen])


@dataclass(eq=False)
class Meter:
    """Measures circuits over some prompts under one ablation; nothing is measured twice.

    `batch_size` and `memory` as in `Run`.
    """

    grain: Grain
    prompts: Prompts
    batch_size: int | None = None
    memory: int | None = None
    _known: dict[tuple[Objective, bytes], Values] = field(default_factory=dict)  # b"clean" is the model itself
    _runners: dict[tuple[int, ...], BatchRunner] = field(default_factory=dict)
    _kept: int = 0  # bytes that the runners hold

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)

    def values(
        self,
        masks: Masks,
        objectives: Sequence[Objective],
        advance: Callable[[float], None] = lambda n: None,
    ) -> list[CircuitValues]:
        """For each objective its values for the clean model, the empty circuit and each circuit, prompt by prompt.

        Cost per batch: a clean and a corrupted forward pass where they are not kept, and for each circuit that was not
        measured before at most one forward pass plus one product of its mask with the sources' differences.
        `advance` is called with prompts x circuits done. Raises `InputError` where an objective is NaN.
        """
        empty = self.grain.empty()
        keys = [_CLEAN, _key(empty), *map(_key, masks)]
        wanted = {
            key: mask
            for key, mask in zip(keys, (None, empty, *masks), strict=True)
            if any((objective, key) not in self._known for objective in objectives)
        }
        circuits = {key: mask for key, mask in wanted.items() if mask is not None}
        advance(len(self.prompts) * (len(masks) - sum(key in circuits for key in set(keys[2:]))))
        if wanted:
            self._measure(circuits, objectives, advance)
        return [
            CircuitValues(found[0], found[1], torch.stack(found[2:]) if len(masks) else found[0][None][:0])
            for found in ([self._known[objective, key] for key in keys] for objective in objectives)
        ]

    def worth_stacking(self) -> int:
        """How many circuits may be run together and each still cost less than alone."""
        return max(1, _ROWS_STACKED // self.prompts.clean.numel())

    def _measure(
        self, circuits: dict[bytes, Tensor], objectives: Sequence[Objective], advance: Callable[[float], None]
    ) -> None:
        """Run circuits, and the clean model, and keep their values; each rank runs its share of the prompts."""
        anatomy = self.grain.anatomy
        dtype = torch.float64 if anatomy.dtype == torch.float64 else torch.float32
        keys = [_CLEAN, *circuits]
        masks = torch.stack([*circuits.values()]) if circuits else self.grain.empty()[None][:0]
        masks = masks.to(anatomy.device)
        used = self.grain.sizes(masks)
        order = sorted(range(len(masks)), key=lambda i: used[i])
        values = torch.zeros(len(objectives), len(keys), len(self.prompts), dtype=dtype, device="cpu")
        budget = budget_of(anatomy.device, self.memory, anatomy.streams)

        told = ranks.for_all(advance)

        def work(batch: Batch) -> None:
            runner = self._runner(batch, budget)
            here = list(batch.indices)

            def measure(row: int, logits: Tensor) -> None:
                for number, objective in enumerate(objectives):
                    one = objective(logits, batch.prompts, runner.clean_logits)
                    refuse_nan(one, objective.name, batch)
                    values[number, row, here] = one.to(dtype).cpu()

            measure(0, runner.clean_logits)
            rows = batch.n_rows * batch.n_positions
            for group in _stacks(order, used, rows, budget, self.grain):
                for index, logits in zip(group, runner.logits(masks[group]), strict=True):
                    measure(index + 1, logits)
                told(len(batch) * len(group))

        with torch.no_grad():
            run_shared(self._batches(budget), work)
        ranks.add(values)
        for number, objective in enumerate(objectives):
            self._known.update({(objective, key): values[number, row] for row, key in enumerate(keys)})

    def _batches(self, budget: int) -> Iterator[Batch]:
        """The same batches for every circuit, so that their runs can be kept: the full circuit fits too."""
        row = self.grain.row_bytes()
        fitting = max(1, min(len(self.prompts), budget // (self.prompts.longest * row)))
        size, skip = self.batch_size or fitting, self.grain.ablator.skip_prefix
        return own_batches(self.prompts, size, self.grain.anatomy.device, skip_prefix=skip)

    def _runner(self, batch: Batch, budget: int) -> BatchRunner:
        runner = self._runners.get(batch.indices)
        if runner is None:
            runner = self.grain.runner(batch)
            size = runner.n_bytes()
            if self._kept + size <= budget // _KEPT:
                self._runners[batch.indices] = runner
                self._kept += size
        return runner


_CLEAN = b"clean"


def _key(mask: Bool[Tensor, "*mask"]) -> bytes:
    return hashlib.sha256(np.packbits(mask.cpu().numpy()).tobytes()).digest()


def _stacks(order: list[int], used: Sequence[int], rows: int, budget: int, grain: Grain) -> Iterator[list[int]]:
    """Circuits in groups of like size that are run together."""
    group: list[int] = []
    for index in order:
        taken = (len(group) + 1) * rows * grain.row_bytes(used[index])
        if group and (taken > budget or (len(group) + 1) * rows > _ROWS_STACKED):
            yield group
            group = []
        group.append(index)
    if group:
        yield group

"""Objectives of circuits over all prompts of a task, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator
from interp.kernels.batching import (
    Batch,
    budget_of,
    bytes_per_position,
    check_batch_size,
    make_batches,
    refuse_nan,
    run_batches,
)
from interp.kernels.circuit import CircuitRunner
from interp.kernels.reach import live_edges
from interp.objectives import Objective
from interp.tasks.prompts import Prompts

# rows (prompts x positions) beyond which stacking more circuits brings no speed
_ROWS_STACKED = 256


@dataclass(frozen=True)
class CircuitValues:
    """Objectives per prompt, in the order of the prompts; float32 (float64 for a float64 model), on the CPU."""

    clean: Float[Tensor, " n"]
    empty: Float[Tensor, " n"]
    circuits: Float[Tensor, "circuit n"]


def circuit_values(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    prompts: Prompts,
    masks: Bool[Tensor, "circuit source target"],
    ablator: Ablator,
    objective: Objective,
    *,
    batch_size: int | None = None,
    memory: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> CircuitValues:
    """The objective of the clean model, of the empty circuit and of each circuit, prompt by prompt.

    Cost per batch: a clean and a corrupted forward pass, and for each circuit at most one forward pass plus one
    product of its mask with the sources' differences. `advance` is called with prompts x circuits done. Raises
    `InputError` where the objective is NaN.
    """
    (values,) = circuit_values_of_all(
        anatomy, graph, prompts, masks, ablator, (objective,), batch_size=batch_size, memory=memory, advance=advance
    )
    return values


def circuit_values_of_all(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    prompts: Prompts,
    masks: Bool[Tensor, "circuit source target"],
    ablator: Ablator,
    objectives: Sequence[Objective],
    *,
    batch_size: int | None = None,
    memory: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> list[CircuitValues]:
    """The same for several objectives, all of the same logits: every circuit is run once."""
    check_batch_size(batch_size)
    masks = masks.to(anatomy.device)
    live = live_edges(masks, graph, from_input=ablator.ablation == "patch", coupled=anatomy.coupled_heads)
    used = live.any(2).sum(1)
    order = sorted(range(len(masks)), key=lambda i: int(used[i]))
    dtype = torch.float64 if anatomy.dtype == torch.float64 else torch.float32
    values = torch.zeros(len(objectives), len(masks) + 2, len(prompts), dtype=dtype, device="cpu")
    budget = budget_of(anatomy.device, memory)
    widest = int(used.max()) if len(masks) else 0

    def work(batch: Batch) -> None:
        runner = CircuitRunner(anatomy, graph, ablator, batch)
        here = list(batch.indices)

        def measure(row: int, logits: Tensor) -> None:
            for number, objective in enumerate(objectives):
                one = objective(logits, batch.prompts, runner.clean_logits)
                refuse_nan(one, objective.name, batch)
                values[number, row, here] = one.to(dtype).cpu()

        measure(0, runner.clean_logits)
        measure(1, runner.logits(torch.zeros_like(graph.edge_mask)[None])[0])
        rows = len(batch) * batch.n_positions
        for group in _stacks(order, used.tolist(), rows, budget, anatomy):
            for index, logits in zip(group, runner.logits(masks[group]), strict=True):
                measure(index + 2, logits)
            advance(len(batch) * len(group))

    size = batch_size or _prompts_that_fit(anatomy, prompts, widest, budget)
    with torch.no_grad():
        run_batches(make_batches(prompts, size, anatomy.device, skip_prefix=ablator.skip_prefix), work)
    return [CircuitValues(one[0], one[1], one[2:]) for one in values]


def _row_bytes(anatomy: Anatomy, sources: int) -> int:
    """What a row takes in a circuit's run: differences of its sources, and one layer's separate inputs."""
    floats = (sources + 8 * anatomy.n_heads) * anatomy.d_model
    return 4 * floats + bytes_per_position(anatomy, gradient=False)


def _prompts_that_fit(anatomy: Anatomy, prompts: Prompts, sources: int, budget: int) -> int:
    positions = prompts.clean.shape[1]
    return max(1, min(len(prompts), budget // (positions * _row_bytes(anatomy, sources))))


def _stacks(order: list[int], used: list[int], rows: int, budget: int, anatomy: Anatomy) -> Iterator[list[int]]:
    """Circuits in groups of like size that are run together."""
    group: list[int] = []
    for index in order:
        taken = (len(group) + 1) * rows * _row_bytes(anatomy, used[index])
        if group and (taken > budget or (len(group) + 1) * rows > _ROWS_STACKED):
            yield group
            group = []
        group.append(index)
    if group:
        yield group

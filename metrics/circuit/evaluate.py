"""How well a circuit does the task alone: the objective with everything outside it ablated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.graph import KV, ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.ablation import Ablator
from interp.kernels.evaluate import CircuitValues, circuit_values_of_all
from interp.objectives import Objective, get_objective
from interp.progress import progress
from interp.running import door
from interp.setting import judged_under
from interp.tasks.task import Task
from metrics.statistics import Estimate, bootstrap


@numbers.checked()
@door
def evaluate(
    model: Any,
    task: Task,
    mask: Any,
    ablation: str | None = None,
    *,
    objective: str | Objective | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> Float[Tensor, " n"]:
    """The task's objective, prompt by prompt, with every edge outside the circuit ablated.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour.
        mask: bool `[source, target]` over the model's graph, or anything with such a `.mask` (a `Circuit`); a
            stack `[circuit, source, target]` evaluates many circuits at once and returns `[circuit, n]`.
        ablation: what an edge outside gives: `patch` (the source's value in the corrupted prompt), `zero`, `zero-token`
            (the input keeps its learned position, as in MIB), `mean` or `mean-positional` over the task's clean
            prompts. None: the one that the circuit was found under (its `.setting`), or `patch` for a bare mask.
        objective: None: the one that the circuit was found under, or the task's own for a bare mask.
        batch_size: prompts per pass; None lets the memory budget choose.
        memory: bytes a batch may take; None: 1 GiB on a CPU, half of the free memory on a GPU.
        quiet: no progress bar.

    Returns:
        float32 (float64 for a float64 model) on the CPU, in the order of the prompts.

    Raises:
        InputError: a mask of another shape or with edges that do not exist, unknown names, a NaN objective.
    """
    masks, single = _masks(mask)
    judged = judged_under(mask, task, ablation, objective)
    values = measure(
        model, task, masks, judged.ablation, objective=judged.objective,
        batch_size=batch_size, memory=memory, quiet=quiet,
    )  # fmt: skip
    return values.circuits[0] if single else values.circuits


@numbers.checked()
def measure(
    model: Any,
    task: Task,
    masks: Bool[Tensor, "circuit source target"],
    ablation: str = "patch",
    *,
    objective: str | Objective | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> CircuitValues:
    """Objectives of the clean model, of the empty circuit, and of each circuit in a stack of masks."""
    (values,) = measure_all(
        model, task, masks, ablation, objectives=(objective,), batch_size=batch_size, memory=memory, quiet=quiet
    )
    return values


@numbers.checked()
@door
def measure_all(
    model: Any,
    task: Task,
    masks: Bool[Tensor, "circuit source target"],
    ablation: str = "patch",
    *,
    objectives: Sequence[str | Objective | None],
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> list[CircuitValues]:
    """The same for several objectives (None: the task's own), at the cost of one: every circuit is run once."""
    anatomy = anatomy_of(model)
    graph = graph_of_mask(anatomy, masks)
    masks = torch.stack([graph.check_mask(one) for one in masks])
    prompts = task.prompts(model)
    ablator = Ablator.of(anatomy, ablation, prompts, batch_size, memory)
    goals = [get_objective(task.objective if objective is None else objective) for objective in objectives]
    with progress("running circuits", len(masks) * len(prompts), quiet) as bar:
        return circuit_values_of_all(
            anatomy, graph, prompts, masks, ablator, goals, batch_size=batch_size, memory=memory, advance=bar.advance
        )


def graph_of_mask(anatomy: Anatomy, mask: Tensor) -> ComputationalGraph:
    """The graph, per query head or per key-value head, that a mask or score of this shape belongs to."""
    kinds: tuple[KV, ...] = ("head", "group")
    graphs = [ComputationalGraph.of_anatomy(anatomy, kv) for kv in kinds]
    for graph in graphs:
        if tuple(mask.shape[-2:]) == graph.shape:
            return graph
    shapes = " or ".join(dict.fromkeys(str(graph.shape) for graph in graphs))
    raise InputError(
        f"mask of shape {tuple(mask.shape[-2:])} does not fit model={anatomy.name!r}, whose graph has {shapes} "
        "(sources, targets)"
    )


def checked_circuit(model: Any, mask: Any) -> tuple[ComputationalGraph, Bool[Tensor, "source target"]]:
    """The graph that a single circuit (a mask, or anything with `.mask`) belongs to, and its mask."""
    masks, single = _masks(mask)
    if not single:
        raise InputError(f"mask holds {len(masks)} circuits; this looks at one: give a mask [source, target]")
    graph = graph_of_mask(anatomy_of(model), masks)
    return graph, graph.check_mask(masks[0])


def _masks(mask: Any) -> tuple[Bool[Tensor, "circuit source target"], bool]:
    tensor = getattr(mask, "mask", mask)
    if not isinstance(tensor, Tensor) or tensor.ndim not in (2, 3):
        given = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(mask).__name__
        raise InputError(
            "mask must be a bool tensor [source, target] or [circuit, source, target], or have such a .mask; "
            f"got {given}"
        )
    return (tensor[None], True) if tensor.ndim == 2 else (tensor, False)


@numbers.checked()
def faithfulness(
    values: CircuitValues, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[Estimate]:
    """Faithfulness of each circuit: a ratio of mean objectives, prompts resampled for the interval.

    NaN where the clean model does no better than the empty circuit to rounding: there is nothing to explain.
    """
    stacked = torch.cat((values.clean[None], values.empty[None], values.circuits)).double().numpy()
    return bootstrap(stacked, faithfulness_of_means, confidence=confidence, resamples=resamples, seed=seed)


def resolution_of(values: CircuitValues) -> float:
    """Differences of objectives that count as none: a ten-thousandth of what separates model and empty circuit."""
    return 1e-4 * float((values.clean - values.empty).double().abs().mean())


def faithfulness_of_means(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[resamples, clean | empty | circuits...]` mean objectives -> `[resamples, circuits]` faithfulness."""
    return (means[:, 2:] - means[:, 1:2]) / model_gap(means)[:, None]


def model_gap(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[resamples, clean | empty | ...]` -> how far the model is above the empty circuit; NaN where it is rounding."""
    clean, empty = means[:, 0], means[:, 1]
    gap = clean - empty
    return np.where(np.abs(gap) > 1e-9 * np.maximum(np.abs(clean), np.abs(empty)), gap, np.nan)

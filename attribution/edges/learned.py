"""Learned edge masks: edge weights are optimised by gradient until few of them do what the whole model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.gradient import EAPIG
from attribution.edges.mask_ig import MaskIG
from attribution.edges.method import Method, Passes, check_objective
from attribution.edges.start import Start, check_start, start_scores
from attribution.scores import Scores
from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.batching import make_batches
from interp.kernels.soft import SoftRunner, prompts_that_fit
from interp.keywords import check_keywords
from interp.objectives import Objective
from interp.run import RunKeywords
from interp.running import door
from interp.setting import Setting, SettingKeywords
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task

_REACH = 6.0  # the furthest that a start puts an edge from the margin, in logits


@dataclass(frozen=True)
class Schedule:
    """How the mask is learned; checks itself."""

    steps: int = 40
    rate: float = 0.3  # of Adam, in logits
    first_temperature: float = 1.0
    last_temperature: float = 0.2

    def __post_init__(self) -> None:
        positive = dict.fromkeys(("rate", "first_temperature", "last_temperature"), numbers.POSITIVE)
        numbers.settle(self, steps=numbers.Limits(1, advice="40 is usual"), **positive)

    def temperature(self, step: int) -> float:
        """Falls geometrically from the first to the last step."""
        share = step / max(1, self.steps - 1)
        return float(self.first_temperature * (self.last_temperature / self.first_temperature) ** share)


@dataclass(frozen=True)
class EdgePruning(Method):
    """Learn which edges to keep, for a circuit of about a given size (after Bhaskar et al. 2024, arXiv:2406.16778).

    w = sigmoid((theta - margin) / temperature), with the margin such that the weights add up to `edges`. Adam moves
    the logits theta along -dL/dtheta, L being the mean over prompts of |M(w) - M(clean)|, or -M(w) for an objective
    that compares with the clean run itself (`kl`). The temperature falls, so that weights end near 0 and 1.

    Differences from the paper: the size is a constraint that holds at every step and not a Lagrangian, weights are not
    sampled, nodes have no masks of their own, and the start is not a mask of all ones but the ranking of scores: tens
    of steps do instead of thousands.

    Cost: `schedule.steps` times two forward and one backward pass (`interp.kernels.soft`). The corrupted run of all
    prompts stays in memory.

    Attributes:
        edges: size to learn for: a number of edges, or a share of all edges between 0 and 1.
        start: edge scores to start from, ranked by |score|, or the method that makes them; None: `eap-ig` under
            `patch`, else `mask-ig`.
        schedule: steps, rate and temperatures.
    """

    edges: int | float = 0.01
    start: Start | None = None
    schedule: Schedule = Schedule()

    name = "edge-pruning"
    paper: ClassVar[str] = "Bhaskar et al. 2024, arXiv:2406.16778"
    formula: ClassVar[tuple[str, str]] = ("2S", "S")

    def __post_init__(self) -> None:
        numbers.settle(self)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        size_of(self.edges, setting.graph)
        check_start(self.start, setting.graph)
        check_objective(setting.goal, self.name, only_clean=False)

    def passes(self, graph: ComputationalGraph) -> Passes:
        return Passes(2 * self.schedule.steps, self.schedule.steps)

    def values(self, setting: Setting) -> Tensor:
        return self._found(setting)[0]

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        graph, size = setting.graph, size_of(self.edges, setting.graph)
        start = start_scores(self.start or (EAPIG() if setting.ablation == "patch" else MaskIG()), setting)
        logits = _logits(start, graph, size)
        fitting = setting.run.batch_size or prompts_that_fit(
            setting.anatomy, graph, setting.prompts, setting.run.memory
        )
        bar = setting.run.progress("learning a mask", self.schedule.steps * len(setting))
        with torch.inference_mode(False), bar as told:
            skip = setting.skip_prefix
            runners = [
                SoftRunner(setting.anatomy, graph, setting.ablator, batch)
                for batch in make_batches(setting.prompts, fitting, setting.anatomy.device, skip_prefix=skip)
            ]
            losses = _learn(logits, runners, _loss(setting.goal), graph.edge_mask, size, self.schedule, told.advance)
        values = torch.zeros(graph.shape, dtype=torch.float64, device="cpu")
        values[graph.edge_mask] = (logits - _margin(logits, size, self.schedule.last_temperature)).exp()
        return values, {
            "edges": size,
            "start": start.method,
            "loss": _loss(setting.goal).name,
            "losses": losses,
            **asdict(self.schedule),
        }


class PruningKeywords(SettingKeywords, RunKeywords, total=False):
    """The keywords of `edge_pruning`."""


@numbers.checked()
@door
def edge_pruning(
    model: Any,
    task: Task,
    edges: int | float,
    start: Start | None = None,
    *,
    schedule: Schedule | None = None,
    **keywords: Unpack[PruningKeywords],
) -> Scores:
    """Learn which edges to keep, for a circuit of about a given size: `EdgePruning` in one call.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour.
        edges, start: as for `EdgePruning`.
        schedule: steps, rate and temperatures; None: `Schedule()`.
        **keywords: `ablation`, `objective`, `kv`, `batch_size`, `memory`, `quiet`, as for `attribution.attribute`.

    Returns:
        `Scores`: exp(theta - margin), the odds that an edge is kept: above 1 inside the circuit that was learned for.
        Rank them for circuits of this size, or near it. `settings["losses"]` is L step by step. The same input gives
        the same scores.

    Raises:
        InputError: a size out of range, scores of nodes or of another graph, and whatever `attribute` refuses.
    """
    check_keywords("edge_pruning", keywords, PruningKeywords)
    return EdgePruning(edges, start, schedule or Schedule()).scores(Setting.of(model, task, keywords))


def _learn(
    logits: Float[Tensor, " edge"],
    runners: Sequence[SoftRunner],
    goal: Objective,
    real: Bool[Tensor, "source target"],
    size: int,
    schedule: Schedule,
    advance: Any,
) -> list[float]:
    """Move the logits in place; returns the loss at each step."""
    weights = torch.zeros(real.shape, dtype=torch.float64, device="cpu")
    optimiser: torch.optim.Optimizer | None = None
    losses = []
    n_prompts = sum(len(runner.batch) for runner in runners)
    for step in range(schedule.steps):
        temperature = schedule.temperature(step)
        weights[real] = torch.sigmoid((logits - _margin(logits, size, temperature)) / temperature)
        gradient, total = torch.zeros_like(weights), 0.0
        for runner in runners:
            values, slopes = runner.differentiate(weights[None], goal)
            total -= float(values.sum())
            gradient -= slopes[0].double().cpu()
            advance(len(runner.batch))
        losses.append(total / n_prompts)
        logits.grad = _through_sigmoid(gradient[real] / n_prompts, weights[real], temperature)
        if optimiser is None:
            # Adam makes all steps equally long, also those of edges that do nothing. With an epsilon of the size of
            # the gradient at the last edge that can be kept, only the edges that compete for a place move
            epsilon = float(logits.grad.abs().topk(size).values[-1])
            optimiser = torch.optim.Adam([logits], lr=schedule.rate, betas=(0.9, 0.95), eps=max(epsilon, 1e-12))
        with torch.device("cpu"):  # Adam counts its steps on the default device
            optimiser.step()
    return losses


def _through_sigmoid(
    gradient: Float[Tensor, " edge"], weights: Float[Tensor, " edge"], temperature: float
) -> Float[Tensor, " edge"]:
    """From dL/dw to dL/dtheta; the margin moves along, so that only what is above the average counts."""
    slope = weights * (1 - weights)
    total = slope.sum().clamp(min=1e-300)
    return slope / temperature * (gradient - (slope * gradient).sum() / total)


def _loss(objective: Objective) -> Objective:
    """What is maximised: minus the distance of each prompt's objective from the clean model's."""
    if objective.flat_at_clean:  # it is such a distance
        return objective

    def closeness(logits: Tensor, prompts: Prompts, clean: Tensor | None) -> Tensor:
        assert clean is not None
        return -(objective(logits, prompts, clean) - objective(clean, prompts, clean)).abs()

    return Objective(
        f"distance in {objective.name}", closeness, differentiable=objective.differentiable, needs_clean=True
    )


def size_of(edges: int | float, graph: ComputationalGraph) -> int:
    """A number or share of edges as a number; raises `InputError` where none or all of them would be left."""
    size = edges if isinstance(edges, int) else int(edges * graph.n_edges)
    if not 1 <= size < graph.n_edges:
        raise InputError(f"edges={edges} must leave between 1 and {graph.n_edges - 1:,} of the {graph.n_edges:,} edges")
    return size


def _logits(start: Scores, graph: ComputationalGraph, size: int) -> Float[Tensor, " edge"]:
    """Logarithms of |score| over that of the last edge kept."""
    strength = start.values[graph.edge_mask].abs().double()
    last = strength.topk(size).values[-1].clamp(min=1e-300)
    return (strength / last).clamp(min=1e-300).log().clamp(-_REACH, _REACH)


def _margin(logits: Float[Tensor, " edge"], size: int, temperature: float) -> Tensor:
    """The margin at which the weights add up to `size`, by bisection."""
    low, high = logits.min() - 50 * temperature, logits.max() + 50 * temperature
    for _ in range(60):
        middle = (low + high) / 2
        too_many = torch.sigmoid((logits - middle) / temperature).sum() > size
        low, high = (middle, high) if too_many else (low, middle)
    return high

"""Learned masks that are sampled: what Edge Pruning and UGS have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.method import Method, Passes
from attribution.edges.start import Start, check_start, start_scores
from attribution.scores import Scores
from interp import numbers
from interp.graph import ComputationalGraph
from interp.kernels.batching import Batch, draws, make_batches, run_batches
from interp.kernels.soft import SoftRunner, prompts_that_fit
from interp.objectives import get_objective
from interp.setting import Setting

logger = logging.getLogger(__name__)

Sampled = Float[Tensor, "mask edge"]


class Gates(ABC):
    """A gate for each edge of a graph, in the order of `graph.edge_mask`; float64 on the CPU."""

    @abstractmethod
    def sample(self, step: int, generator: torch.Generator) -> Sampled:
        """Weights from 0 to 1 of the masks of a step."""

    @abstractmethod
    def learn(self, step: int, slopes: Sampled) -> None:
        """One step, given the gradient of each mask's mean loss at its weights."""

    @abstractmethod
    def odds(self) -> Float[Tensor, " edge"]:
        """How much rather each edge is kept than not."""

    @abstractmethod
    def found(self, losses: list[float]) -> tuple[dict[str, Any], str]:
        """What scores remember beside the losses, and what did not converge (nothing where all did)."""


@dataclass(frozen=True)
class SampledMask(Method):
    """Gates are drawn for a few masks at each step, and moved along the gradient of KL(model || circuit).

    The loss is taken at the answer, whatever the objective. All masks of a step run over all its prompts in one pass
    (`interp.kernels.soft`). The result depends on the seed.

    Attributes:
        steps: steps of Adam.
        prompts: prompts in each step, drawn until all were seen, and again.
        masks: masks drawn in each step.
        seed: of all draws.
        start: edge scores to start from, or the method that makes them; None: as the sub-class says.
    """

    steps: int = 300
    prompts: int = 8
    masks: int = 1
    seed: int = 0
    start: Start | None = None

    formula: ClassVar[tuple[str, str]] = ("2SM", "SM")

    def __post_init__(self) -> None:
        numbers.settle(self, steps=numbers.COUNT, prompts=numbers.COUNT, masks=numbers.COUNT)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_start(self.start, setting.graph)

    @abstractmethod
    def gates(self, setting: Setting, generator: torch.Generator, start: Scores | None) -> Gates:
        """The gates to start from."""

    def passes(self, graph: ComputationalGraph) -> Passes:
        """Where every prompt is in every step."""
        return Passes(2 * self.steps * self.masks, self.steps * self.masks)

    def drawn_with(self) -> int:
        return self.seed

    def values(self, setting: Setting) -> Tensor:
        return self._found(setting)[0]

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        graph = setting.graph
        generator = torch.Generator(device="cpu").manual_seed(self.seed)
        start = None if self.start is None else start_scores(self.start, setting)
        gates, losses = self.gates(setting, generator, start), list[float]()
        with torch.inference_mode(False), setting.run.progress("learning a mask", self.steps) as bar:
            for step, chosen in enumerate(draws(len(setting), self.prompts, self.steps, generator)):
                weights = torch.zeros(self.masks, *graph.shape, dtype=torch.float64, device="cpu")
                weights[:, graph.edge_mask] = gates.sample(step, generator).detach()
                loss, slopes = losses_of(setting, chosen, weights)
                losses.append(float(loss.mean()))
                gates.learn(step, slopes[:, graph.edge_mask])
                bar.advance(1)
        values = torch.zeros(graph.shape, dtype=torch.float64, device="cpu")
        values[graph.edge_mask] = gates.odds()
        told, unsettled = gates.found(losses)
        if unsettled:
            logger.warning("method=%r did not converge: %s; see settings['losses'], and give more than steps=%d",
                           self.name, unsettled, self.steps)  # fmt: skip
        told |= {"loss": "kl", "losses": losses, "start": None if start is None else start.method}
        return values, {"converged": not unsettled, **told}


def losses_of(
    setting: Setting, chosen: list[int], weights: Float[Tensor, "mask source target"]
) -> tuple[Float[Tensor, " mask"], Float[Tensor, "mask source target"]]:
    """KL(model || weighted circuit) at the answer, mean over the chosen prompts, and its gradient at the weights."""
    anatomy, graph, ablator, run = setting.anatomy, setting.graph, setting.ablator, setting.run
    prompts, kl = setting.prompts.select(chosen), get_objective("kl")
    total = torch.zeros(len(weights), dtype=torch.float64, device="cpu")
    slopes = torch.zeros_like(weights)

    def work(batch: Batch) -> None:
        values, gradient = SoftRunner(anatomy, graph, ablator, batch).differentiate(weights, kl)
        total.sub_(values.sum(1).double().cpu())
        slopes.sub_(gradient.double().cpu())

    size = run.batch_size or prompts_that_fit(anatomy, graph, prompts, run.memory, len(weights))
    run_batches(make_batches(prompts, size, anatomy.device, skip_prefix=ablator.skip_prefix), work)
    return total / len(prompts), slopes / len(prompts)

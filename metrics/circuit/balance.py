"""Balanced selection: the share of edges that help is chosen so that the circuit does as well as the model.

By |score| about half of the edges that enter beyond the first few hundred are edges that harm. How far their harm
and the others' help cancel is left to chance, and moves the curve of top-n up and down. Two thresholds, one for the
edges that help and one for those that harm, leave one number free at every size: it is set by measuring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.graph import ComputationalGraph
from interp.objectives import Objective
from interp.running import door
from interp.selection import connected, weighed
from interp.tasks.task import Task
from metrics.circuit.evaluate import faithfulness_of_means, measure

STEPS = 5
CLOSE = 0.01  # a circuit this near to the model is not improved any further


@dataclass(frozen=True, eq=False)
class Balanced:
    """A circuit, the weight `helping` that chose it (`interp.selection.weighed`), and its faithfulness there."""

    mask: Bool[Tensor, "source target"]
    helping: float
    faithfulness: float


@dataclass
class Bracket:
    """Where a function that grows over [0, 1] is 1: false position, kept off the ends of what is left.

    >>> bracket = Bracket()
    >>> for _ in range(8):
    ...     bracket.tell(3 * bracket.at)
    >>> round(bracket.at, 3)
    0.333
    """

    at: float = 0.5
    low: float = 0.0
    high: float = 1.0
    below: float | None = None  # values at both ends, where they are known
    above: float | None = None

    def tell(self, value: float) -> None:
        """Take in the function's value at `at`, and move on."""
        if value < 1:
            self.low, self.below = self.at, value
        else:
            self.high, self.above = self.at, value
        part = 0.5
        if self.below is not None and self.above is not None and self.above > self.below:
            part = min(max((1 - self.below) / (self.above - self.below), 0.1), 0.9)
        self.at = self.low + part * (self.high - self.low)


def circuit_at(
    helping: float, graph: ComputationalGraph, n: int, scores: Float[Tensor, "source target"]
) -> Bool[Tensor, "source target"]:
    """The connected circuit of `n` edges under a weight of helping."""
    return connected(weighed(scores, helping), graph, n, absolute=False)


@door
def balanced(
    model: Any,
    task: Task,
    scores: Float[Tensor, "source target"],
    graph: ComputationalGraph,
    sizes: Sequence[int],
    *,
    ablation: str = "patch",
    objective: str | Objective | None = None,
    steps: int = STEPS,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> list[Balanced]:
    """For each size the connected circuit whose faithfulness is nearest to 1 on `task`, over the weight of helping.

    Edges are ranked by h max(score, 0) + (1 - h) max(-score, 0) and taken by `interp.selection.connected`. h starts
    at 0.5, the order of |score|, and is searched by false position, `steps` measurements in all: the more help, the
    higher faithfulness. The nearest circuit seen is returned, so that on these prompts none is worse than by |score|.
    Measure it on other prompts: its faithfulness on these is rosy.

    Cost: at most `steps` circuits for each size; the circuits of all sizes are run together. The same arguments give
    the same circuits. Raises `InputError` as `connected` and `evaluate` do.
    """
    brackets = [Bracket() for _ in sizes]
    best: list[Balanced | None] = [None] * len(sizes)
    for _ in range(steps):
        open_ones = [i for i, found in enumerate(best) if found is None or abs(1 - found.faithfulness) > CLOSE]
        if not open_ones:
            break
        masks = [circuit_at(brackets[i].at, graph, sizes[i], scores) for i in open_ones]
        reached = _faithfulness(
            model, task, torch.stack(masks), ablation,
            objective=objective, batch_size=batch_size, memory=memory, quiet=quiet,
        )  # fmt: skip
        for i, mask, value in zip(open_ones, masks, reached, strict=True):
            found = best[i]
            if found is None or abs(1 - value) < abs(1 - found.faithfulness):
                best[i] = Balanced(mask, brackets[i].at, value)
            brackets[i].tell(value)
    return [found for found in best if found is not None]


def _faithfulness(model: Any, task: Task, masks: Tensor, ablation: str, **settings: Any) -> list[float]:
    values = measure(model, task, masks, ablation, **settings)
    means = torch.cat((values.clean[None], values.empty[None], values.circuits)).double().mean(1)
    return faithfulness_of_means(means[None].numpy())[0].tolist()

"""Balanced selection: the share of edges that help is chosen so that the circuit does as well as the model.

By |score| about half of the edges that enter beyond the first few hundred are edges that harm. How far their harm
and the others' help cancel is left to chance, and moves the curve of top-n up and down. Two thresholds, one for the
edges that help and one for those that harm, leave one number free at every size: it is set by measuring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.node_mask import NodeMask
from interp.numbers import COUNT, settle
from interp.selection import SELECTIONS, Rule, Selection, TopN, connected, weighed
from interp.setting import MaskObject, Setting
from metrics.circuit.evaluate import faithfulness_values
from metrics.circuit.node_scores import NodeScores

Scores = Float[Tensor, "source target"]
Mask = Bool[Tensor, "source target"]
M = TypeVar("M")

Seen = tuple[float, float]  # faithfulness, and distance from the model

DISTANCES = ("mean", "prompts", "kl", "both")
STEPS = 5
CLOSE = 0.01  # a circuit this near to the model is not improved any further


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


def circuit_at(helping: float, graph: ComputationalGraph, n: int, scores: Scores) -> Mask:
    """The connected circuit of `n` edges under a weight of helping."""
    return connected(weighed(scores, helping), graph, n, absolute=False)


@dataclass(frozen=True)
class Balanced(Selection):
    """For each size the connected circuit nearest to the model, over the weight of helping.

    Edges are ranked by h max(score, 0) + (1 - h) max(-score, 0) and taken by `interp.selection.connected`. h starts
    at 0.5, the order of |score|, and is searched by false position, `steps` measurements in all: the more help, the
    higher faithfulness. The nearest circuit seen is taken, so that on the setting's prompts none is worse than by
    |score|. Measure it on other prompts: its faithfulness on these is rosy.

    Cost: at most `steps` circuits for each size; the circuits of all sizes are run together. The same arguments give
    the same circuits. Raises `InputError` as `connected` and `metrics.evaluate` do.

    Attributes:
        steps: circuits for each size.
        nearest: by what a circuit is near; each distance is 1 for the empty circuit: `mean`, |1 - faithfulness|;
            `prompts`, the objective's mean distance from the model's, prompt by prompt; `kl`, KL(model || circuit);
            `both` (default), `mean` plus `kl`: the mean alone can be right while the output is wrong.
    """

    steps: int = STEPS
    nearest: str = "both"

    name = "balanced"
    measures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self, steps=COUNT)
        choose("nearest", self.nearest, DISTANCES)

    def mask(self, scores: Scores, graph: ComputationalGraph, n: int) -> Mask:
        """By |score|: what the search starts from."""
        return circuit_at(0.5, graph, n, scores)

    def rules(self, setting: Setting, scores: Scores, sizes: Sequence[int]) -> list[Rule]:
        found = self.search(setting, scores, sizes)
        return [partial(circuit_at, one, setting.graph, n) for one, n in zip(found, sizes, strict=True)]

    def search(self, setting: Setting, scores: Scores, sizes: Sequence[int]) -> list[float]:
        """The weight of helping at each size."""

        def take(i: int, helping: float) -> Mask:
            return circuit_at(helping, setting.graph, sizes[i], scores)

        def measure(masks: list[Mask]) -> list[Seen]:
            return seen(setting, torch.stack(masks), self.nearest)

        return helping_weights(take, measure, len(sizes), self.steps)


def helping_weights(
    take: Callable[[int, float], M], measure: Callable[[list[M]], list[Seen]], count: int, steps: int = STEPS
) -> list[float]:
    """For each of `count` circuits the weight of helping at which `take(i, weight)` is nearest to the model."""
    brackets = [Bracket() for _ in range(count)]
    best: list[tuple[float, float]] = [(math.inf, 0.5)] * count  # distance, weight
    for _ in range(steps):
        still = [i for i, (distance, _) in enumerate(best) if distance > CLOSE]
        if not still:
            break
        for i, (value, distance) in zip(still, measure([take(i, brackets[i].at) for i in still]), strict=True):
            best[i] = min(best[i], (distance, brackets[i].at), key=lambda found: found[0])
            brackets[i].tell(value)
    return [weight for _, weight in best]


def node_rules(
    setting: Setting, scores: NodeScores, selection: Selection, sizes: Sequence[int]
) -> list[Callable[[Tensor], Bool[Tensor, "*axes"]]]:
    """For each size what takes a circuit of nodes from values `[*axes]`: the `top_nodes` by a weight of helping.

    Of `balanced` it is that at which the circuit of these scores is nearest to the model on the setting's prompts.
    Raises `InputError` as `node_weight` does.
    """

    def take(i: int, helping: float) -> NodeMask:
        return scores.top(sizes[i], helping)

    fixed = node_weight(selection)
    weights = [fixed or 0.0] * len(sizes)
    if fixed is None:
        assert isinstance(selection, Balanced)
        measure = partial(seen, setting, nearest=selection.nearest)
        weights = helping_weights(take, measure, len(sizes), selection.steps)
    return [partial(_top, scores, n, helping) for n, helping in zip(sizes, weights, strict=True)]


def node_weight(selection: Selection) -> float | None:
    """The weight of nodes that help: 0.5 by |score|, 1 by signed score; None of `balanced`, which measures.

    Raises `InputError` for selections that look for paths: nodes have all edges between them.
    """
    if isinstance(selection, TopN):
        return 0.5 if selection.absolute else 1.0
    if isinstance(selection, Balanced):
        return None
    raise InputError(
        f"selection={selection.name!r} selects edges; circuits of nodes are selected by 'balanced' or 'top-n'"
    )


def _top(scores: NodeScores, n: int, helping: float, values: Tensor) -> Bool[Tensor, "*axes"]:
    return replace(scores, values=values).top(n, helping).mask


SELECTIONS.register(Balanced.name, Balanced)


def seen(setting: Setting, masks: Tensor | Sequence[MaskObject], nearest: str) -> list[Seen]:
    """Faithfulness of circuits on the setting's prompts, and their distance from the model."""
    values, *kl = setting.measure_all(masks, (None, "kl") if nearest in ("kl", "both") else (None,))
    faithfulness = faithfulness_values(values)
    of_mean = [abs(1 - one) for one in faithfulness]
    if nearest == "prompts":
        own, empty = ((values.clean - other).abs().double().mean(-1) for other in (values.circuits, values.empty))
        distances = (own / empty).tolist()
    elif kl:
        divergence = (kl[0].circuits.double().mean(1) / kl[0].empty.double().mean()).tolist()
        distances = divergence if nearest == "kl" else [a + b for a, b in zip(of_mean, divergence, strict=True)]
    else:
        distances = of_mean
    return [*zip(faithfulness, distances, strict=True)]

"""`find_circuit(level="neuron")`, `"head"`, `"node"` or `"feature"`: the nodes that carry a behaviour, and how well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from attribution.edges.method import Method
from circuits.found import provenance_of
from circuits.judged import judged, with_tests
from circuits.levels import Asked, scored
from circuits.node_circuit import NodeCircuit
from interp import numbers
from interp.errors import InputError
from interp.interval import Interval
from interp.node_mask import NodeMask
from interp.selection import Selection
from interp.setting import Setting
from metrics.circuit.balance import Bracket, node_weight
from metrics.circuit.battery import Reference
from metrics.circuit.controls import random_controls
from metrics.circuit.evaluate import faithfulness_in
from metrics.circuit.node_scores import NodeScores

DEFAULT_FAITHFULNESS = 0.85
CLOSE = 1.03  # sizes this near to each other are not told apart in the search
_TOGETHER = 3  # sizes that are measured at once


@dataclass(frozen=True)
class NodeSearch:
    """What circuit of nodes is looked for; checks itself.

    Attributes:
        asked: what its nodes are.
        method, selection: as objects.
        nodes: size: a number of nodes, or a share of all; None: the smallest that reaches `faithfulness`.
        faithfulness: on the scoring prompts; None: 0.85.
        scoring_share, n_random, tests: as in `find_circuit`.
    """

    asked: Asked
    method: Method
    selection: Selection
    nodes: int | float | None
    faithfulness: float | None
    scoring_share: float
    n_random: int
    tests: bool

    def __post_init__(self) -> None:
        if self.nodes is None:
            return
        numbers.size("nodes", self.nodes)
        if self.faithfulness is not None:
            raise InputError(f"nodes={self.nodes} and faithfulness={self.faithfulness} are two ways to choose a size")


def find_nodes(setting: Setting, search: NodeSearch, interval: Interval) -> NodeCircuit:
    """The circuit that is looked for, judged on prompts that did not choose it."""
    scoring, held_out = setting.split(search.scoring_share, interval.seed)
    elements = search.asked.elements(setting).on(scoring)
    for part in (scoring, held_out):
        part.nodes(elements.level, elements.spans)  # refuses prompts of unequal lengths before any work
    scores = scored(elements, search.method)
    ranked = NodeScores(scores.values, elements.level, elements.spans).among(scoring)
    size = None if search.nodes is None else elements.size("nodes", search.nodes)
    rungs, goal = list[dict[str, Any]](), search.faithfulness or DEFAULT_FAITHFULNESS
    if size is None:
        helping = node_weight(search.selection)  # balanced circuits below the goal hold all that helps
        mask, rungs = smallest(scoring, ranked, 1.0 if helping is None else helping, goal, interval)
    else:
        (mask,) = elements.chosen(search.selection, scores.values, [size])
    others = random_controls(scoring, [mask], search.n_random, interval.seed)
    report = replace(judged(held_out, mask, others, interval), n_scoring=len(scoring), ladder=rungs)
    if search.tests:
        report = with_tests(report, held_out, mask, Reference(), interval.seed)
    rule = search.selection
    provenance = {
        **provenance_of(setting, scores, rule, rule.name, search.scoring_share, interval.seed),
        "nodes_asked": search.nodes,
        "faithfulness_asked": goal if size is None else None,
        "level": elements.level,
    }
    return NodeCircuit(scores, mask.mask, report, provenance)


def smallest(
    setting: Setting, scores: NodeScores, helping: float, goal: float, interval: Interval
) -> tuple[NodeMask, list[dict[str, Any]]]:
    """The smallest circuit found that reaches a faithfulness on the setting's prompts, and what was measured.

    Sizes grow fourfold until one reaches it; between that and the one before, false position in the logarithm of size
    goes on until its ends are within 3 % of each other. Faithfulness need not grow with size, so that a smaller circuit
    may exist. About 10 circuits.
    """
    reached: dict[int, float] = {}

    def measure(sizes: Sequence[int]) -> None:
        values = setting.measure([scores.top(n, helping) for n in sizes])
        reached.update(zip(sizes, (one.value for one in faithfulness_in(values, interval)), strict=True))

    tried = sorted({*(4**i for i in range(scores.count.bit_length() // 2 + 1) if 4**i < scores.count), scores.count})
    high = scores.count
    for first in range(0, len(tried), _TOGETHER):
        measure(some := tried[first : first + _TOGETHER])
        if good := [n for n in some if reached[n] >= goal]:
            high = good[0]
            break
    low = max((n for n in reached if n < high), default=0)
    start, end = math.log(max(low, 1)), math.log(high)
    bracket = Bracket(below=reached.get(low, 0.0) / goal, above=reached[high] / goal)
    while high - low > 1 and high > CLOSE * low:
        middle = round(math.exp(start + bracket.at * (end - start)))
        middle = max(low + 1, min(high - 1, middle))
        measure([middle])
        low, high = (low, middle) if reached[middle] >= goal else (middle, high)
        bracket.tell(reached[middle] / goal)
    rungs = [{"size": n, "nodes": n, "faithfulness": value} for n, value in sorted(reached.items())]
    return scores.top(high, helping), rungs

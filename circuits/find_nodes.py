"""`find_circuit(level="neuron")`, `"head"`, `"node"` or `"feature"`: the nodes that carry a behaviour, and how well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from attribution.edges.method import Method
from attribution.units.nodes import scores_of_nodes
from circuits.judged import judged
from circuits.node_circuit import NodeCircuit
from interp import numbers
from interp.dictionaries.sets import FeatureKeywords
from interp.errors import InputError, choose
from interp.interval import Interval
from interp.node_mask import NODE_LEVELS, NodeMask, Spans, spans_of
from interp.plugins import fields_of
from interp.selection import Selection
from interp.selection.named import TopN
from interp.setting import Setting
from metrics.circuit.balance import Bracket
from metrics.circuit.controls import random_controls
from metrics.circuit.curve import node_circuits
from metrics.circuit.evaluate import faithfulness_in
from metrics.circuit.node_scores import NodeScores

DEFAULT_FAITHFULNESS = 0.85
CLOSE = 1.03  # sizes this near to each other are not told apart in the search
_TOGETHER = 3  # sizes that are measured at once


class NodeKeywords(FeatureKeywords, total=False):
    """What `find_circuit` may be told of nodes."""

    level: str
    nodes: int | float | None
    positions: Any


@dataclass(frozen=True)
class NodeSearch:
    """What circuit of nodes is looked for; checks itself.

    Attributes:
        level: `neuron`, `head`, `node` or `feature`.
        method, selection: as objects.
        nodes: size: a number of nodes, or a share of all; None: the smallest that reaches `faithfulness`.
        faithfulness: on the scoring prompts; None: 0.85.
        positions: None: a node is at all positions at once; `all`: at every position that can matter; or positions.
        scoring_share, n_random: as in `find_circuit`.
    """

    level: str
    method: Method
    selection: Selection
    nodes: int | float | None
    faithfulness: float | None
    positions: Any
    scoring_share: float
    n_random: int

    def __post_init__(self) -> None:
        choose("level", self.level, ("edge", *NODE_LEVELS))
        if self.nodes is None:
            return
        numbers.size("nodes", self.nodes)
        if self.faithfulness is not None:
            raise InputError(f"nodes={self.nodes} and faithfulness={self.faithfulness} are two ways to choose a size")

    def size(self, count: int) -> int | None:
        """How many nodes are asked for, of `count`."""
        if self.nodes is None:
            return None
        size = max(1, int(self.nodes * count)) if isinstance(self.nodes, float) else self.nodes
        if size > count:
            raise InputError(f"nodes={self.nodes} is out of range: there are {count:,} {self.level}s")
        return size


def find_nodes(setting: Setting, search: NodeSearch, interval: Interval) -> NodeCircuit:
    """The circuit that is looked for, judged on prompts that did not choose it."""
    scoring, held_out = setting.split(search.scoring_share, interval.seed)
    spans = _spans(setting, search.positions)
    for part in (scoring, held_out):
        part.nodes(search.level, spans)  # refuses prompts of unequal lengths before any work
    scores = scores_of_nodes(scoring, search.method, search.level, spans)
    ranked = NodeScores(scores.values, search.level, spans).among(scoring)
    size, rungs = search.size(ranked.count), list[dict[str, Any]]()
    goal = DEFAULT_FAITHFULNESS if search.faithfulness is None else search.faithfulness
    if size is None:
        mask, rungs = smallest(scoring, ranked, _helping(search.selection), goal, interval)
    else:
        (mask,) = node_circuits(scoring, ranked, search.selection, [size])
    others = random_controls(scoring, [mask], search.n_random, interval.seed)
    report = replace(judged(held_out, mask, others, interval), n_scoring=len(scoring), ladder=rungs)
    provenance = {
        "task": setting.task.to_dict(),
        "seed": interval.seed,
        "scoring_share": search.scoring_share,
        "selection": search.selection.name,
        "selection_settings": fields_of(search.selection),
        "nodes_asked": search.nodes,
        "faithfulness_asked": goal if size is None else None,
        "level": search.level,
        "settings": scores.settings,
        "d_model": setting.anatomy.d_model,
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


def _helping(selection: Selection) -> float:
    """How nodes are ranked in a search for the smallest: balanced circuits below the goal hold all that helps."""
    if isinstance(selection, TopN):
        return 0.5 if selection.absolute else 1.0
    if selection.name == "balanced":
        return 1.0
    raise InputError(
        f"selection={selection.name!r} selects edges; circuits of nodes are selected by 'balanced' or 'top-n'"
    )


def _spans(setting: Setting, positions: Any) -> Spans:
    """The positions that are told apart. `all`: from the first difference of any prompt on, or all where none is."""
    if positions is None:
        return None
    prompts = setting.prompts
    if isinstance(positions, str):
        choose("positions", positions, ("all",))
        first = int(prompts.first_difference.min()) if setting.ablator.skip_prefix else 0
        return tuple(range(first, prompts.clean.shape[1]))
    return spans_of(positions)

"""What `find_circuit` does, of edges and of nodes: scores, a size, a circuit, and its report on other prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from attribution.edges.method import Method
from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.found import provenance_of
from circuits.judged import judged, with_tests
from circuits.levels import Asked, scored
from circuits.node_circuit import NodeCircuit
from circuits.report import Report
from circuits.resampling import ResampledScores, Stable, resampled_scores, selection_frequency, steady
from interp import numbers
from interp.errors import InputError
from interp.interval import Interval
from interp.node_mask import NodeMask
from interp.selection import Selection, TopN
from interp.setting import Setting
from metrics.circuit.balance import Bracket
from metrics.circuit.battery import Reference
from metrics.circuit.elements import Elements, Mask
from metrics.circuit.evaluate import faithfulness_in

DEFAULT_FAITHFULNESS = 0.85
CLOSE = 1.03  # sizes this near to each other are not told apart in the search
_TOGETHER = 3  # sizes that are measured at once

Rule = Callable[[Tensor], Mask]  # takes a circuit of one size from scores
Rung = dict[str, Any]  # a size, what it holds, what it reached


@dataclass(frozen=True)
class Search:
    """What circuit is looked for; checks itself.

    Attributes:
        asked: what it is made of.
        method, selection: as objects.
        name: what the selection was asked for by.
        size: a number of edges (nodes), or a share of all; None: the smallest that reaches `faithfulness`.
        faithfulness: on the scoring prompts; None: 0.85.
        stable: how it is chosen by resamples, if it is.
        reference: how random circuits of edges are drawn; None: as usual.
        scoring_share, n_random, tests: as in `find_circuit`.
    """

    asked: Asked
    method: Method
    selection: Selection
    name: str
    size: int | float | None
    faithfulness: float | None
    stable: Stable | None
    reference: str | None
    scoring_share: float
    n_random: int
    tests: bool

    def __post_init__(self) -> None:
        if self.size is None:
            return
        numbers.size(self.sizes, self.size)
        if self.faithfulness is not None:
            raise InputError(
                f"{self.sizes}={self.size} and faithfulness={self.faithfulness} are two ways to choose a size: give one"
            )

    @property
    def sizes(self) -> str:
        """The argument that gives a size."""
        return "edges" if self.asked.level == "edge" else "nodes"

    @property
    def goal(self) -> float | None:
        """The faithfulness that decides on the size, if that is not given."""
        return None if self.size is not None else self.faithfulness or DEFAULT_FAITHFULNESS


@dataclass(frozen=True)
class _Chosen:
    """A circuit that was chosen: its size before resamples, the rule of that size, and what all sizes reached."""

    size: int
    rule: Rule
    mask: Mask
    rungs: list[Rung]


def find(setting: Setting, search: Search, interval: Interval) -> Circuit | NodeCircuit:
    """The circuit that is looked for, judged on prompts that did not choose it."""
    scoring, held_out = setting.split(search.scoring_share, interval.seed)
    whole = search.asked.elements(setting)
    elements = whole.on(scoring)
    size = None if search.size is None else elements.size(search.sizes, search.size)
    _ = elements.full, whole.on(held_out).full  # refuses prompts of unequal lengths before any work
    drawn = None
    if search.stable is not None:
        drawn = resampled_scores(elements, search.method, resamples=search.stable.resamples, seed=interval.seed)
    scores = scored(elements, search.method) if drawn is None else drawn.scores
    chosen = _choose(elements, search, scores, drawn, size, interval)
    mask = chosen.mask
    others = elements.random(mask, search.n_random, interval.seed, search.reference)
    report = judged(held_out, elements.circuit(mask), [elements.circuit(one) for one in others], interval)
    report = replace(report, n_scoring=len(scoring), ladder=chosen.rungs)
    if drawn is not None and search.stable is not None:
        report = replace(report, stability=_stability(elements, drawn, chosen, search.stable.share))
    if search.tests:
        report = with_tests(report, held_out, elements.circuit(mask), Reference(search.reference), interval.seed)
    provenance = {
        **provenance_of(setting, scores, search.selection, search.name, search.scoring_share, interval.seed),
        "level": elements.level,
        "stable_share": None if search.stable is None else search.stable.share,
        f"{search.sizes}_asked": search.size,
        "faithfulness_asked": search.goal,
        "reference": search.reference or elements.null,
    }
    return _circuit(elements, scores, mask, report, provenance)


def _circuit(
    elements: Elements, scores: Scores, mask: Mask, report: Report, provenance: dict[str, Any]
) -> Circuit | NodeCircuit:
    if elements.level != "edge":
        return NodeCircuit(scores, mask, report, provenance)
    return Circuit(scores, mask, replace(report, nodes=Circuit(scores, mask).n_nodes), provenance)


def _choose(
    elements: Elements,
    search: Search,
    scores: Scores,
    drawn: ResampledScores | None,
    size: int | None,
    interval: Interval,
) -> _Chosen:
    """The circuit of a size, or else the smallest that reaches the goal; of several scores what is steady in them."""

    def rules(sizes: Sequence[int], selection: Selection = search.selection) -> list[Rule]:
        return elements.rules(selection, scores.values, sizes)

    def take(rule: Rule) -> Mask:
        if drawn is None or search.stable is None:
            return rule(scores.values)
        return steady(selection_frequency(drawn, rule), search.stable.share, drawn.scores)

    if size is not None:
        (rule,) = rules([size])
        return _Chosen(size, rule, take(rule), [])
    goal = search.goal
    assert goal is not None
    if elements.level == "edge":
        return _on_ladder(elements, rules(elements.ladder), take, goal, interval)
    # balanced circuits below the goal hold all that helps
    ranking = TopN(absolute=False) if search.selection.measures else search.selection

    def of_size(n: int) -> NodeMask:
        (rule,) = rules([n], ranking)
        return NodeMask(take(rule), elements.level, elements.spans)

    n, mask, rungs = smallest(elements.setting, of_size, len(elements.places), goal, interval)
    return _Chosen(n, rules([n], ranking)[0], mask.mask, rungs)


def _on_ladder(
    elements: Elements, rules: Sequence[Rule], take: Callable[[Rule], Mask], goal: float, interval: Interval
) -> _Chosen:
    """The smallest circuit on the ladder that reaches the goal on the elements' prompts."""
    masks = [take(rule) for rule in rules]
    reached = faithfulness_in(elements.measure(masks), interval)
    rungs = [
        {"size": size, "edges": elements.count(mask), "faithfulness": estimate.value}
        for size, mask, estimate in zip(elements.ladder, masks, reached, strict=True)
    ]
    # the full circuit is the model itself: the last rung always reaches the goal, unless there is no behaviour
    best = next((i for i, estimate in enumerate(reached) if estimate.value >= goal), len(masks) - 1)
    return _Chosen(elements.ladder[best], rules[best], masks[best], rungs)


def smallest(
    setting: Setting, take: Callable[[int], NodeMask], count: int, goal: float, interval: Interval
) -> tuple[int, NodeMask, list[Rung]]:
    """The smallest size found, of up to `count` nodes, whose circuit `take(size)` reaches a faithfulness.

    Returns the size, its circuit, and what was measured on the setting's prompts. Sizes grow fourfold until one reaches
    it; between that and the one before, false position in the logarithm of size goes on until its ends are within 3 %
    of each other. Faithfulness need not grow with size, so that a smaller circuit may exist. About 10 circuits.
    """
    reached: dict[int, float] = {}
    masks: dict[int, NodeMask] = {}

    def measure(sizes: Sequence[int]) -> None:
        masks.update((n, take(n)) for n in sizes)
        values = setting.measure([masks[n] for n in sizes])
        reached.update(zip(sizes, (one.value for one in faithfulness_in(values, interval)), strict=True))

    tried = sorted({*(4**i for i in range(count.bit_length() // 2 + 1) if 4**i < count), count})
    high = count
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
    rungs = [{"size": n, "nodes": masks[n].n_nodes, "faithfulness": value} for n, value in sorted(reached.items())]
    return high, masks[high], rungs


def _stability(elements: Elements, drawn: ResampledScores, chosen: _Chosen, share: float) -> dict[str, Any]:
    """How often each edge (node) of a stable circuit was selected, and how many were not often enough."""
    inside, often = elements.inside(chosen.mask), selection_frequency(drawn, chosen.rule).flatten()
    return {
        "share": share,
        "resamples": len(drawn),
        f"{elements.noun}s_of_size": chosen.size,
        f"{elements.noun}s_kept": len(inside),
        "frequency": {
            name: round(value, 6) for name, value in zip(elements.names(inside), often[inside].tolist(), strict=True)
        },
    }

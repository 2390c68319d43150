"""What `find_circuit` does, of edges and of nodes: scores, a size, a circuit, and its report on other prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from attribution.edges.method import Method
from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.found import provenance_of
from circuits.goals import Goal
from circuits.judged import judged, with_tests
from circuits.levels import Asked, scored
from circuits.node_circuit import NodeCircuit
from circuits.report import Report
from circuits.resampling import ResampledScores, Stable, resampled_scores, selection_frequency, steady
from circuits.smallest import Rung, Sizes, rung, smallest
from circuits.trimming import record, trimmed
from interp import numbers
from interp.errors import InputError
from interp.interval import Interval
from interp.selection import Selection
from interp.setting import Setting
from metrics.circuit.balance import Balanced
from metrics.circuit.battery import Reference
from metrics.circuit.elements import Elements, Mask

# sizes this near to each other are not told apart in the search; of edges a size a tenth smaller is then tried anyway
CLOSE = {"edge": 4 / 3, "node": 1.03}

Rule = Callable[[Tensor], Mask]  # takes a circuit of one size from scores
Take = Callable[[Rule], Mask]  # what that makes of scores, or of resampled ones


@dataclass(frozen=True)
class Search:
    """What circuit is looked for; checks itself.

    Attributes:
        asked: what it is made of.
        method, selection: as objects.
        name: what the selection was asked for by.
        size: a number of edges (nodes), or a share of all; None: the smallest that reaches the goal.
        goal: what decides on a size that is not given.
        ladder: whether sizes are those of the ladder.
        minimal: whether the last pass tries every edge (node) alone.
        stable: how it is chosen by resamples, if it is.
        reference: how random circuits of edges are drawn; None: as usual.
        scoring_share, n_random, tests: as in `find_circuit`.
    """

    asked: Asked
    method: Method
    selection: Selection
    name: str
    size: int | float | None
    goal: Goal
    ladder: bool
    minimal: bool
    stable: Stable | None
    reference: str | None
    scoring_share: float
    n_random: int
    tests: bool

    def __post_init__(self) -> None:
        if self.size is not None:
            numbers.size(self.sizes, self.size)
        if self.minimal and self.stable is not None:
            raise InputError("minimal=True and stable= cannot both be: what resamples agree on is not cut down further")

    @property
    def sizes(self) -> str:
        """The argument that gives a size."""
        return "edges" if self.asked.level == "edge" else "nodes"

    @property
    def trims(self) -> bool:
        """Whether a last pass drops what the circuit can do without: not from what a selection alone decides."""
        return self.minimal or (self.selection.measures and self.stable is None and self.asked.level == "edge")


@dataclass(frozen=True)
class _Chosen:
    """A circuit that was chosen: its size before resamples, the rule of that size, and what all sizes reached."""

    size: int
    rule: Rule
    mask: Mask
    rungs: list[Rung]
    trimmed: dict[str, Any] = field(default_factory=dict)


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
    chosen = _choose(elements, search, scores, drawn, size)
    mask = chosen.mask
    others = elements.random(mask, search.n_random, interval.seed, search.reference)
    report = judged(held_out, elements.circuit(mask), [elements.circuit(one) for one in others], interval)
    report = replace(report, n_scoring=len(scoring), ladder=chosen.rungs, trimmed=chosen.trimmed)
    if drawn is not None and search.stable is not None:
        report = replace(report, stability=_stability(elements, drawn, chosen, search.stable.share))
    if search.tests:
        report = with_tests(report, held_out, elements.circuit(mask), Reference(search.reference), interval.seed)
    provenance = {
        **provenance_of(setting, scores, search.selection, search.name, search.scoring_share, interval.seed),
        "level": elements.level,
        "stable_share": None if search.stable is None else search.stable.share,
        f"{search.sizes}_asked": search.size,
        "faithfulness_asked": search.goal.faithfulness if search.size is None else None,
        "kl_asked": search.goal.kl if search.size is None else None,
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
    elements: Elements, search: Search, scores: Scores, drawn: ResampledScores | None, size: int | None
) -> _Chosen:
    """The circuit of a size, or else the smallest that reaches the goal; of several scores what is steady in them."""

    def rules(sizes: Sequence[int]) -> list[Rule]:
        return elements.rules(search.selection, scores.values, sizes)

    def take(rule: Rule) -> Mask:
        if drawn is None or search.stable is None:
            return rule(scores.values)
        return steady(selection_frequency(drawn, rule), search.stable.share, drawn.scores)

    if size is not None:
        (rule,) = rules([size])
        return _Chosen(size, rule, take(rule), [])
    if search.ladder:
        return _on_ladder(elements, search, rules(elements.ladder), take)
    # balanced circuits below a goal of faithfulness hold all that helps; the output needs what harms, too
    by_help = isinstance(search.selection, Balanced) and search.goal.kl is None
    rankings = elements.rankings if by_help else [search.selection]
    return _searched(elements, search, scores, rankings, take)


def _on_ladder(elements: Elements, search: Search, rules: Sequence[Rule], take: Take) -> _Chosen:
    """The smallest circuit on the ladder that reaches the goal on the elements' prompts."""
    masks = [take(rule) for rule in rules]
    reached = search.goal.reached(elements, masks)
    rungs = [rung(elements, n, mask, one) for n, mask, one in zip(elements.ladder, masks, reached, strict=True)]
    # the full circuit is the model itself: the last rung always reaches the goal, unless there is no behaviour
    best = next((i for i, one in enumerate(reached) if one.enough), len(masks) - 1)
    return _Chosen(elements.ladder[best], rules[best], masks[best], rungs)


def _searched(elements: Elements, search: Search, scores: Scores, rankings: Sequence[Selection], take: Take) -> _Chosen:
    """The smallest circuit found that reaches the goal on the elements' prompts, and what of it can go."""

    def rule(ranking: Selection, n: int) -> Rule:
        (found,) = elements.rules(ranking, scores.values, [n])
        return found

    def circuit(ranking: Selection, n: int) -> Mask:
        return take(rule(ranking, n))

    orders = [Sizes(elements, partial(circuit, one), search.goal) for one in rankings]
    sizes, n = smallest(orders, CLOSE[elements.noun])
    chosen = _Chosen(n, rule(rankings[orders.index(sizes)], n), sizes.masks[n], sizes.rungs())
    if not (search.trims and sizes.reached[n].enough):
        return chosen
    left = trimmed(elements, search.goal, chosen.mask, scores.values, sizes.reached[n], search.minimal)
    about = record(left, chosen.mask)
    rungs = [*chosen.rungs, *([rung(elements, n, left.mask, left.reached)] if about["removed"] else [])]
    rungs.sort(key=lambda one: int(one[f"{elements.noun}s"]))
    return replace(chosen, mask=left.mask, rungs=rungs, trimmed=about)


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

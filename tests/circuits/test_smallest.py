"""The search for the smallest circuit that reaches a goal, and the last pass over what it finds."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metrics
from circuits import find_circuit, planted, trimming
from circuits.goals import Goal, Reached
from circuits.report import Report
from circuits.search import CLOSE
from circuits.smallest import SMALLER, Sizes, smallest
from circuits.trimming import record, trimmed
from interp.errors import InputError
from interp.run import Run
from interp.selection import Connected, prune
from interp.setting import Setting
from metrics.circuit.elements import EdgeElements
from tests.tiny import behaving, shared

N = 12
QUIET: dict[str, Any] = {"method": "eap", "quiet": True}


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return behaving(model, N)


@pytest.fixture(scope="module")
def found(model: Any, task: Any) -> Any:
    return find_circuit(model, task, **QUIET)


def search(count: int, part: Any, close: float = CLOSE["edge"]) -> tuple[int, dict[int, Reached]]:
    """The size found among `count` elements where size n comes `part(n)` of the way."""
    goal: Any = SimpleNamespace(reached=lambda _, masks: [Reached(part(n), None, part(n)) for n in masks])
    elements: Any = SimpleNamespace(places=range(count))
    take: Any = int
    sizes = Sizes(elements, take, goal)
    return smallest([sizes], close)[1], sizes.reached


@given(st.integers(1, 200_000), st.data())
def test_a_threshold_is_found_to_within_a_tenth_of_its_size(count: int, data: Any) -> None:
    enough = data.draw(st.integers(1, count))
    steep = data.draw(st.sampled_from([0.2, 1.0, 3.0]))
    n, seen = search(count, lambda n: min((n / enough) ** steep, 3.0))
    assert enough <= n <= max(enough / 0.9, enough + 1)
    assert len(seen) <= 20


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=300))
def test_what_is_found_is_enough_and_smaller_sizes_are_seen_to_fail(parts: list[float]) -> None:
    parts[-1] = 1.0  # the whole is the model
    n, seen = search(len(parts), lambda n: parts[n - 1])
    assert seen[n].enough
    for share in SMALLER:
        smaller = round(share * n)
        assert smaller in (0, n) or not seen[smaller].enough


def test_a_size_below_one_that_fails_is_found() -> None:
    # of the sizes that the search grows by 64 is the first that is enough, and 50 fails
    n, seen = search(1000, lambda n: 1.2 if n >= 60 or 27 <= n <= 32 else 0.5)
    assert 27 <= n <= 29
    assert not seen[8].enough


def test_without_behaviour_everything_is_returned() -> None:
    assert search(100, lambda n: math.nan)[0] == 100


def test_the_order_goes_on_in_which_a_smaller_size_is_enough() -> None:
    def order(enough: int) -> Sizes:
        goal: Any = SimpleNamespace(reached=lambda _, masks: [Reached(n / enough, None, n / enough) for n in masks])
        elements: Any = SimpleNamespace(places=range(5000))
        take: Any = int
        return Sizes(elements, take, goal)

    for one, other, best in ((300, 40, 40), (40, 300, 40), (50, 45, 50)):
        orders = [order(one), order(other)]
        sizes, n = smallest(orders, 1.05)
        assert best <= n <= 1.05 * best + 1
        assert sizes is orders[(one, other).index(best)]


# ---- of edges


def of(model: Any, task: Any) -> EdgeElements:
    return EdgeElements(Setting(model, task.split(0.5, 0)[0], run=Run(quiet=True)))


def on_scoring(model: Any, task: Any, mask: torch.Tensor) -> float:
    (one,) = metrics.faithfulness(metrics.measure(model, task.split(0.5, 0)[0], mask, quiet=True))
    return one.value


def test_the_circuit_reaches_the_goal_and_the_report_shows_what_was_run(model: Any, task: Any, found: Any) -> None:
    report = found.report
    assert on_scoring(model, task, found.mask) >= 0.85
    chosen = [row for row in report.ladder if row["edges"] == found.n_edges]
    assert chosen[-1]["faithfulness"] == pytest.approx(on_scoring(model, task, found.mask))
    assert [row["edges"] for row in report.ladder] == sorted(row["edges"] for row in report.ladder)
    assert report.trimmed["removed"] >= 0
    assert torch.equal(prune(found.mask, found.graph), found.mask)
    assert "Last pass" in str(report)
    for row in report.ladder[::3]:
        mask = Connected(absolute=False).mask(found.scores.values, found.graph, row["size"])
        if int(mask.sum()) == row["edges"]:
            assert row["faithfulness"] == pytest.approx(on_scoring(model, task, mask))


def error_of(values: Any, i: int, f: float) -> float:
    """The standard error of a ratio of means, by the delta method."""
    gap = (values.clean - values.empty).double()
    apart = (values.circuits[i] - values.empty).double() - f * gap
    return float(apart.std() / len(gap) ** 0.5 / gap.mean())


@pytest.mark.parametrize("level", ["edge", "head"])
def test_a_minimal_circuit_can_lose_none(model: Any, task: Any, level: str) -> None:
    found = find_circuit(model, task, level=level, minimal=True, **QUIET)
    assert found.report.trimmed["every_one"]
    scoring = task.split(0.5, 0)[0]
    mask = found.mask if level == "edge" else found.node_mask
    told = {} if level == "edge" else {"level": level}
    smaller = []
    for place in mask.flatten().nonzero()[:, 0].tolist():
        one = mask.flatten().clone()
        one[place] = False
        one = one.view(mask.shape)
        smaller.append(prune(one, found.graph) if level == "edge" else one)
    values = metrics.measure(model, scoring, torch.stack([mask, *smaller]), quiet=True, **told)
    counted = [
        one.value - error_of(values, i, one.value) for i, one in enumerate(metrics.faithfulness(values))
    ]  # to spare
    assert counted[0] >= 0.85
    assert max(counted[1:]) < 0.85
    assert len(found.report.trimmed["tried_singly"]) == int(mask.sum())


def test_the_goal_is_reached_with_a_standard_error_to_spare(model: Any, task: Any, found: Any) -> None:
    elements = of(model, task)
    values = metrics.measure(model, task.split(0.5, 0)[0], found.mask, quiet=True)
    f = metrics.faithfulness(values)[0].value
    for spare in (0.0, 1.0, 2.0):
        one, whole = Goal(0.85, spare=spare).reached(elements, [found.mask, elements.full])
        assert one.faithfulness == pytest.approx(f)
        assert one.part == pytest.approx((f - spare * error_of(values, 0, f)) / 0.85)
        assert whole.part == pytest.approx(1 / 0.85)  # the model itself has no error
    assert Goal(0.85, spare=1.0).reached(elements, [found.mask])[0].enough
    with pytest.raises(InputError, match="spare=-1"):
        Goal(spare=-1)


def test_edges_that_do_nothing_for_the_goal_are_dropped() -> None:
    known = planted.load("boolean", n=16, seed=0)
    elements, goal = of(known.model, known.task), Goal()
    scores = known.mask.double()
    (reached,) = goal.reached(elements, [elements.full])
    left = trimmed(elements, goal, elements.full, scores, reached, every=True)
    assert left.reached.enough
    assert elements.count(left.mask) <= elements.count(known.mask)
    assert left.reached == goal.reached(elements, [left.mask])[0]


def test_of_a_large_circuit_groups_alone_are_tried_and_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    known = planted.load("boolean", n=16, seed=0)
    elements, goal = of(known.model, known.task), Goal()
    (reached,) = goal.reached(elements, [elements.full])
    scores = known.mask.double()
    small = record(trimmed(elements, goal, elements.full, scores, reached, every=False), elements.full)
    assert small["tried_singly"]
    monkeypatch.setattr(trimming, "SINGLY", 1)  # a circuit of 262 edges is a large one then
    found = record(trimmed(elements, goal, elements.full, scores, reached, every=False), elements.full)
    assert found["tried_singly"] == []
    assert 0 < found["circuits"] <= trimming.TRIES < small["circuits"]
    assert "none was tried alone" in str(Report(trimmed=found))


def test_edges_that_help_only_together_are_found_by_their_size() -> None:
    # signed scores put an edge that is needed last, and only all of it is enough
    known = planted.load("greater", n=64, seed=0)
    assert find_circuit(known.model, known.task, quiet=True).n_edges <= 2 * int(known.mask.sum())


def test_a_goal_for_the_output(model: Any, task: Any) -> None:
    found = find_circuit(model, task, kl=0.02, **QUIET)
    scoring = task.split(0.5, 0)[0]
    (minus,) = Setting(model, scoring, objective="kl", run=Run(quiet=True)).measure(found.mask[None]).circuits
    assert float(-minus.mean()) <= 0.02
    assert 0 < found.n_edges < found.graph.n_edges
    assert all("kl" in row for row in found.report.ladder)
    assert found.provenance["kl_asked"] == 0.02
    assert found.provenance["faithfulness_asked"] is None
    both = find_circuit(model, task, kl=0.02, faithfulness=0.9, **QUIET)
    assert on_scoring(model, task, both.mask) >= 0.9


def test_a_goal_for_the_lower_end(model: Any, task: Any, found: Any) -> None:
    careful = find_circuit(model, task, lower_end=True, **QUIET)
    values = metrics.measure(model, task.split(0.5, 0)[0], torch.stack([careful.mask, found.mask]), quiet=True)
    own, usual = metrics.faithfulness(values)
    assert own.low >= 0.85
    assert usual.low < own.low


def test_a_choosing_selection_without_measuring_is_left_as_it_is(model: Any, task: Any) -> None:
    found = find_circuit(model, task, selection="top-n", **QUIET)
    assert found.report.trimmed == {}
    sizes = {row["size"] for row in found.report.ladder if row["edges"] == found.n_edges}
    assert any(torch.equal(found.scores.mask(n), found.mask) for n in sizes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edges": 5, "kl": 0.1}, "edges=5 and kl=0.1 are two ways to choose a size"),
        ({"edges": 5, "minimal": True}, "edges=5 and minimal=True are two ways"),
        ({"level": "head", "nodes": 2, "ladder": True}, "nodes=2 and ladder=True are two ways"),
        ({"kl": 0.1, "lower_end": True}, "lower_end=True is about faithfulness"),
        ({"kl": -1.0}, "kl=-1.0"),
        ({"faithfulness": 1.5}, "faithfulness=1.5"),
        ({"minimal": True, "stable": True}, "minimal=True and stable="),
    ],
)
def test_goals_that_make_no_sense(model: Any, task: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_circuit(model, task, **QUIET, **settings)

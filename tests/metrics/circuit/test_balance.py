"""Balanced selection on tiny models, and one score made of many by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from attribution import Scores, attribute
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.run import Run
from interp.selection import average, connected, consistent, top_n, weighed
from interp.setting import Setting
from interp.tasks.task import Task
from metrics import evaluate, faithfulness_curve
from metrics.circuit.balance import Balanced, Bracket
from tests.tiny import shared, tiny_task

QUIET = Run(quiet=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return tiny_task(model, 8, seed=0)


@pytest.fixture(scope="module")
def scores(model: Any, task: Task) -> Scores:
    return attribute(model, task, "eap", quiet=True)


@pytest.mark.parametrize(("slope", "root"), [(4.0, 0.25), (1.25, 0.8), (0.5, 1.0)])
def test_the_bracket_closes_on_where_the_function_is_one(slope: float, root: float) -> None:
    bracket = Bracket()
    for _ in range(25):
        bracket.tell(slope * bracket.at)
    assert bracket.at == pytest.approx(root, abs=1e-4)


def test_the_bracket_survives_a_function_that_falls() -> None:
    bracket = Bracket()
    for value in (0.4, 2.0, 1.0, float("nan"), 0.1):
        bracket.tell(value)
        assert 0 <= bracket.low <= bracket.at <= bracket.high <= 1


def circuits(selection: Balanced, setting: Setting, scores: Scores, sizes: Sequence[int]) -> list[torch.Tensor]:
    return [rule(scores.values) for rule in selection.rules(setting, scores.values, sizes)]


def test_each_circuit_is_the_nearest_that_was_measured(model: Any, task: Task, scores: Scores) -> None:
    graph, sizes = scores.graph, (12, 25, 40)
    setting = Setting(model, task, run=QUIET)
    weights = Balanced(steps=4).search(setting, scores.values, sizes)
    found = circuits(Balanced(steps=4), setting, scores, sizes)
    first = circuits(Balanced(steps=1), Setting(model, task, run=QUIET), scores, sizes)
    whole = torch.stack((torch.zeros_like(graph.edge_mask), graph.edge_mask))
    empty, clean = evaluate(model, task, whole, quiet=True).mean(1)
    away = []
    for size, weight, one, plain in zip(sizes, weights, found, first, strict=True):
        assert torch.equal(plain, connected(scores.values, graph, size))
        assert torch.equal(one, connected(weighed(scores.values, weight), graph, size, absolute=False))
        assert int(one.sum()) == size
        f = (evaluate(model, task, torch.stack((one, plain)), quiet=True).mean(1) - empty) / (clean - empty)
        away.append((1 - f).abs().tolist())
    assert all(nearest <= start + 1e-6 for nearest, start in away)
    assert any(nearest < start for nearest, start in away)


def test_what_the_search_measured_is_known_to_its_setting(model: Any, task: Task, scores: Scores) -> None:
    setting = Setting(model, task, run=QUIET)
    found = circuits(Balanced(), setting, scores, (12, 30))
    known = dict(setting.meter._known)
    setting.measure(torch.stack(found))
    assert setting.meter._known.keys() == known.keys()


def test_the_same_arguments_give_the_same_circuits(model: Any, task: Task, scores: Scores) -> None:
    one = circuits(Balanced(), Setting(model, task, run=QUIET), scores, (12, 30))
    other = circuits(Balanced(), Setting(model, task, run=Run(batch_size=3, quiet=True)), scores, (30, 12))
    for a, b in zip(one, reversed(other), strict=True):
        assert torch.equal(a, b)


def test_the_whole_graph_is_the_model(model: Any, task: Task, scores: Scores) -> None:
    (whole,) = circuits(Balanced(), Setting(model, task, run=QUIET), scores, [scores.graph.n_edges])
    assert torch.equal(whole, scores.graph.edge_mask)


def test_a_curve_of_balanced_circuits_is_chosen_on_prompts_of_its_own(model: Any, task: Task, scores: Scores) -> None:
    choosing, measured = task.split(0.5, 0)
    curve = faithfulness_curve(model, measured, scores, selection="balanced", choosing=choosing, quiet=True)
    assert len(curve.values.clean) == len(measured)
    found = circuits(Balanced(), Setting(model, choosing, run=QUIET), scores, curve.sizes)
    assert curve.edges == tuple(int(mask.sum()) for mask in found)
    for wrong in ({"selection": "balanced"}, {"choosing": choosing}):
        with pytest.raises(InputError, match="do not fit: 'balanced' chooses on prompts of its own"):
            faithfulness_curve(model, measured, scores, quiet=True, **wrong)


def test_the_weight_of_helping_goes_from_the_order_of_size_to_that_of_signed_scores() -> None:
    graph = ComputationalGraph(3, 2)
    noise = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.edge_mask
    n = int((noise > 0).sum()) // 2
    assert torch.equal(top_n(weighed(noise), graph, n, False), top_n(noise, graph, n))
    assert torch.equal(top_n(weighed(noise, 1), graph, n, False), top_n(noise, graph, n, absolute=False))
    assert torch.equal(top_n(weighed(noise, 0), graph, n, False), top_n(-noise, graph, n, absolute=False))
    share = [
        int((top_n(weighed(noise, h), graph, n, False, pruned=False) & (noise > 0)).sum()) for h in (0.2, 0.4, 0.6, 0.8)
    ]
    assert share == sorted(share)
    with pytest.raises(InputError, match=r"helping=1.5 must be a number from 0 to 1"):
        weighed(noise, 1.5)


def test_averages_by_hand() -> None:
    one, other = torch.tensor([[4.0, -2.0, 0.0]]), torch.tensor([[10.0, 30.0, -20.0]])
    # by scale: divided by 3 and by 20
    assert average([one, other]) == pytest.approx(torch.tensor([[(4 / 3 + 0.5) / 2, (-2 / 3 + 1.5) / 2, -0.5]]))
    # by rank: (1, -1/2, 0) and (1/3, 1, -2/3)
    assert average([one, other], by="rank") == pytest.approx(torch.tensor([[2 / 3, 1 / 4, -1 / 3]]))
    assert average([torch.tensor([[3.0, 3.0]])], by="rank").tolist() == [[1.0, 1.0]]
    for by in ("scale", "rank"):  # a zero that was rounded is a zero
        rounded = average([one + torch.tensor([[0.0, 0.0, 3e-8]]), other], by=by)
        assert torch.equal(rounded, average([one, other], by=by))
    for wrong, sentence in (([], "at least one"), ([one, other.T], "same shape"), ([one, 0 * one], "all zero")):
        with pytest.raises(InputError, match=sentence):
            average(wrong)


def test_consistency_by_hand() -> None:
    parts = torch.tensor([[[1.0, 4.0, -2.0]], [[3.0, -4.0, -2.0]]])
    # mean 2, 0, -2; standard error 1, 4, 0
    torch.testing.assert_close(consistent(parts), torch.tensor([[1.0, 0.0, -2.0]]))
    assert consistent(parts, errors=0).tolist() == parts.mean(0).tolist()
    with pytest.raises(InputError, match="at least two scores"):
        consistent(parts[:1])
    with pytest.raises(InputError, match="errors=-1 must be a number of at least 0"):
        consistent(parts, errors=-1)

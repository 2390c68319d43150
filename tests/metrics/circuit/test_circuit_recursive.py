"""The recursive curve of edges: what is left at each share, the areas, the controls, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.answers import answer_logits
from interp.tasks.task import Task
from metrics.circuit.evaluate import evaluate
from metrics.circuit.left import removal_scores
from metrics.circuit.recursive import recursive_curve
from tests.tiny import shared, tiny_task

SHARES = (0.02, 0.1, 0.3, 1.0)


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("gpt2", n_layer=2, n_head=2)


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    """Random prompts, answered as the model answers them: each loses something when it is corrupted."""
    prompts = tiny_task(model, n=24).prompts(model)
    clean, corrupted = (answer_logits(model, one).argmax(1).tolist() for one in (prompts, prompts.turned()))
    kept = [i for i, (right, wrong) in enumerate(zip(clean, corrupted, strict=True)) if right != wrong]
    assert len(kept) >= 4
    answers = ([[found[i]] for i in kept] for found in (clean, corrupted))
    return Task.from_tokens("own answers", prompts.clean[kept], prompts.corrupted[kept], *answers)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of(model)


@pytest.fixture(scope="module")
def scores(graph: ComputationalGraph) -> torch.Tensor:
    return torch.randn(graph.shape, generator=torch.Generator().manual_seed(3)) * graph.edge_mask


@pytest.mark.parametrize("absolute", [False, True])
def test_scores_are_restricted_to_what_is_left(
    model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor, absolute: bool
) -> None:
    curve = recursive_curve(model, task, SimpleNamespace(values=scores), SHARES, absolute=absolute)
    key = scores.abs() if absolute else scores
    edges = sorted(graph.edge_mask.nonzero().tolist(), key=lambda edge: -float(key[tuple(edge)]))
    assert curve.removed == (0, *(int(share * graph.n_edges) for share in SHARES))
    for count, left in zip(curve.removed, curve.masks, strict=True):
        expected = graph.edge_mask.clone()
        for source, target in edges[:count]:
            expected[source, target] = False
        assert torch.equal(left, expected)


def test_points_are_the_faithfulness_of_what_is_left(
    model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor
) -> None:
    curve = recursive_curve(model, task, scores, SHARES)
    means = evaluate(model, task, curve.masks).mean(1)
    empty = evaluate(model, task, torch.zeros_like(graph.edge_mask)).mean()
    expected = ((means - empty) / (means[0] - empty)).tolist()
    assert [one.value for one in curve.points] == pytest.approx(expected)
    assert expected[0] == 1
    assert expected[-1] == pytest.approx(0)
    assert [one.value for one in curve.random][::4] == pytest.approx([1, 0])


def test_areas_by_trapezoids(model: Any, task: Task, scores: torch.Tensor) -> None:
    curve = recursive_curve(model, task, scores, SHARES, n_random=2)
    x = np.array(curve.shares)
    m, b = (np.array([one.value for one in points]) for points in (curve.points, curve.random))

    def area(x: np.ndarray, y: np.ndarray) -> float:
        return float(sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1)))

    assert curve.area.value == pytest.approx(area(x, b - m) / area(x, b))
    log = np.log(x[1:])
    assert curve.log_area.value == pytest.approx(area(log, (b - m)[1:]) / area(log, b[1:]))
    assert curve.area.low <= curve.area.value <= curve.area.high


def test_random_orders_are_part_of_the_interval(model: Any, task: Task, scores: torch.Tensor) -> None:
    """With one prompt nothing but the orders varies: the interval of the mean of two lies between the two."""
    one = task.select([0] * 8)
    alone = recursive_curve(model, one, scores, SHARES, n_random=1)
    assert alone.random[3].low == pytest.approx(alone.random[3].high)
    each = [recursive_curve(model, one, scores, SHARES, n_random=1, seed=seed).random[3].value for seed in (0, 1)]
    both = recursive_curve(model, one, scores, SHARES, n_random=2).random[3]
    assert both.value == pytest.approx(sum(each) / 2)
    assert sorted(each) == pytest.approx([both.low, both.high])
    assert abs(each[0] - each[1]) > 0.01


def test_what_is_left_is_scored_again(model: Any, task: Task, graph: ComputationalGraph) -> None:
    seen: list[torch.Tensor] = []

    def score(left: torch.Tensor) -> torch.Tensor:
        seen.append(left.clone())
        left[:] = False  # what a caller does to its mask is its own affair
        return torch.randn(graph.shape, generator=torch.Generator().manual_seed(len(seen)))

    curve = recursive_curve(model, task, score, SHARES)
    assert len(seen) == len(SHARES)
    for given, mask in zip(seen, curve.masks, strict=False):
        assert torch.equal(given, mask)
    for step, (before, after) in enumerate(zip(curve.masks, curve.masks[1:], strict=False), 1):
        assert not (after & ~before).any()  # ablated edges stay ablated
        values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(step))
        if after.any() and not torch.equal(before, after):
            assert values[before & ~after].min() > values[after].max()


def test_removal_scores_are_exact(model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor) -> None:
    left = graph.edge_mask & (scores > -0.5)
    found = removal_scores(model, task)(left)
    whole = evaluate(model, task, left).mean()
    assert not found[~left].any()
    for source, target in left.nonzero()[::5].tolist():
        without = left.clone()
        without[source, target] = False
        expected = float(whole - evaluate(model, task, without).mean())
        assert float(found[source, target]) == pytest.approx(expected, abs=1e-9)
    assert not removal_scores(model, task)(torch.zeros_like(left)).any()


def test_exact_scores_stand_above_random_and_inverted_below(model: Any, task: Task, graph: ComputationalGraph) -> None:
    exact = removal_scores(model, task)
    shares = (0.05, 0.1, 0.2, 0.4, 1.0)
    best = recursive_curve(model, task, exact, shares, n_random=5)
    once = recursive_curve(model, task, exact(graph.edge_mask), shares, n_random=5)
    worst = recursive_curve(model, task, lambda left: -exact(left), shares, n_random=5)
    assert best.area.value > 0.5
    assert best.area.value > once.area.value  # scoring again inside what is left finds more
    assert worst.area.value < -0.5
    for one, other in zip(best.random, worst.random, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_decided_by_its_seed(model: Any, task: Task, scores: torch.Tensor) -> None:
    one, same, other = (recursive_curve(model, task, scores, SHARES, seed=seed) for seed in (4, 4, 9))
    assert one.area == same.area
    assert one.random != other.random
    assert [p.value for p in one.points] == pytest.approx([p.value for p in other.points])


def test_what_people_see(model: Any, task: Task, scores: torch.Tensor) -> None:
    curve = recursive_curve(model, task, scores, SHARES)
    assert list(curve.to_frame().columns) == [
        "share", "removed", "faithfulness", "low", "high", "random", "random_low", "random_high",
    ]  # fmt: skip
    assert repr(curve).startswith("RecursiveCurve: area")
    assert "<table" in curve._repr_html_()
    assert [trace.name for trace in curve.figure().data] == ["scores", "random edges"]


@pytest.mark.parametrize(
    ("score", "settings", "message"),
    [
        (lambda left: left.double() * torch.nan, {}, "are NaN or infinite"),
        (lambda left: left.double(), {}, "scores are constant"),
        (lambda left: left.double()[:3], {}, "score must give a tensor of shape"),
        (lambda left: None, {}, "score must give a tensor of shape .* got None"),
        ([1.0], {}, "scores must be a tensor .* got list"),
        (None, {"shares": [0.5]}, "shares=.* at least two"),
        (None, {"shares": [0.5, 0.2]}, "must ascend"),
        (None, {"shares": [0.5, 1.2]}, "above 0 and up to 1"),
        (None, {"n_random": 0}, "n_random=0 must be a whole number of at least 1"),
        (None, {"ablation": "zeros"}, "did you mean 'zero'"),
    ],
)
def test_refuses(
    model: Any, task: Task, scores: torch.Tensor, score: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        recursive_curve(model, task, scores if score is None else score, **settings)


def test_refuses_scores_of_another_shape_later_on(model: Any, task: Task, scores: torch.Tensor) -> None:
    calls: list[int] = []

    def twice(left: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return scores if len(calls) == 1 else scores[:2]

    with pytest.raises(InputError, match="each time"):
        recursive_curve(model, task, twice, SHARES)

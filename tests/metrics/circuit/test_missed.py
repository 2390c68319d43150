"""The bound on missed effects: Welch's interval by scipy, subsets by hand, and how often it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind

import metrics
from attribution import attribute
from circuits import planted
from interp import ComputationalGraph
from interp.errors import InputError
from metrics.circuit.missed import drawn_subsets, upper_bounds
from tests.tiny import shared, tiny_task

QUIET: dict[str, Any] = {"quiet": True}


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return tiny_task(model, n=4)


@pytest.fixture(scope="module")
def exact(model: Any, task: Any) -> torch.Tensor:
    return attribute(model, task, "exact", quiet=True).values


def test_bounds_are_welchs() -> None:
    rng = np.random.default_rng(0)
    falls, drawn = rng.normal(size=40), drawn_subsets(6, 40, 0.3, 1).numpy()
    falls[drawn[:, 2]] += 2.0
    effects, bounds = upper_bounds(falls, drawn, 0.9)
    for i in range(6):
        test = ttest_ind(falls[drawn[:, i]], falls[~drawn[:, i]], equal_var=False)
        low, high = test.confidence_interval(0.8)  # 10 % on either side
        assert effects[i] == pytest.approx(falls[drawn[:, i]].mean() - falls[~drawn[:, i]].mean())
        assert bounds[i] == pytest.approx(max(high, -low))
    assert bounds.argmax() == 2


def test_every_thing_is_in_as_many_subsets() -> None:
    drawn = drawn_subsets(10_000, 20, 0.25, 0)
    assert (drawn.sum(0) == 5).all()
    assert len({tuple(row) for row in drawn.T[:50].tolist()}) > 45
    assert torch.equal(drawn, drawn_subsets(10_000, 20, 0.25, 0))


def test_the_subsets_are_patched_together(model: Any, task: Any) -> None:
    graph = ComputationalGraph.of(model)
    looked_at = torch.zeros_like(graph.edge_mask)
    looked_at[graph.edge_index("input->logits")] = True
    found = metrics.missed_effects(model, task, looked_at, subsets=12, share=0.25, seed=3, confidence=0.9, **QUIET)
    others = (graph.edge_mask & ~looked_at).nonzero()
    drawn = drawn_subsets(len(others), 12, 0.25, 3)
    falls = []
    for subset in drawn:
        mask = graph.edge_mask.clone()
        mask[tuple(others[subset].T)] = False
        values = metrics.measure(model, task, mask, quiet=True)
        falls.append(float((values.clean - values.circuits[0]).mean()))
    effects, bounds = upper_bounds(np.array(falls), drawn.numpy(), 0.9)
    assert found.bound == pytest.approx(bounds.max(), rel=1e-4)
    assert found.fall == pytest.approx(np.mean(falls), rel=1e-4)
    by_name = found.to_frame().set_index("edge")
    assert len(by_name) == graph.n_edges - 1
    for i in (0, 50):
        name = graph.edge_name(*others[i].tolist())
        assert by_name.loc[name, "effect"] == pytest.approx(effects[i], rel=1e-3, abs=1e-6)
    assert by_name["bound"].is_monotonic_decreasing
    assert f"{graph.n_edges - 1} edges that were not looked at" in repr(found)
    assert len(found.figure().data[0].x) == 30


def test_it_bounds_what_exact_patching_finds(model: Any, task: Any, exact: torch.Tensor) -> None:
    graph = ComputationalGraph.of(model)
    best = exact.abs().flatten().topk(20).indices
    looked_at = torch.zeros_like(graph.edge_mask).flatten()
    looked_at[best] = True
    looked_at = looked_at.view(graph.shape)
    largest = float((exact.abs() * ~looked_at).max())
    bounds = [metrics.missed_effects(model, task, looked_at, seed=seed, **QUIET).bound for seed in range(3)]
    assert min(bounds) > largest
    assert max(bounds) < 40 * largest


def test_a_large_effect_that_was_missed_shows() -> None:
    known = planted.load("induction", n=16, seed=0)
    true = known.mask.nonzero()
    looked_at = known.mask.clone()
    looked_at[tuple(true[0])] = False  # one that matters was forgotten
    nothing = metrics.missed_effects(known.model, known.task, known.mask, subsets=60, share=0.1, **QUIET)
    missed = metrics.missed_effects(known.model, known.task, looked_at, subsets=60, share=0.1, **QUIET)
    assert missed.to_frame()["edge"][0] == known.graph.edge_name(*true[0].tolist())
    assert nothing.bound < 0.5 * missed.bound


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"subsets": 10, "share": 0.1}, "puts an edge into 1 of them"),
        ({"subsets": 4}, "subsets=4"),
        ({"share": 1.0}, "share=1.0"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"looked_at": "all"}, "holds every edge"),
    ],
)
def test_refusals(model: Any, task: Any, told: dict[str, Any], message: str) -> None:
    graph = ComputationalGraph.of(model)
    mask = graph.edge_mask if told.pop("looked_at", None) else torch.zeros_like(graph.edge_mask)
    with pytest.raises(InputError, match=message):
        metrics.missed_effects(model, task, mask, **told, **QUIET)

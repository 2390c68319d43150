"""Completeness and minimality: against sums done by hand from `evaluate`, and at their extremes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attribution import attribute
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.tasks.task import Task
from metrics import completeness, evaluate, minimality
from metrics.testing import paired_test
from tests.tiny import behaving, shared


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("qwen2")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return behaving(model, 10)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of(model)


@pytest.fixture(scope="module")
def circuit(model: Any, task: Task) -> torch.Tensor:
    return attribute(model, task, "eap", quiet=True).mask(60, selection="greedy")


def off(mask: torch.Tensor, graph: ComputationalGraph, names: list[str], level: str) -> torch.Tensor:
    """The mask without nodes or edges, by name."""
    result = mask.clone()
    for name in names:
        if level == "node":
            result[graph.sources.index(name)] = False
        else:
            result[graph.edge_index(name)] = False
    return result


@pytest.mark.parametrize(("level", "ablation"), [("node", "patch"), ("edge", "zero")])
def test_gaps_are_those_of_circuit_and_model(
    model: Any, task: Task, graph: ComputationalGraph, circuit: torch.Tensor, level: str, ablation: str
) -> None:
    found = completeness(model, task, circuit, level=level, sets=4, n_random=0, ablation=ablation, quiet=True)
    ends = torch.stack((graph.edge_mask, torch.zeros_like(circuit)))
    clean, empty = evaluate(model, task, ends, ablation=ablation, quiet=True).mean(1)
    for names, gap in zip(found.sets, found.gaps, strict=True):
        pair = torch.stack([off(one, graph, list(names), level) for one in (circuit, graph.edge_mask)])
        alone, whole = evaluate(model, task, pair, ablation=ablation, quiet=True).mean(1)
        assert gap.value == pytest.approx(float((alone - whole).abs() / (clean - empty).abs()), rel=1e-6)
        assert gap.low <= gap.high
    gaps = [one.value for one in found.gaps]
    assert found.incompleteness.value == pytest.approx(np.mean(gaps))
    assert found.worst.value == pytest.approx(max(gaps))
    assert found.random is None
    frame = found.to_frame()
    assert frame["gap"].tolist() == sorted(gaps, reverse=True)
    assert (frame["circuit"] - frame["model"]).abs().to_numpy() == pytest.approx(frame["gap"].to_numpy())


def test_the_whole_model_is_complete_and_n_random_are_not(
    model: Any, task: Task, graph: ComputationalGraph, circuit: torch.Tensor
) -> None:
    assert completeness(model, task, graph.edge_mask, sets=5, n_random=0, quiet=True).worst.value < 1e-9
    found = completeness(model, task, circuit, sets=8, n_random=2, quiet=True)
    assert found.random is not None
    assert found.random.low > found.incompleteness.value
    assert "random circuits" in repr(found)
    assert "<table" in found._repr_html_()
    assert len(found.figure().data) == 2


def test_sets_hold_parts_of_the_circuit(
    model: Any, task: Task, graph: ComputationalGraph, circuit: torch.Tensor
) -> None:
    found = completeness(model, task, circuit, sets=10, largest=0.3, n_random=0, seed=2, quiet=True)
    inside = {name for name, writes in zip(graph.sources, circuit.any(1).tolist(), strict=True) if writes} - {"input"}
    assert all(0 < len(one) <= 0.3 * len(inside) and set(one) <= inside for one in found.sets)
    again = completeness(model, task, circuit, sets=10, largest=0.3, n_random=0, seed=2, quiet=True)
    assert again.sets == found.sets


@pytest.mark.parametrize("level", ["edge", "node"])
def test_changes_are_those_of_removing(
    model: Any, task: Task, graph: ComputationalGraph, circuit: torch.Tensor, level: str
) -> None:
    found = minimality(model, task, circuit, level=level, sets=1, sample=6, quiet=True)
    assert found.tested == len(found.frame) == 6
    base = evaluate(model, task, circuit, quiet=True)
    for row in found.frame.to_dict("records"):
        fall = base - evaluate(model, task, off(circuit, graph, [row[level]], level), quiet=True)
        assert row["largest"] == row["mean"] == pytest.approx(float(fall.mean()), abs=1e-4)
        # falls that count as none are left out
        fall = torch.where(fall.abs() > 1e-3, fall, 0.0)
        if row["p"] < 1 and (fall != 0).all():
            assert row["p"] == pytest.approx(paired_test(fall.numpy(), np.zeros(10)))
    assert (found.frame["p_corrected"] >= found.frame["p"]).all()
    assert found.frame["largest"].abs().is_monotonic_decreasing


def test_what_another_edge_hides_is_seen_in_knock_out_sets(model: Any, task: Task, circuit: torch.Tensor) -> None:
    alone = minimality(model, task, circuit, sets=1, sample=None, quiet=True)
    several = minimality(model, task, circuit, sets=4, sample=None, quiet=True)
    assert alone.tested == alone.total == several.total == int(circuit.sum())
    one, more = (found.frame.set_index("edge")["largest"].abs().sort_index() for found in (alone, several))
    assert (more >= one - 1e-12).all()
    assert (more > one + 1e-3).any()


def test_an_idle_edge_is_not_shown_to_be_needed(model: Any, graph: ComputationalGraph, circuit: torch.Tensor) -> None:
    task = behaving(model, 30)
    idle = next(name for i, name in enumerate(graph.sources) if i and not circuit[i].any())
    mask = circuit.clone()
    mask[graph.sources.index(idle)] = False
    mask[graph.edge_index(f"{idle}->logits")] = True
    mask[:, [t for t, fed in enumerate(graph.target_sources) if graph.sources.index(idle) in fed]] = False
    found = minimality(model, task, mask, sample=None, sets=2, quiet=True)
    row = found.frame.set_index("edge").loc[f"{idle}->logits"]
    assert row["largest"] == 0
    assert row["p"] == 1
    assert f"{idle}->logits" in found.unproven
    assert found.frame["edge"][0] not in found.unproven
    assert len(found.figure().data[0].x) == len(found.frame)
    assert "no change is shown" in repr(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (completeness, {"level": "nodes"}, "level='nodes' is unknown"),
        (completeness, {"sets": 0}, "sets=0"),
        (completeness, {"largest": 1.5}, "largest=1.5"),
        (completeness, {"n_random": -1}, "n_random=-1"),
        (minimality, {"level": "head"}, "mask of level='head'"),
        (minimality, {"sample": 0}, "sample=0"),
        (minimality, {"sets": 0}, "sets=0"),
        (minimality, {"correction": "fdr"}, "correction='fdr' is unknown"),
    ],
)
def test_bad_input_is_refused(
    model: Any, task: Task, circuit: torch.Tensor, function: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        function(model, task, circuit, quiet=True, **settings)


@pytest.mark.parametrize("function", [completeness, minimality])
def test_an_empty_circuit_is_refused(model: Any, task: Task, circuit: torch.Tensor, function: Any) -> None:
    with pytest.raises(InputError, match="circuit holds no"):
        function(model, task, torch.zeros_like(circuit), quiet=True)

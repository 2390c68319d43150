"""The battery of hypothesis tests on a tiny model: what passes, what fails, and what it says about it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch

from attribution import attribute
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.tasks.task import Task
from metrics import CircuitTests, Reference, circuit_tests, evaluate
from metrics.circuit.samples import added_paths, random_paths
from tests.tiny import behaving, shared


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return behaving(model, 24)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of(model)


@pytest.fixture(scope="module")
def circuit(model: Any, task: Task) -> torch.Tensor:
    """80 of 262 edges by exact patching: faithful, and needed."""
    return attribute(model, task, "exact", quiet=True).mask(80, selection="greedy")


@pytest.fixture(scope="module")
def found(model: Any, task: Task, circuit: torch.Tensor) -> CircuitTests:
    return circuit_tests(model, task, circuit, quiet=True)


def test_a_good_circuit_passes_what_a_random_one_fails(
    model: Any, task: Task, graph: ComputationalGraph, found: CircuitTests
) -> None:
    assert found["equivalence"].passed
    assert found["sufficiency"].passed
    assert found["necessity"].passed
    other = circuit_tests(model, task, random_paths(graph, 80, 5), tests=["equivalence", "sufficiency"], quiet=True)
    assert not other["equivalence"].passed
    assert other["equivalence"].rejected
    assert not other["sufficiency"].passed
    assert not other["sufficiency"].rejected


@pytest.mark.slow
def test_random_circuits_are_seldom_sufficient(model: Any, task: Task, graph: ComputationalGraph) -> None:
    # a null circuit is the best of its 31 kin, and so found sufficient, once in 31 times
    found = [
        circuit_tests(
            model, task, random_paths(graph, 80, 1000 + i), tests=["sufficiency"], n_random=30, seed=50 * i,
            quiet=True,
        )["sufficiency"].rejected
        for i in range(40)
    ]  # fmt: skip
    assert sum(found) <= 5


def test_the_whole_model_is_equivalent_to_itself(model: Any, task: Task, graph: ComputationalGraph) -> None:
    found = circuit_tests(model, task, graph.edge_mask, n_random=5, quiet=True)
    assert found["equivalence"].p == 1.0
    assert found["independence"].passed  # of the corrupted prompts' scores
    assert not found["sufficiency"].rejected  # random circuits of its size are the model, too
    assert found["minimality"].passed is None  # nothing can be added
    assert found["necessity"].passed is None  # nothing is left outside
    assert "could not be made" in str(found)


def test_an_idle_edge_is_flagged_and_no_other(model: Any, task: Task, graph: ComputationalGraph) -> None:
    mask = attribute(model, task, "exact", quiet=True).mask(15, selection="greedy")
    assert circuit_tests(model, task, mask, tests=["minimality"], quiet=True)["minimality"].passed
    assert not mask[graph.edge_index("a1.h0->logits")[0]].any()
    mask[graph.edge_index("a1.h0->logits")] = True  # nothing enters a1.h0: it gives what it gives when ablated
    found = circuit_tests(model, task, mask, tests=["minimality"], quiet=True)
    assert found.edges.loc[found.edges["superfluous"], "edge"].tolist() == ["a1.h0->logits"]
    assert not found["minimality"].passed
    assert found["minimality"].rejected


def test_statistics_are_what_evaluate_says(
    model: Any, task: Task, graph: ComputationalGraph, circuit: torch.Tensor, found: CircuitTests
) -> None:
    clean, alone = evaluate(model, task, torch.stack((graph.edge_mask, circuit)), quiet=True)
    assert found["equivalence"].statistic == pytest.approx(float((alone > clean).float().mean()))
    few, _ = task.split(16 / 24, 0)
    clean, alone = evaluate(model, few, torch.stack((graph.edge_mask, circuit)), quiet=True)
    random = evaluate(model, few, torch.stack([random_paths(graph, 80, i) for i in range(60)]), quiet=True)
    wins = ((alone - clean).abs().mean() < (random - clean).abs().mean(1)).sum()
    assert found["sufficiency"].statistic == pytest.approx(int(wins) / 60)
    row = found.edges.iloc[-1]
    without = circuit.clone()
    without[graph.edge_index(row["edge"])] = False
    change = (evaluate(model, few, without, quiet=True) - alone).abs().mean()
    assert row["change"] == pytest.approx(float(change), rel=1e-4)


def test_the_result_speaks(found: CircuitTests) -> None:
    frame = found.to_frame()
    assert frame["test"].tolist() == ["equivalence", "independence", "minimality", "sufficiency", "necessity"]
    assert (frame["p_corrected"] >= frame["p"]).all()
    assert frame["wanted"].tolist() == ["not rejected"] * 3 + ["rejected"] * 2
    text = str(found)
    assert "wanted: null not rejected" in text
    assert "closer to the model than more than 90% of random circuits" in text
    assert "<table" in found._repr_html_()
    assert len(found.edges) == found.settings["edges_tested"] == 40
    assert found.edges["beaten"].is_monotonic_increasing
    json.dumps(found.to_dict(), allow_nan=False)


def test_seeds_decide(model: Any, task: Task, circuit: torch.Tensor) -> None:
    settings: dict[str, Any] = {"n_random": 8, "sample": 5, "quiet": True}
    one, same, other = (circuit_tests(model, task, circuit, seed=seed, **settings) for seed in (3, 3, 4))
    assert one.edges.equals(same.edges)
    assert not one.edges["edge"].equals(other.edges["edge"])
    assert any("too few for quantile" in note for note in one.notes)


@pytest.mark.parametrize("reference", ["paths", "grown"])
def test_reference_distributions(model: Any, task: Task, circuit: torch.Tensor, reference: str) -> None:
    found = circuit_tests(
        model, task, circuit, tests=["sufficiency"], reference=Reference(reference, size=0.9), n_random=20,
        quantile=0.5, correction="none", quiet=True,
    )  # fmt: skip
    assert "235 edges" in found["sufficiency"].observed
    assert found["sufficiency"].p >= 0.5**20


def test_added_paths_leave_and_enter_the_circuit(graph: ComputationalGraph, circuit: torch.Tensor) -> None:
    alive = circuit.any(1)
    for path in added_paths(graph, circuit, 50, seed=1):
        assert not any(circuit[edge] for edge in path)
        assert alive[path[0][0]]
        fed = graph.target_sources[path[-1][1]]
        assert not fed or any(alive[source] for source in fed)
        for (_, target), (source, _) in itertools.pairwise(path):
            assert source in graph.target_sources[target]


@pytest.mark.parametrize("n", [1, 30, 200, 262])
def test_random_paths_have_the_size_asked_for(graph: ComputationalGraph, n: int) -> None:
    mask = random_paths(graph, n, seed=2)
    assert int(mask.sum()) == n
    assert not (mask & ~graph.edge_mask).any()
    assert torch.equal(mask, random_paths(graph, n, seed=2))


def test_random_paths_keep_to_what_is_allowed(graph: ComputationalGraph, circuit: torch.Tensor) -> None:
    outside = graph.edge_mask & ~circuit
    assert not (random_paths(graph, 100, 0, outside) & circuit).any()
    with pytest.raises(InputError, match="263 edges cannot be drawn from 262"):
        random_paths(graph, 263, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tests": ["equivalance"]}, "tests='equivalance' is unknown; did you mean 'equivalence'"),
        ({"reference": "path"}, "reference='path' is unknown"),
        ({"n_random": 0}, "n_random=0"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"tolerance": 0.6}, "tolerance=0.6"),
        ({"quantile": 1.5}, "quantile=1.5"),
        ({"reference_prompts": 3}, "reference=Reference\\(prompts="),
        ({"tests": ["sufficiency"], "reference": Reference(size=10_000)}, "size=10000"),
        ({"correction": "bonferroni", "tests": ["equivalence"]}, "correction='bonferroni' is unknown"),
    ],
)
def test_bad_input_is_refused(
    model: Any, task: Task, circuit: torch.Tensor, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        circuit_tests(model, task, circuit, quiet=True, **settings)


def test_an_empty_circuit_is_refused(model: Any, task: Task, circuit: torch.Tensor) -> None:
    with pytest.raises(InputError, match="circuit has no edges"):
        circuit_tests(model, task, torch.zeros_like(circuit), quiet=True)
    with pytest.raises(InputError, match="this looks at one"):
        circuit_tests(model, task, circuit.repeat(2, 1, 1), quiet=True)

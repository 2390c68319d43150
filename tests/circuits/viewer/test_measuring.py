"""What is measured when a page is made: sizes of the curve on the prompts that chose the circuit, nodes knocked out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.viewer.adjacency import adjacency
from circuits.viewer.knocked import knocked
from circuits.viewer.measuring import measured, prompts_of, sizes
from circuits.viewer.quality import other_prompts, quality
from interp.graph import ComputationalGraph
from interp.setting import Setting
from metrics.circuit.evaluate import faithfulness_values
from tests.tiny import shared, tiny_task


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def circuit(model: Any) -> Circuit:
    graph = ComputationalGraph.of(model)
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)).pow(3) * graph.edge_mask
    return Circuit(Scores(values, graph, method="eap", model="tiny"), graph.edge_mask & (values > 0.5))


def test_sizes_go_up_by_threes_and_hold_the_circuit_and_the_end() -> None:
    assert sizes(45, 120) == [1, 3, 10, 30, 45, 120]
    assert sizes(1, 1) == [1]
    assert sizes(0, 0) == []
    assert sizes(0, 5) == [1, 3, 5]


def test_the_circuit_comes_first_and_what_it_grows_by_is_the_strongest_beside_it(circuit: Circuit) -> None:
    edges = adjacency(circuit, 10_000, more=30)
    assert edges.chosen == edges.total == circuit.n_edges
    assert len(edges.score) == circuit.n_edges + 30
    others = circuit.scores.values[circuit.graph.edge_mask & ~circuit.mask].abs().sort(descending=True).values[:30]
    assert edges.strength[edges.chosen :] == pytest.approx(others.numpy())
    assert len(adjacency(circuit, 10, more=30).score) == 10  # a circuit that has no room itself is not grown
    assert edges.first(5).source.tolist() == adjacency(circuit, 5).source.tolist()


def test_every_point_is_the_circuit_that_the_slider_draws(model: Any, circuit: Circuit) -> None:
    task, edges = tiny_task(model), adjacency(circuit, 10_000, more=30)
    setting = Setting.of(model, task, {}, circuit)
    rows = measured(circuit, edges, prompts_of(model, task, circuit))
    assert [row["edges"] for row in rows] == sizes(circuit.n_edges, circuit.n_edges + 30)
    for row in rows:
        mask = torch.zeros_like(circuit.mask)
        for source, target in edges.index[: row["edges"]]:
            mask[source, target] = True
        assert row["faithfulness"] == pytest.approx(faithfulness_values(setting.measure(mask[None]))[0], abs=1e-4)
        assert row["low"] <= row["faithfulness"] <= row["high"]
        assert "random" in row


def test_the_prompts_are_those_that_chose_the_circuit(model: Any, circuit: Circuit) -> None:
    task = tiny_task(model, n=8)
    known = {"scoring_share": 0.5, "seed": 3, "task": {"name": "tiny"}}
    found = replace(circuit, provenance=known, setting=replace(circuit.setting, task=task.to_dict()["sha256"]))
    prompts = prompts_of(model, task, found)
    scoring, _ = Setting.of(model, task, {}, found).split(0.5, 3)
    assert prompts.of == "scoring prompts"
    assert prompts.setting.task.to_dict()["sha256"] == scoring.task.to_dict()["sha256"]
    assert other_prompts(found, task) == ""
    other = tiny_task(model, n=8, seed=1)
    assert not prompts_of(model, other, found).same
    assert "others of the task 'tiny'" in other_prompts(found, other)


def test_knocking_out_is_the_change_of_the_objective(model: Any, circuit: Circuit) -> None:
    prompts = prompts_of(model, tiny_task(model), circuit)
    places = {name: index for index, name in enumerate(circuit.graph.sources)}
    found = knocked(prompts, "node", None, places, ["m0", "a1.h1"], [("m2", "m0", "m1")])
    assert list(found["changes"]) == ["m0", "a1.h1", "a1.h1,m0", "m0,m1,m2"]
    everything = knocked(prompts, "node", None, places, [], [[name for name in places if name != "input"]])
    empty = prompts.setting.measure(circuit.graph.edge_mask[None][:0]).empty.double().mean()
    (change,) = everything["changes"].values()
    assert everything["clean"] + change == pytest.approx(float(empty), rel=1e-3)


def test_without_a_report_the_card_has_no_lines(circuit: Circuit) -> None:
    told = quality(circuit)
    assert (told["lines"], told["held"]) == ([], None)

"""Circuits of edges by position: found, judged, filed, drawn and compared."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch

import circuits
import metrics
from attribution import attribute
from circuits import Circuit, find_circuit
from circuits.goals import ONE_ERROR, Goal
from interp.errors import InputError
from interp.run import Run
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.elements import elements_at
from tests.tiny import behaving, shared

SPANS = {"front": (0, 2), "end": (-1, None)}


@pytest.fixture(scope="module")
def model():
    return shared("llama", torch.float32)


@pytest.fixture(scope="module")
def task(model):
    found = behaving(model, 12)
    return Task(found.name, found.examples, objective=found.objective, spans=SPANS)


@pytest.fixture(scope="module")
def circuit(model, task):
    return find_circuit(model, task, method="eap", edges=150, positions="spans", quiet=True)


def test_of_a_size(model, task, circuit):
    assert circuit.spans == ("front", "end", "rest")
    assert circuit.n_edges == 150 == circuit.report.edges
    assert circuit.mask.shape == (3, *circuit.graph.shape)
    assert circuit.to_frame()["span"].isin(circuit.spans).all()
    assert "at 3 spans" in repr(circuit)
    held_out = task.split(0.5, 0)[1]
    values = metrics.measure(model, held_out, circuit, quiet=True)
    assert metrics.faithfulness(values)[0].value == pytest.approx(circuit.report.faithfulness, abs=1e-5)


def test_for_a_goal(model, task):
    found = find_circuit(model, task, method="eap", faithfulness=0.7, positions="all", n_random=1, quiet=True)
    assert isinstance(found.spans[0], int)
    assert found.report.ladder
    assert found.report.ladder[-1]["faithfulness"] >= 0.7
    assert found.report.trimmed["removed"] >= 0
    assert found.n_edges == min(row["edges"] for row in found.report.ladder if row["faithfulness"] >= 0.7)


def test_a_minimal_circuit_can_lose_no_edge_at_any_span(model, task):
    found = find_circuit(model, task, method="eap", faithfulness=0.5, positions="spans", minimal=True, quiet=True)
    assert found.report.trimmed["every_one"]
    scoring = task.split(0.5, 0)[0]
    elements = elements_at(Setting(model, scoring, run=Run(quiet=True)), "edge", found.spans)
    smaller = [elements.pruned(elements.without(found.mask, [place])) for place in elements.inside(found.mask).tolist()]
    whole, *less = Goal(0.5, spare=ONE_ERROR).reached(elements, [found.mask, *smaller])
    assert whole.enough
    assert not any(one.enough for one in less)


def test_files(tmp_path, circuit):
    again = Circuit.load(circuit.save(tmp_path / "circuit"))
    assert torch.equal(again.mask, circuit.mask)
    assert again.spans == circuit.spans
    assert again.edges == circuit.edges
    assert again.jaccard(circuit) == 1


def test_flattened_for_others(tmp_path, circuit):
    path = circuit.to_eap_ig_json(tmp_path / "circuit.json")
    flat = Circuit.from_eap_ig_json(path)
    assert torch.equal(flat.at_any_position().mask, circuit.anywhere)
    assert "150 edges at 3 spans: front, end, rest" in json.dumps(json.loads(path.read_text()))
    net = circuit.to_networkx()
    assert net.number_of_edges() == sum(len([*graph_links]) for graph_links in _links(circuit))
    assert {data["span"] for *_, data in net.edges(data=True)} <= set(circuit.spans)
    assert "<html" in circuit.to_html()
    circuit.to_graphml(tmp_path / "circuit.graphml")
    other = dataclasses.replace(circuit, mask=circuit.mask & (torch.arange(len(circuit.mask)) != 1)[:, None, None])
    beside = circuit.compare(other)
    assert beside.jaccard == other.n_edges / 150
    assert beside.to_frame().iloc[:, 0].str.endswith(("@front", "@end", "@rest")).all()
    assert beside.figure().data
    with pytest.raises(InputError, match="circuits at other positions have no overlap"):
        circuit.jaccard(circuit.at_any_position())


def _links(circuit):
    from circuits.links import links

    return (links(part, circuit.graph) for _, part in circuit.by_span())


def test_curve(model, task, caplog):
    scores = attribute(model, task, "eap", positions="spans", quiet=True)
    with caplog.at_level(logging.ERROR):
        curve = metrics.faithfulness_curve(model, task, scores, n_random=1, complement=True, quiet=True)
    assert curve.sizes[-1] == 3 * scores.graph.n_edges
    assert curve.faithfulness[-1] == pytest.approx(1, abs=1e-4)
    bare = metrics.faithfulness_curve(model, task, scores.values, spans=scores.spans, quiet=True)
    assert bare.faithfulness == pytest.approx(curve.faithfulness, abs=1e-5)


def test_balanced_circuits_are_nearer_to_the_model_than_connected_ones(model, task):
    scores = attribute(model, task, "eap", positions="spans", quiet=True)
    told = {"quiet": True, "resamples": 10}
    balanced = metrics.faithfulness_curve(model, task, scores, selection="balanced", choosing=task, **told)
    connected = metrics.faithfulness_curve(model, task, scores, selection="connected", **told)
    for one, other in zip(balanced.faithfulness, connected.faithfulness, strict=True):
        assert abs(1 - one) <= max(abs(1 - other), 0.01) + 1e-5


def test_stability_and_tests(model, task):
    found = circuits.stability(model, task, method="eap", edges=150, positions="spans", resamples=3, quiet=True)
    assert 0 < found.mask.n_edges <= 150  # top-n, pruned
    assert found.stable(0.6).spans == ("front", "end", "rest")
    assert found.to_frame()["edge"].str.contains("@").all()
    tested = metrics.circuit_tests(model, task, found.mask, n_random=4, sample=3, tests=["equivalence", "minimality"],
                                   quiet=True)  # fmt: skip
    assert len(tested.to_frame()) == 2


def test_refused(model, task):
    for told, words in [
        ({"method": "atp-star"}, "methods that tell positions apart: 'eap'"),
        ({"selection": "greedy"}, "selection='greedy' knows edges at all positions alone"),
        ({"reference": "grown"}, "reference='grown' is for circuits of edges at all positions"),
        ({"positions": [77]}, "names position 77"),
        ({"edges": 10**9}, "edges=1000000000 is out of range"),
    ]:
        with pytest.raises(InputError) as raised:
            find_circuit(model, task, **{"method": "eap", "edges": 5, "positions": "spans", "quiet": True, **told})
        assert words in str(raised.value)

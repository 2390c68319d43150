from __future__ import annotations

import networkx as nx
import pytest
import torch

from attribution.scores import Scores
from circuits import viewer
from circuits.circuit import Circuit
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.result import Result


def circuit_of(edges: dict[str, float], graph: ComputationalGraph | None = None, **known) -> Circuit:
    graph = graph or ComputationalGraph(1, 2)
    values, mask = torch.zeros(graph.shape), torch.zeros(graph.shape, dtype=torch.bool)
    for edge, score in edges.items():
        values[graph.edge_index(edge)], mask[graph.edge_index(edge)] = score, True
    return Circuit(Scores(values, graph, method=known.pop("method", "eap")), mask, **known)


HERE = {"input->m0": 1.0, "m0->logits": -2.0, "input->a0.h0<q>": 0.5}
THERE = {"input->m0": 4.0, "m0->logits": -2.5, "input->logits": 0.25}


def test_what_two_circuits_share_and_where_they_differ(tmp_path):
    comparison = viewer.compare(circuit_of(HERE), circuit_of(THERE))
    assert comparison.counts == {"both": 2, "only here": 1, "only there": 1}
    assert comparison.jaccard == 0.5
    frame = comparison.to_frame()
    assert frame.to_dict("list") == {
        "edge": ["input->m0", "input->a0.h0<q>", "m0->logits", "input->logits"],
        "membership": ["both", "only here", "both", "only there"],
        "here": [1.0, 0.5, -2.0, 0.0],
        "there": [4.0, 0.0, -2.5, 0.25],
        "difference": [-3.0, 0.5, 0.5, -0.25],
    }
    assert "2 edges in both, 1 only in here, 1 only in there; Jaccard 0.500" in repr(comparison)
    assert Result.load(comparison.save(tmp_path / "comparison.json")).to_frame().equals(frame)


def test_names_and_graphs_are_checked():
    first = circuit_of(HERE)
    with pytest.raises(InputError, match="two different names"):
        first.compare(first, names=("a", "a"))
    with pytest.raises(InputError, match="different graphs"):
        first.compare(circuit_of({}, ComputationalGraph(2, 2)))


def test_scores_of_different_methods_are_told_apart(tmp_path):
    comparison = circuit_of(HERE).compare(circuit_of(THERE, method="eap-ig"))
    assert not comparison.same_scale
    page = comparison.to_html(tmp_path / "compared.html")
    assert (tmp_path / "compared.html").read_text(encoding="utf-8") == page
    assert "they differ in scale too" in page
    assert "they differ in scale too" not in circuit_of(HERE).compare(circuit_of(THERE)).to_html()


def test_graphml_is_the_networkx_graph(tmp_path):
    circuit = circuit_of(HERE)
    path = circuit.to_graphml(tmp_path / "circuit.graphml")
    graph, own = nx.read_graphml(path, force_multigraph=True), circuit.to_networkx()
    assert dict(graph.nodes(data=True)) == dict(own.nodes(data=True))
    assert sorted(graph.edges(data="score")) == sorted(own.edges(data="score"))


def test_dot_quotes_what_it_must(tmp_path):
    circuit = circuit_of(HERE, provenance={"model": 'a "b" \\ c'})
    text = circuit.to_dot(tmp_path / "circuit.dot").read_text(encoding="utf-8")
    assert text.startswith('digraph "a \\"b\\" \\\\ c" {')
    assert '  "input" -> "a0.h0" [color="#0072B2", penwidth="1.62", tooltip="input->a0.h0<q> +0.5"];' in text
    assert '"m0" -> "logits" [color="#D55E00", penwidth="5.00"' in text
    assert text.count(" -> ") == 3

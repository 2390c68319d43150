"""Two circuits of nodes side by side: what they share by hand, in tables, files and pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attribution.scores import Scores
from circuits import Circuit, NodeCircuit
from interp import InputError
from interp.graph import ComputationalGraph
from interp.result import Result

GRAPH = ComputationalGraph(2, 2)


def circuit_of(values: list[list[float]], level: str = "neuron", method: str = "eap", **told: Any) -> NodeCircuit:
    """The nodes of positive score."""
    scores = torch.tensor(values)
    return NodeCircuit(Scores(scores, GRAPH, method=method, level=level, **told), scores > 0)


HERE, THERE = [[1.0, -1.0, 2.0], [0.5, 0.0, 0.0]], [[4.0, -1.5, 0.0], [0.25, 3.0, 0.0]]


def test_what_two_circuits_share_and_where_they_differ(tmp_path: Any) -> None:
    comparison = circuit_of(HERE).compare(circuit_of(THERE), ("ours", "theirs"))
    assert comparison.counts == {"both": 2, "only here": 1, "only there": 1}
    assert comparison.jaccard == 0.5
    frame = comparison.to_frame()
    assert frame.to_dict("list") == {
        "node": ["m0.n0", "m1.n1", "m0.n2", "m1.n0"],
        "membership": ["both", "only there", "only here", "both"],
        "here": [1.0, 0.0, 2.0, 0.5],
        "there": [4.0, 3.0, 0.0, 0.25],
        "difference": [-3.0, -3.0, 2.0, 0.25],
    }
    assert "2 nodes in both, 1 only in ours, 1 only in theirs; Jaccard 0.500" in repr(comparison)
    again = Result.load(comparison.save(tmp_path / "comparison.json"))
    assert again.to_frame().equals(frame)
    assert again.headline() == comparison.headline()


def test_the_picture_has_every_node_at_its_two_scores(tmp_path: Any) -> None:
    comparison = circuit_of(HERE).compare(circuit_of(THERE), ("<b>", "theirs"))
    both, here, there, _ = comparison.figure().data
    assert (list(both.x), list(both.y)) == ([1.0, 0.5], [4.0, 0.25])
    assert (list(here.x), list(there.y)) == ([2.0], [3.0])
    assert here.name == "only &lt;b&gt; (1)"
    assert comparison.to_html(tmp_path / "two.html") == (tmp_path / "two.html").read_text(encoding="utf-8")
    told = comparison.figure().layout.title.subtitle.text
    assert "differ in scale" not in told
    other = circuit_of(HERE).compare(circuit_of(THERE, method="relp"))
    assert "differ in scale too" in other.figure().layout.title.subtitle.text
    empty = circuit_of([[0.0], [0.0]]).compare(circuit_of([[0.0], [0.0]]))
    assert empty.jaccard == 1
    assert len(empty.figure().data) == 3


def test_the_input_of_heads_and_mlps_is_in_every_circuit_and_is_no_overlap() -> None:
    values = torch.zeros(2, len(GRAPH.sources))
    values[0, 1], values[1, 2] = 1.0, 1.0
    masks = values > 0
    masks[:, 0] = True
    first, second = (
        NodeCircuit(Scores(one, GRAPH, "eap", level="node"), mask) for one, mask in zip(values, masks, strict=True)
    )
    assert first.jaccard(second) == 0
    assert first.jaccard(first) == 1
    assert first.compare(second).to_frame()["node"].tolist() == ["a0.h0", "a0.h1"]


def test_what_edges_alone_have_is_told_in_a_sentence() -> None:
    neurons = circuit_of(HERE)
    with pytest.raises(AttributeError, match=r"circuit of neurons has no to_networkx: .*; see to_frame\(\)"):
        neurons.to_networkx()  # type: ignore[attr-defined]
    nodes = circuit_of([0.0, 1.0, *[0.0] * (len(GRAPH.sources) - 2)], "node")  # type: ignore[list-item]
    with pytest.raises(AttributeError, match=r"to_circuit\(\) has"):
        nodes.to_dot("x.dot")  # type: ignore[attr-defined]
    assert not hasattr(neurons, "n_edges")
    with pytest.raises(AttributeError, match="'NodeCircuit' object has no attribute 'other'"):
        _ = neurons.other  # type: ignore[attr-defined]


def test_positions_are_named_and_different_nodes_are_refused() -> None:
    values = [[[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]
    apart = circuit_of(values, spans=(3, 5))  # type: ignore[arg-type]
    assert apart.compare(apart).to_frame()["node"].tolist() == ["m0.n0@3", "m0.n1@5"]
    with pytest.raises(InputError, match="different nodes have no overlap"):
        apart.compare(circuit_of(values[0]))
    with pytest.raises(InputError, match="two different names"):
        apart.compare(apart, ("a", "a"))
    edges = Circuit(Scores(torch.zeros(GRAPH.shape), GRAPH, "eap"), GRAPH.edge_mask)
    for one, other in ((apart, edges), (edges, apart)):
        with pytest.raises(InputError, match="overlap"):
            one.compare(other)  # type: ignore[arg-type]

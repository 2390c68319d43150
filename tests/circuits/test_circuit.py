from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.report import Report
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection import prune

GRAPH = ComputationalGraph(2, 2)
EDGES = {
    "input->a0.h0<v>": 0.5,
    "a0.h0->m0": -2.0,
    "m0->a1.h1<q>": 0.25,
    "m0->a1.h1<k>": 0.75,
    "a1.h1->logits": 1.0,
}
REPORT = Report(
    faithfulness=0.912,
    interval=(0.87, 0.95),
    n_scoring=16,
    n_held_out=32,
    clean=3.2,
    corrupted=-3.1,
    circuit=2.6,
    ablation="patch",
    objective="logit difference",
    edges=5,
    nodes=5,
    fraction=5 / 46,
    ladder=[{"size": 4, "edges": 2, "faithfulness": 0.25}, {"size": 9, "edges": 5, "faithfulness": 0.9}],
    random_faithfulness=0.01,
    random_interval=(-0.02, 0.04),
    per_prompt={"clean": [3.0, 3.4], "empty": [-3.0, -3.2], "circuit": [2.5, 2.7]},
    notes=["<i>one</i> prompt was dropped"],
)


def circuit_of(edges: dict[str, float], graph: ComputationalGraph = GRAPH, **known) -> Circuit:
    values, mask = torch.zeros(graph.shape), torch.zeros(graph.shape, dtype=torch.bool)
    for edge, score in edges.items():
        index = graph.edge_index(edge)
        values[index], mask[index] = score, True
    scores = Scores(values, graph, method="eap-ig", model="tiny", task={"name": "ioi"}, seed=7)
    return Circuit(scores, mask, **known)


def test_a_circuit_names_its_nodes_and_edges():
    circuit = circuit_of(EDGES)
    assert circuit.nodes == ("input", "a0.h0", "m0", "a1.h1", "logits")
    assert set(circuit.edges) == set(EDGES)
    assert (circuit.n_edges, circuit.n_nodes) == (5, 5)
    assert circuit.graph is circuit.scores.graph
    empty = circuit_of({})
    assert (empty.nodes, empty.edges, empty.to_frame().shape) == ((), (), (0, 4))


def test_to_frame_holds_the_edges_from_the_strongest_down():
    frame = circuit_of(EDGES).to_frame()
    assert list(frame.columns) == ["edge", "source", "target", "score"]
    assert frame["edge"].tolist() == sorted(EDGES, key=lambda edge: -abs(EDGES[edge]))
    assert frame["score"].tolist() == [EDGES[edge] for edge in frame["edge"]]


def test_node_scores_give_every_edge_its_sources_score():
    values = torch.arange(7.0)
    circuit = Circuit(Scores(values, GRAPH, method="attribution-patching", level="node"), circuit_of(EDGES).mask)
    assert circuit.edge_scores()["m0->a1.h1<q>"] == GRAPH.sources.index("m0")


def test_networkx_has_an_edge_per_port():
    graph = circuit_of(EDGES).to_networkx()
    assert isinstance(graph, nx.MultiDiGraph)
    assert set(graph.nodes) == {"input", "a0.h0", "m0", "a1.h1", "logits"}
    assert graph["m0"]["a1.h1"] == {
        "q": {"port": "q", "score": 0.25, "edge": "m0->a1.h1<q>"},
        "k": {"port": "k", "score": 0.75, "edge": "m0->a1.h1<k>"},
    }
    assert graph["a0.h0"]["m0"]["in"]["score"] == -2.0
    assert nx.is_directed_acyclic_graph(graph)
    assert [graph.nodes[name]["layer"] for name in ("input", "m0", "a1.h1", "logits")] == [-1, 0, 1, 2]
    assert graph.graph == {"model": "tiny", "method": "eap-ig"}


def test_an_edge_into_a_group_reaches_the_heads_that_write():
    graph = ComputationalGraph(1, 4, 2, kv="group")
    edges = {"input->a0.h1<k>": 1.0, "input->a0.h3<q>": 0.5, "a0.h3->logits": 2.0}
    circuit = circuit_of(edges, graph)
    assert circuit.nodes == ("input", "a0.h3", "logits")  # head 2 of the group writes nothing
    assert set(circuit.to_networkx()["input"]["a0.h3"]) == {"q", "k"}
    both = circuit_of({**edges, "a0.h2->logits": 1.0}, graph)
    assert both.nodes == ("input", "a0.h2", "a0.h3", "logits")
    dead_end = circuit_of({"input->a0.h1<k>": 1.0}, graph)
    assert dead_end.nodes == ("input", "a0.h2", "a0.h3")


def test_jaccard_is_shared_edges_over_all():
    one = circuit_of(EDGES)
    other = circuit_of(dict.fromkeys(list(EDGES)[:4], 1.0) | {"input->logits": 1.0})
    assert one.jaccard(other) == other.jaccard(one) == 4 / 6
    assert one.jaccard(one) == circuit_of({}).jaccard(circuit_of({})) == 1.0
    assert one.jaccard(circuit_of({})) == 0.0
    with pytest.raises(InputError, match="different graphs"):
        one.jaccard(circuit_of({}, ComputationalGraph(2, 3)))


def test_provenance_is_filled_in_and_can_be_given():
    circuit = circuit_of(EDGES, provenance={"d_model": 64, "task": "mine"})
    assert circuit.provenance["model"] == "tiny"
    assert circuit.provenance["method"] == "eap-ig"
    assert circuit.provenance["seed"] == 7
    assert circuit.provenance["versions"]["torch"] == torch.__version__
    assert circuit.provenance["created"].endswith("+00:00")
    assert (circuit.provenance["d_model"], circuit.provenance["task"]) == (64, "mine")
    with pytest.raises(InputError, match="provenance must be"):
        circuit_of(EDGES, provenance={"model": object()})


def test_a_mask_that_does_not_fit_is_refused():
    scores = circuit_of(EDGES).scores
    with pytest.raises(InputError, match=r"mask must be a torch.bool tensor of shape \(7, 15\)"):
        Circuit(scores, torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(InputError, match="edges that do not exist"):
        Circuit(scores, torch.ones(GRAPH.shape, dtype=torch.bool))
    mask = GRAPH.edge_mask.clone()
    circuit = Circuit(scores, mask)
    mask[:] = False
    assert circuit.n_edges == GRAPH.n_edges


def test_the_report_reads_well():
    text = str(REPORT)
    assert "Faithfulness: 0.912, 95 % interval 0.870 to 0.950 (32 held-out prompts; chosen on 16 others)" in text
    assert "Random circuits: 0.010, 95 % interval -0.020 to 0.040" in text
    assert "Size: 5 edges (10.87% of the graph), 5 nodes" in text
    assert "Mean logit difference: model 3.200, circuit 2.600, empty circuit -3.100 (ablation: patch)" in text
    assert "Faithfulness by edges: 2: 0.25, 5: 0.90" in text
    assert "Note: <i>one</i> prompt was dropped" in text
    assert str(Report()) == "Nothing was measured."
    assert "<i>" not in REPORT._repr_html_()
    assert "&lt;i&gt;one" in REPORT._repr_html_()


def test_the_report_survives_json():
    assert Report.from_dict(json.loads(json.dumps(REPORT.to_dict()))) == REPORT
    assert Report.from_dict(Report().to_dict()) == Report()
    with pytest.raises(InputError, match="report is damaged: faithfulness: Input should be a valid number"):
        Report.from_dict({"faithfulness": "high"})
    with pytest.raises(InputError, match="report is damaged: colour"):
        Report.from_dict({"colour": "red"})


def test_the_report_takes_arrays_and_turns_what_is_undefined_to_none():
    report = Report(
        faithfulness=np.float32(0.5),
        interval=torch.tensor([0.25, 0.75]),
        random_faithfulness=float("nan"),
        random_interval=(float("nan"), 1.0),
        per_prompt={"clean": torch.tensor([1.0, float("inf")])},
        ladder=[{"size": np.int64(3), "edges": 2, "faithfulness": float("nan")}],
    )
    assert report.interval == (0.25, 0.75)
    assert (report.random_faithfulness, report.random_interval) == (None, None)
    assert report.per_prompt == {"clean": [1.0, None]}
    assert Report.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report
    assert "by edges" not in str(report)


def test_repr_and_html_summarise_and_escape():
    circuit = circuit_of(EDGES, report=REPORT, provenance={"model": "<script>alert(1)</script>"})
    text = repr(circuit)
    assert text.startswith("Circuit(5 of 46 edges, 5 nodes, <script>")
    assert text.endswith("ioi, eap-ig, faithfulness 0.912, 95 % interval 0.870 to 0.950)")
    page = circuit._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "a0.h0-&gt;m0" in page
    assert "-2" in page


def test_eap_ig_json_has_the_schema_of_the_reference(tmp_path: Path):
    circuit = circuit_of(EDGES, provenance={"d_model": 64})
    path = circuit.to_eap_ig_json(tmp_path / "graph.json")
    document = json.loads(path.read_text())
    assert document["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 64}
    assert list(document["nodes"]) == [*GRAPH.sources, "logits"]
    assert {name for name, node in document["nodes"].items() if node["in_graph"]} == set(circuit.nodes)
    assert set(document["edges"]) == set(GRAPH.edges())
    assert document["edges"]["a0.h0->m0"] == {"score": -2.0, "in_graph": True}
    assert document["edges"]["input->logits"] == {"score": 0.0, "in_graph": False}


@pytest.mark.parametrize(
    "graph", [GRAPH, ComputationalGraph(2, 4, 2), ComputationalGraph(2, 3, parallel=True)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eap_ig_json_round_trip(tmp_path: Path, graph, dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(graph.shape, generator=generator, dtype=dtype) * graph.edge_mask
    scores = Scores(values, graph, method="relp", model="m", settings={"steps": 3}, ablation="zero")
    circuit = Circuit(scores, scores.mask(graph.n_edges // 2))
    loaded = Circuit.from_eap_ig_json(circuit.to_eap_ig_json(tmp_path / "graph.json"))
    assert torch.equal(loaded.mask, circuit.mask)
    assert torch.equal(loaded.scores.values, values)
    assert loaded.graph == graph
    assert loaded.scores.to_dict() == scores.to_dict()
    assert loaded.provenance == circuit.provenance


def test_eap_ig_json_ungroups_what_is_grouped(tmp_path: Path):
    grouped = ComputationalGraph(2, 4, 2, kv="group")
    scores = Scores(torch.randn(grouped.shape) * grouped.edge_mask, grouped, method="eap")
    circuit = Circuit(scores, scores.mask(60))
    loaded = Circuit.from_eap_ig_json(circuit.to_eap_ig_json(tmp_path / "graph.json"))
    assert loaded.graph == ComputationalGraph(2, 4, 2)
    assert torch.equal(prune(loaded.mask, loaded.graph).any(dim=1), prune(circuit.mask, grouped).any(dim=1))
    lost = loaded.scores.values.double().sum() - scores.values.double().sum()  # terms of both signs: of their size
    assert lost.abs() < 1e-5 * scores.values.abs().max()
    for edge, score in circuit.edge_scores().items():
        source, _, target = edge.partition("->")
        head, _, port = target.partition("<")
        if port in ("k>", "v>"):
            layer, _, group = head.partition(".h")
            for member in (2 * int(group), 2 * int(group) + 1):
                index = loaded.graph.edge_index(f"{source}->{layer}.h{member}<{port}")
                assert loaded.mask[index]
                assert loaded.scores.values[index].item() == pytest.approx(score / 2)
        else:
            assert loaded.mask[loaded.graph.edge_index(edge)]


def test_eap_ig_json_keeps_node_scores(tmp_path: Path):
    scores = Scores(torch.randn(7), GRAPH, method="attribution-patching", level="node")
    circuit = Circuit(scores, scores.mask(4))
    path = circuit.to_eap_ig_json(tmp_path / "graph.json")
    assert json.loads(path.read_text())["nodes"]["m0"]["score"] == scores.values[3].item()
    loaded = Circuit.from_eap_ig_json(path)
    assert loaded.scores.level == "node"
    assert torch.equal(loaded.mask, circuit.mask)


def foreign(**changes) -> str:
    """A file as the reference or MIB writes one: nothing of ours, and not every edge need be there."""
    document = {
        "cfg": {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8},
        "nodes": {"input": {"in_graph": True}, "m0": {"in_graph": True}, "logits": {"in_graph": True}},
        "edges": {
            "input->m0": {"score": 0.5, "in_graph": True},
            "m0->logits": {"in_graph": True},
            "input->a0.h0<q>": {"score": -0.25, "in_graph": False},
        },
    }
    return json.dumps({**document, **changes})


def test_files_of_the_reference_are_read(tmp_path: Path):
    path = tmp_path / "graph.json"
    path.write_text(foreign())
    circuit = Circuit.from_eap_ig_json(path)
    assert circuit.edges == ("input->m0", "m0->logits")
    assert circuit.scores.values[GRAPH.edge_index("input->a0.h0<q>")] == -0.25
    assert circuit.scores.method == "eap-ig-json"
    assert circuit.scores.ablation == "unknown"
    assert circuit.provenance["created"] is None
    node_level = {"input": {"in_graph": True, "score": 1.5}, "m0": {"in_graph": True, "score": -1.0}}
    path.write_text(foreign(nodes=node_level, edges={"input->m0": {"score": 0.0, "in_graph": True}}))
    by_node = Circuit.from_eap_ig_json(path)
    assert by_node.scores.level == "node"
    assert by_node.scores.values[:1].tolist() == [1.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged, or is not a graph of EAP-IG"),
        ("[]", "is damaged, or is not a graph of EAP-IG"),
        ("{}", "is damaged, or is not a graph of EAP-IG"),
        (foreign(cfg={"n_layers": 2}), "is damaged, or is not a graph of EAP-IG"),
        (foreign(cfg={"n_layers": 0, "n_heads": 1, "parallel_attn_mlp": False}), "n_layers=0 must be a whole number"),
        (foreign(edges={"m1->m0": {"score": 1.0, "in_graph": True}}), "m1 is not upstream of m0"),
        (foreign(edges={"m7->logits": {"score": 1.0, "in_graph": True}}), "edge='m7->logits' is not an edge"),
        (foreign(edges={"input->m0": {"score": float("nan"), "in_graph": True}}), "values are NaN or infinite"),
        (foreign(edges={"input->m0": {"score": 1.0}}), "is damaged, or is not"),
        (foreign(nodes={"m0": {"in_graph": True, "neurons": [True]}}), "it selects single neurons"),
    ],
)
def test_what_is_no_graph_of_eap_ig_is_refused_in_a_sentence(tmp_path: Path, text, message):
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Circuit.from_eap_ig_json(path)
    with pytest.raises(InputError, match="does not exist"):
        Circuit.from_eap_ig_json(tmp_path / "none.json")

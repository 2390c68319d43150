"""The page and the figure of a circuit of nodes, against tables and brute force."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from attribution.scores import Scores
from circuits import NodeCircuit, viewer
from circuits.report import Report
from circuits.viewer.linked import linked_views
from circuits.viewer.nodes import data as page_data
from circuits.viewer.nodes.page import SCRIPTS, SHELL
from circuits.viewer.promoted import TOP_TOKENS
from interp import ComputationalGraph, InputError, theme
from interp.dictionaries.sets import DictionarySet
from interp.inspection import anatomy_of
from tests.dictionaries import random_dictionary
from tests.oracle import model_of
from tests.tiny import D_MODEL, HEADS, LAYERS, MLP, VOCAB, tiny_task

ATTACK = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)> $data'
ASSETS = Path(viewer.__file__).parent / "nodes" / "assets"
GRAPH = ComputationalGraph(LAYERS, HEADS)
SHAPES = {"neuron": (LAYERS, MLP), "head": (LAYERS, HEADS), "node": (GRAPH.shape[0],)}
SPANS = (2, 4, 5)
CASES = [("neuron", None), ("neuron", SPANS), ("head", None), ("head", SPANS), ("node", None), ("node", SPANS)]
PLACES = ["residual", "mlp", "transcoder"]


def make(level: str, spans: tuple[int, ...] | None = None, share: float = 0.5, **known: Any) -> NodeCircuit:
    """A circuit of random scores, of which it holds a share."""
    shape = SHAPES[level]
    shape = shape if spans is None else (*shape[:-1], len(spans), shape[-1])
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(3)
    scores = Scores(
        values, known.pop("graph", GRAPH), method="eap-ig", level=level, spans=spans, model="tiny", task={"name": "ioi"}
    )
    count = int(share * values.numel())
    mask = values.abs() >= values.abs().flatten().sort(descending=True).values[max(count - 1, 0)]
    return NodeCircuit(scores, mask & (count > 0), **known)


def of_features(name: str, **known: Any) -> NodeCircuit:
    dictionaries = [random_dictionary(place, D_MODEL) for place in PLACES]
    made = DictionarySet(tuple(dictionaries), "nodes").to_dict()
    values = torch.randn(3, dictionaries[0].n_features + 1, generator=torch.Generator().manual_seed(1))
    graph = ComputationalGraph.of(model_of(name))
    scores = Scores(values, graph, method="eap", level="feature", settings=made, dictionaries=tuple(dictionaries))
    return NodeCircuit(scores, values.abs() > 0.3, **known)


def embedded(page: str) -> Any:
    return json.loads(page.partition('id="circuit-data">')[2].partition("</script>")[0])


def column(data: Any, name: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data["nodes"][name]), kind)


def layer_of(frame: pd.DataFrame) -> list[int]:
    """From names, independently of where nodes stand in their tensor."""
    return [int(name.lstrip("am").partition(".")[0]) for name in frame["node"]]


@pytest.mark.parametrize(("level", "spans"), CASES)
def test_the_page_holds_every_node_and_the_sums_of_each_layer(level, spans):
    circuit = make(level, spans)
    data, frame = embedded(circuit.to_html()), circuit.to_frame()
    assert data["nodes"]["name"] == list(circuit.nodes)
    np.testing.assert_allclose(column(data, "score", "<f4"), frame["score"], rtol=1e-6)
    layers = layer_of(frame)
    assert column(data, "row", "<u2").tolist() == layers
    if spans is not None:
        assert [spans[at] for at in column(data, "span", "<u2")] == frame["position"].tolist()
    rows = data["rows"]
    for layer in range(LAYERS):
        own = frame[[one == layer for one in layers]]
        assert rows["nodes"][layer] == len(own)
        assert rows["helps"][layer] == pytest.approx(own["score"].clip(lower=0).sum())
        assert rows["hurts"][layer] == pytest.approx(own["score"].clip(upper=0).sum())
        assert circuit.nodes[rows["largest"][layer]] == circuit.nodes[own.index[0]]
    per = {"neuron": MLP, "head": HEADS, "node": HEADS + 1}[level] * len(spans or (0,))
    assert rows["of"] == [per] * LAYERS
    if spans is not None:
        for at, place in enumerate(spans):
            own = frame[frame["position"] == place]["score"]
            assert data["spans"]["nodes"][at] == len(own)
            assert data["spans"]["helps"][at] + data["spans"]["hurts"][at] == pytest.approx(own.sum())


@pytest.mark.parametrize(("level", "spans"), CASES[2:])
def test_a_grid_holds_all_heads_of_the_model(level, spans):
    circuit = make(level, spans)
    grid = embedded(circuit.to_html())["grid"]
    scores = np.frombuffer(base64.b64decode(grid["score"]), "<f4").reshape(LAYERS, -1)
    inside = np.frombuffer(base64.b64decode(grid["inside"]), "u1").reshape(LAYERS, -1)
    every = NodeCircuit(circuit.scores, torch.ones_like(circuit.node_mask)).to_frame()
    total, held = every.groupby("node")["score"].sum(), set(circuit.to_frame()["node"])
    names = [
        [*(f"a{layer}.h{head}" for head in range(HEADS)), f"m{layer}"][: scores.shape[1]] for layer in range(LAYERS)
    ]
    np.testing.assert_allclose(scores, [[total[name] for name in row] for row in names], rtol=1e-5)
    assert [[name in held for name in row] for row in names] == inside.astype(bool).tolist()


def test_features_stand_by_dictionary_and_errors_write_nothing_of_their_own():
    circuit = of_features("llama")
    data, frame = embedded(circuit.to_html(model=model_of("llama"))), circuit.to_frame()
    assert data["rows"]["name"] == ["residual0", "mlp1", "transcoder2"]
    rows = column(data, "row", "<u2")
    assert [data["rows"]["name"][row] for row in rows] == [name.partition(".")[0] for name in frame["node"]]
    assert (frame["feature"] < 0).any()
    assert set(data["known"]["moved"]) == set(frame[frame["feature"] >= 0]["node"])


def spread_logits(model: Any, written: torch.Tensor) -> list[float]:
    """What a direction adds to the logits, token by token, in standard deviations over the vocabulary."""
    anatomy = anatomy_of(model)
    norm, weight = anatomy.final_norm, anatomy.unembed.weight
    centred = written - written.mean() if norm.kind == "layer" else written
    gained = centred * (1 if norm.gain is None else norm.gain)
    logits = np.array([float(gained @ weight[token]) for token in range(VOCAB)])
    return list((logits - logits.mean()) / logits.std())


def assert_promoted(ends: Any, logits: list[float]) -> None:
    order = sorted(range(VOCAB), key=lambda token: -logits[token])
    for end, tokens in zip(ends, (order, order[::-1]), strict=True):
        assert [token for token, _ in end] == [str(token) for token in tokens[:TOP_TOKENS]]
        assert [value for _, value in end] == pytest.approx([logits[token] for token in tokens[:TOP_TOKENS]], rel=6e-3)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_promoted_tokens_of_neurons_are_those_of_their_write_vector(name):
    model = model_of(name)
    circuit = make("neuron", graph=ComputationalGraph.of(model))
    moved = embedded(circuit.to_html(model=model))["known"]["moved"]
    frame = circuit.to_frame()
    assert set(moved) == set(frame["node"])
    for row in frame.head(3).to_dict("records"):
        block = anatomy_of(model).blocks[row["layer"]]
        written = block.mlp.down.weight[:, row["neuron"]].detach()
        if name == "gemma2":  # a norm behind the MLP: its divisor is a positive number
            written = written * block.mlp_post_norm.gain
        assert_promoted(moved[row["node"]], spread_logits(model, written.detach()))


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_promoted_tokens_of_features_are_those_of_their_decoder(name):
    model, circuit = model_of(name), of_features(name)
    moved = embedded(circuit.to_html(model=model))["known"]["moved"]
    for row in circuit.to_frame().query("feature >= 0").groupby("dictionary").head(1).to_dict("records"):
        one = circuit.dictionaries[row["dictionary"]]
        written, norm = one.W_dec[row["feature"]], anatomy_of(model).blocks[one.layer].mlp_post_norm
        if norm is not None and one.site != "residual":
            written = written * norm.gain.detach()
        assert_promoted(moved[row["node"]], spread_logits(model, written))


@torch.no_grad()
def test_activations_are_those_of_hooks_on_both_runs():
    model = model_of("llama")
    task, circuit = tiny_task(model), make("neuron", graph=ComputationalGraph.of(model))
    features = of_features("llama")
    found = embedded(circuit.to_html(model=model, task=task, example=1))["known"]
    encoded = embedded(features.to_html(model=model, task=task, example=1))["known"]["activations"]
    prompts = task.prompts(model)
    assert [found[key] for key in ("example", "clean")] == [1, [str(int(token)) for token in prompts.clean[1]]]
    for run, tokens in enumerate((prompts.clean[1:2], prompts.corrupted[1:2])):
        hidden: dict[int, torch.Tensor] = {}
        hooks = [
            layer.mlp.down_proj.register_forward_pre_hook(
                lambda module, inputs, at=at, hidden=hidden: hidden.__setitem__(at, inputs[0][0])
            )
            for at, layer in enumerate(model.original_model.model.layers)
        ]
        streams = model.original_model(tokens, output_hidden_states=True).hidden_states
        for hook in hooks:
            hook.remove()
        for row in circuit.to_frame().head(5).to_dict("records"):
            expected = hidden[row["layer"]][:, row["neuron"]].tolist()
            assert found["activations"][row["node"]][run] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        residual = features.dictionaries[0].encode(streams[1][0])
        for row in features.to_frame().query("dictionary == 0 and feature >= 0").to_dict("records"):
            expected = residual[:, row["feature"]].tolist()
            assert encoded[row["node"]][run] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_heads_have_their_direct_effects_on_a_prompt():
    model = model_of("llama")
    task, circuit = tiny_task(model), make("node", SPANS, graph=ComputationalGraph.of(model))
    found = embedded(circuit.to_html(model=model, task=task))
    names = list(dict.fromkeys(circuit.to_frame()["node"]))
    effects = linked_views(model, task, names).effects
    assert found["known"]["direct"] == pytest.approx({name: effects[name].direct for name in names}, rel=1e-3)
    clean = task.prompts(model).clean[0].tolist()
    assert found["spans"]["token"] == [str(clean[place]) for place in SPANS]


def test_the_report_and_its_intervals_are_in_the_page():
    report = Report(
        faithfulness=0.9, interval=(0.8, 1.0), random_faithfulness=0.1, complement=0.05, complement_interval=(0.0, 0.1),
        level="neuron", ladder=[{"size": n, "nodes": n, "faithfulness": n / 64} for n in (4, 16, 64)],
    )  # fmt: skip
    circuit = make("neuron", report=report)
    data = embedded(circuit.to_html())["report"]
    assert data["points"] == [
        ["circuit", 0.9, [0.8, 1.0]], ["random neurons", 0.1, None], ["all but the circuit", 0.05, [0.0, 0.1]],
    ]  # fmt: skip
    assert data["ladder"] == [[4, 0.0625], [16, 0.25], [64, 1.0]]
    assert data["lines"] == [list(line) for line in report.rows()]
    assert dict(embedded(circuit.to_html())["provenance"])["method"] == "eap-ig"
    assert "faithfulness 0.90 (95 % interval 0.80 to 1.00)" in circuit.to_html()
    assert "Circuit of nodes" in circuit._repr_html_()


def test_of_many_nodes_the_page_holds_the_strongest_and_sums_over_all(monkeypatch, tmp_path):
    monkeypatch.setattr(page_data, "EMBEDDED_LIMIT", 10)
    circuit = make("neuron")
    page = circuit.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    data = embedded(page)
    assert data["nodes"]["name"] == list(circuit.nodes[:10])
    assert data["nodes"]["total"] == circuit.n_nodes == sum(data["rows"]["nodes"])
    assert sum(data["rows"]["helps"]) == pytest.approx(circuit.to_frame()["score"].clip(lower=0).sum())


def test_a_page_of_20_000_nodes_stays_small():
    values = torch.randn(6, 5_000, generator=torch.Generator().manual_seed(0))
    scores = Scores(values, ComputationalGraph(6, 2), method="eap", level="neuron")
    page = NodeCircuit(scores, torch.ones_like(values, dtype=torch.bool)).to_html()
    assert len(embedded(page)["nodes"]["name"]) == 20_000
    assert len(page) < 1_000_000


@pytest.mark.parametrize(("level", "spans"), CASES)
def test_an_empty_circuit_has_a_page_and_a_figure(level, spans):
    circuit = make(level, spans, share=0.0)
    assert circuit.n_nodes == 0
    assert embedded(circuit.to_html())["nodes"]["name"] == []
    assert circuit.figure().layout.title.text


def test_every_script_and_style_is_in_the_page_and_markup_cannot_leave_the_data(monkeypatch):
    own = {name.partition(":")[2] for name in (*SCRIPTS, *SHELL.styles, *SHELL.help, SHELL.stage) if ":" in name}
    assert {path.name for path in ASSETS.iterdir()} == own
    monkeypatch.setattr("circuits.viewer.promoted.token_texts", lambda tokenizer, ids: [ATTACK for _ in ids])
    model = model_of("llama")
    circuit = make("neuron", graph=ComputationalGraph.of(model), report=Report(notes=[ATTACK]),
                   provenance={"model": ATTACK, "task": {"name": ATTACK}})  # fmt: skip
    page = circuit.to_html(model=model)
    for name in own:
        assert (ASSETS / name).read_text(encoding="utf-8") in page
    assert page.count("<script") == page.count("</script>") == 2
    assert ATTACK not in page
    assert embedded(page)["known"]["moved"][circuit.nodes[0]][0][0][0] == ATTACK
    assert embedded(page)["report"]["lines"] == [["Note", ATTACK]]
    assert "<img" not in circuit.figure().layout.title.text


@pytest.mark.parametrize(
    ("circuit", "views", "told"),
    [
        (make("neuron"), {"task": 0}, "give model= too"),
        (make("head", graph=ComputationalGraph(LAYERS, HEADS, 2)), {"model": "llama"}, "give task= beside model="),
        (make("neuron", graph=ComputationalGraph(LAYERS, 2)), {"model": "llama"}, "another graph"),
        (make("neuron"), {"models": 0}, "did you mean 'model'"),
    ],
)
def test_what_the_page_cannot_be_told_is_refused(circuit, views, told):
    views = {name: model_of(value) if value == "llama" else value for name, value in views.items()}
    with pytest.raises(InputError, match=told):
        circuit.to_html(**views)


def test_a_circuit_from_a_file_asks_for_its_dictionaries(tmp_path):
    circuit = of_features("llama")
    again = NodeCircuit.load(circuit.save(tmp_path / "features.json"))
    assert embedded(again.to_html())["nodes"]["name"] == list(circuit.nodes)
    with pytest.raises(InputError, match="with_dictionaries"):
        again.to_html(model=model_of("llama"))


@pytest.mark.parametrize(("level", "spans"), CASES)
def test_the_figure_draws_every_node_and_the_sums(level, spans):
    circuit = make(level, spans)
    frame, figure = circuit.to_frame(), circuit.figure()
    bars = [trace for trace in figure.data if isinstance(trace, go.Bar)]
    assert [trace.marker.color for trace in bars] == [theme.POSITIVE, theme.NEGATIVE]
    layers = layer_of(frame)
    for trace, part in zip(bars, (frame["score"].clip(lower=0), frame["score"].clip(upper=0)), strict=True):
        assert list(trace.x) == pytest.approx(
            part.groupby(layers).sum().reindex(range(LAYERS), fill_value=0.0).tolist()
        )
    if level == "neuron":
        marks = [trace for trace in figure.data if isinstance(trace, go.Scatter)]
        told = sorted(text.partition(":")[0] for trace in marks for text in trace.hovertext)
        assert told == sorted(circuit.nodes)
        assert {round(y) for trace in marks for y in trace.y} == set(layers)
        if spans is None:
            assert sorted(float(x) for trace in marks for x in trace.x) == pytest.approx(sorted(frame["score"]))
    else:
        assert len(figure.data[1].x) == frame["node"].nunique()
        assert figure.data[0].z.shape == (LAYERS, HEADS + (level == "node"))


def test_what_draws_circuits_of_edges_draws_those_of_nodes(tmp_path, monkeypatch):
    circuit, other = make("neuron"), make("neuron", share=0.2)
    shown: list[str] = []
    monkeypatch.setattr("circuits.viewer.page.show_page", lambda page, _: shown.append(page))
    page = viewer.to_html(circuit, tmp_path / "page.html")
    assert page == circuit.to_html() == (tmp_path / "page.html").read_text(encoding="utf-8")
    viewer.show(circuit)
    assert shown == [page]
    assert viewer.figure(circuit) == circuit.figure()
    beside = viewer.compare(circuit, other, ("one", "two"))
    assert beside.to_frame().equals(circuit.compare(other, ("one", "two")).to_frame())
    assert viewer.comparison_figure(beside) == beside.figure()
    figure = json.loads(beside.figure().to_json())
    page = viewer.comparison_to_html(beside, tmp_path / "beside.html")
    assert page == (tmp_path / "beside.html").read_text(encoding="utf-8")
    assert json.dumps(figure["layout"]["title"]["text"]) in page


def test_what_is_no_page_or_no_circuit_of_the_same_is_refused():
    circuit = make("neuron")
    with pytest.raises(InputError, match="page must be the text of a page, as to_html gives it; got NodeCircuit"):
        viewer.show_page(circuit)
    for draw in (viewer.comparison_figure, viewer.comparison_to_html):
        with pytest.raises(InputError, match=r"comparison must be what compare\(here, there\) gives; got NodeCircuit"):
            draw(circuit)
    edges = make("node").to_circuit()
    for here, there in ((circuit, edges), (edges, circuit)):
        with pytest.raises(InputError, match="overlap"):
            viewer.compare(here, there)
    with pytest.raises(InputError, match="keyword of to_html='curve' is unknown"):
        viewer.to_html(circuit, curve=None)

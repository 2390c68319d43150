"""Interventions and checks of attribution graphs against the model run with hooks."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution import Dictionary
from circuits import AttributionGraph, trace
from interp.errors import InputError
from interp.result import Result
from tests.oracle import error, model_of, run, sub_layer
from tests.tiny import D_MODEL, LAYERS

IDS = [4, 17, 9, 30, 2, 41, 8]
TOKENS = torch.tensor([IDS])


@functools.cache
def traced(name):
    return trace(model_of(name), IDS, [7, (3, 5)], top=20, quiet=True)


def patterns(model):
    """Edits that put the clean attention patterns in their places."""
    points = [f"blocks.{layer}.attn.hook_pattern" for layer in range(LAYERS)]
    kept = run(model, TOKENS, keep=points)[1]
    return {point: lambda x, point=point: kept[point] for point in points}


@pytest.mark.parametrize(
    ("name", "attention"),
    # GPT-J's bridge lets no hook change its patterns
    [*((name, kind) for name in ("llama", "gpt2", "gemma2") for kind in ("frozen", "free")), ("gptj", "free")],
)
@torch.no_grad()
def test_what_happens_is_what_the_model_does_under_hooks(name, attention):
    graph, model = traced(name), model_of(name)
    units = graph.nodes[graph.nodes["kind"] == "neuron"]
    row = units.index[units["layer"] == units["layer"].min()][0]
    layer, position, unit = (int(graph.nodes[column][row]) for column in ("layer", "position", "unit"))
    found = graph.intervene(scale={graph.nodes["name"][row]: -2.0}, set={(1, 2, 3): 0.75}, attention=attention)
    points = [f"blocks.{i}.mlp.out.hook_in" for i in range(LAYERS)]

    def edit(x, layer):
        x = x.clone()
        if layer == 1:
            x[:, 2, 3] = 0.75
        if layer == here[0]:
            x[:, position, unit] = -2.0 * float(graph.nodes["activation"][row])
        return x

    here = (layer, position, unit)
    edits = {points[i]: functools.partial(edit, layer=i) for i in {1, layer}}
    edits |= patterns(model) if attention == "frozen" else {}
    logits, kept = run(model, TOKENS, edits, keep=points)
    clean, before = run(model, TOKENS, keep=points)
    assert error(found.logits, logits[0, -1]) < 1e-10
    assert error(found.before, clean[0, -1]) < 1e-10
    for node in found.nodes[found.nodes["kind"] == "neuron"].itertuples():
        place = (0, node.position, node.unit)
        assert node.after == pytest.approx(float(kept[points[node.layer]][place]), abs=1e-10)
        assert node.before == pytest.approx(float(before[points[node.layer]][place]), abs=1e-10)
    values = found.nodes[found.nodes["kind"] == "logit"]["after"].tolist()
    assert values == pytest.approx([float(logits[0, -1, 7]), float(logits[0, -1, 3] - logits[0, -1, 5])])
    assert found.nodes["change"].abs().sum() > 0.1
    assert found.changed[f"m1.n3@2"] == 0.75  # noqa: F541


def test_setting_a_unit_to_what_it_is_changes_nothing():
    graph = traced("qwen3")
    for attention in ("frozen", "free"):
        found = graph.intervene(scale=dict.fromkeys(range(20), 1.0), attention=attention)
        assert found.nodes["change"].abs().max() < 1e-10


@torch.no_grad()
def test_a_feature_is_set_where_its_decoders_write():
    """In the MLPs of its own layer and of the one behind."""
    model, generator = model_of("gemma2"), torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    units = [
        Dictionary.from_tensors(layer, "transcoder", W_enc=draw(20, D_MODEL), b_enc=draw(20), W_dec=draw(20, D_MODEL),
                                b_dec=draw(D_MODEL), reads="normalized", writes="added",
                                W_later=draw(1, 20, D_MODEL) if layer == 1 else None) for layer in range(LAYERS)
    ]  # fmt: skip
    graph = trace(model, IDS, 7, units=units, top=None, quiet=True)
    node = graph.nodes[(graph.nodes["kind"] == "feature") & (graph.nodes["layer"] == 1)].iloc[0]
    found = graph.intervene(set={node["name"]: 5.0}, attention="free")

    def edit(x, decoder):
        x = x.clone()
        x[:, node["position"]] += (5.0 - node["activation"]) * decoder[node["unit"]]
        return x

    edits = {
        sub_layer(model, "mlp", 1 + i): functools.partial(edit, decoder=decoder)
        for i, decoder in enumerate((units[1].W_dec, units[1].W_later[0]))
    }
    logits = run(model, TOKENS, edits)[0]
    assert error(found.logits, logits[0, -1]) < 1e-10
    assert found.nodes[found.nodes["name"] == node["name"]]["after"].tolist() == [5.0]
    checked = graph.check(5)
    assert set(checked.to_frame()["group"]) == {"top", "random"}


def test_silencing_is_what_is_measured_and_scores_what_is_predicted(tmp_path):
    graph = traced("llama")
    found = graph.check(8, "free", seed=3)
    points = found.points[found.points["group"] == "top"]
    shares = graph.weights[graph.kinds().logits] / graph.weights.sum()
    for point in points.itertuples():
        change = graph.intervene(scale={point.label: 0.0}, attention="free").nodes
        moved = torch.tensor(change[change["kind"] == "logit"]["change"].to_numpy(copy=True))
        assert point.reference == pytest.approx(-float(moved @ shares), abs=1e-10)
        node = graph.nodes[graph.nodes["name"] == point.label].iloc[0]
        assert point.score == pytest.approx(node["score"], rel=1e-9)
    best = graph.nodes[graph.kinds().units.numpy()].nlargest(8, "influence")
    assert set(points["label"]) == set(best["name"])
    row = found.to_frame().iloc[0]
    assert row["pearson_low"] <= row["pearson"] <= row["pearson_high"]
    assert found.points["label"].nunique() > 8
    again = graph.check(8, "free", seed=3)
    assert again.points.equals(found.points)
    assert not graph.check(8, "free", seed=4).points.equals(found.points)
    assert Result.load(found.save(tmp_path / "check.json")).to_frame().equals(found.to_frame())


def test_a_graph_from_a_file_needs_its_model(tmp_path):
    graph = traced("llama")
    loaded = AttributionGraph.load(graph.save(tmp_path / "graph.json"))
    with pytest.raises(InputError, match="attached"):
        loaded.intervene(scale={0: 0.0})
    with pytest.raises(InputError, match="another model"):
        loaded.attached(model_of("qwen3"))
    own = loaded.attached(model_of("llama"))
    assert own.intervene(scale={0: 0.0}).nodes.equals(graph.intervene(scale={0: 0.0}).nodes)
    assert own.prune().subject is own.subject


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "both empty"),
        ({"scale": {"m9.n1@1": 0.0}}, "no node of this graph"),
        ({"scale": {"token@1": 0.0}}, "no neuron"),
        ({"scale": {500: 0.0}}, "graph.nodes"),
        ({"scale": {(0, 0, 99): 0.0}}, "layer, position, unit"),
        ({"scale": {(0, 0): 0.0}}, "layer, position, unit"),
        ({"scale": {0: 0.0}, "set": {0: 1.0}}, "twice"),
        ({"set": {0: float("nan")}}, "set"),
        ({"scale": {0: 0.0}, "attention": "held"}, "attention"),
    ],
    ids=str,
)
def test_bad_interventions_are_refused(given, told):
    with pytest.raises(InputError, match=told):
        traced("llama").intervene(**given)
    with pytest.raises(InputError, match="n"):
        traced("llama").check(2)
    with pytest.raises(InputError, match="shows 20 units"):
        traced("llama").check(21)


def test_other_experts_are_told():
    graph = trace(model_of("mixtral"), IDS, 7, top=20, quiet=True)
    first = graph.nodes[(graph.nodes["kind"] == "neuron") & (graph.nodes["layer"] == 0)]
    same = graph.intervene(scale={first["name"].iloc[0]: 1.0})
    assert same.rerouted == []
    found = graph.intervene(scale=dict.fromkeys(first["name"], -300.0))
    assert found.rerouted
    assert all(layer > 0 for layer, _ in found.rerouted)  # the routing of the first layer reads no neuron
    assert f"other experts at {len(found.rerouted)} places" in repr(found)

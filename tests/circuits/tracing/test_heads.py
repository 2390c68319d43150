"""`circuits.trace(units="heads")`: rows, files, and heads and MLPs that are really silenced."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution.tracing.units import Places
from circuits import AttributionGraph, trace
from interp.errors import InputError
from tests.oracle import error, model_of, run, sub_layer
from tests.tiny import HEADS, LAYERS

IDS = [4, 17, 9, 30, 2, 41, 8]
TOKENS = torch.tensor([IDS])


@functools.cache
def traced(name, top=20):
    return trace(model_of(name), IDS, [7, (3, 5)], units="heads", top=top, quiet=True)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_rows_add_up_and_everything_shown_leaves_nothing_out(name):
    few, whole = traced(name), traced(name, None)
    for graph in (few, whole):
        kinds, nodes = graph.kinds(), graph.nodes
        rows = kinds.units | kinds.logits
        assert error(graph.adjacency.sum(1)[rows], torch.tensor(nodes["activation"].to_numpy(copy=True))[rows]) < 1e-10
        assert nodes["name"].is_unique
        units = nodes[kinds.units.numpy()]
        assert (units["score"] - units["activation"]).abs().max() < 1e-12
    assert set(whole.nodes["kind"]) >= {"head", "mlp", "token", "logit"}
    assert "remainder" not in set(whole.nodes["kind"])
    # at the end of the last layer alone is anything read
    assert int(whole.kinds().units.sum()) <= ((LAYERS - 1) * len(IDS) + 1) * (HEADS + 1)
    mlps = whole.nodes[whole.nodes["kind"] == "mlp"]
    assert (mlps["unit"] == -1).all()
    assert "m2@6" in mlps["name"].tolist()
    assert "a2.h0@6" in whole.nodes["name"].tolist()
    assert whole.replacement_score == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_what_they_write_is_what_they_give_along_any_vector(name):
    """What they write along any vector is what the units say that they give along it."""
    graph = traced(name, None)
    of, nodes = graph.subject, graph.nodes
    vectors = torch.randn(2, of.held.words.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = nodes[graph.kinds().units.numpy()]
    for layer, here in rows.groupby("layer"):
        places = Places.of(torch.from_numpy(here[["layer", "position", "unit"]].to_numpy(copy=True)))
        given = of.units.given(int(layer), vectors)[:, places.positions, places.units + 1]
        assert error(vectors @ of.units.writes(int(layer), places).T, given) < 1e-12
    page = graph.to_html()
    assert "a0.h1@3" in page
    with pytest.raises(InputError, match="prompts are for graphs of neurons and features"):
        graph.to_html(prompts=[IDS])


def test_a_graph_of_heads_goes_through_files(tmp_path):
    graph = traced("llama")
    found = AttributionGraph.load(graph.save(tmp_path / "graph.json")).attached(model_of("llama"), "heads")
    assert found.subject.units.kinds == ("head", "mlp")
    small = graph.prune()
    read = AttributionGraph.from_json(graph.to_json(tmp_path / "viewer.json"))
    where = ["name", "kind", "layer", "position", "unit"]
    assert read.nodes[where].values.tolist() == small.nodes[where].values.tolist()
    assert "heads" in graph.headline()
    assert {trace.name for trace in graph.figure().data} >= {"head", "mlp"}


@pytest.mark.parametrize(("name", "attention"), [("llama", "frozen"), ("gpt2", "free"), ("gemma2", "free")])
@torch.no_grad()
def test_silenced_heads_and_mlps_are_what_the_model_does_under_hooks(name, attention):
    graph, model = traced(name), model_of(name)
    found = graph.intervene(scale={(0, 2, 1): 0.5, (1, 3, -1): -1.0}, attention=attention)
    z = run(model, TOKENS, keep=["blocks.0.attn.o.hook_in"])[1]["blocks.0.attn.o.hook_in"][0, 2].flatten()
    block = graph.subject.held.block(0)
    size = graph.subject.held.anatomy.d_head
    part = torch.zeros_like(z)
    part[size : 2 * size] = z[size : 2 * size]
    moved = part @ block.o.weight.T
    if block.attention_post_norm is not None:
        moved = moved / block.attention_post_norm.divisor(block.o(z)) * block.attention_post_norm.gain

    def less(x):
        x = x.clone()
        x[:, 2] -= 0.5 * moved
        return x

    def turned(x):
        x = x.clone()
        bias = getattr(graph.subject.held.block(1).mlp.down, "bias", None)
        constant = 0.0 if bias is None else bias
        x[:, 3] = 2 * constant - x[:, 3]
        return x

    edits = {sub_layer(model, "attn", 0): less, sub_layer(model, "mlp", 1): turned}
    if attention == "frozen":
        points = [f"blocks.{layer}.attn.hook_pattern" for layer in range(LAYERS)]
        kept = run(model, TOKENS, keep=points)[1]
        edits |= {point: lambda x, point=point: kept[point] for point in points}
    logits = run(model, TOKENS, edits)[0]
    assert error(found.logits, logits[0, -1]) < 1e-10
    same = graph.intervene(scale=dict.fromkeys(range(20), 1.0), attention=attention)
    assert same.nodes["change"].abs().max() < 1e-10
    assert error(same.logits, same.before) < 1e-10


def test_scores_are_held_against_silencing():
    points = traced("llama").check(5, seed=1).points
    assert len(points) == 10
    assert points["label"].str.match(r"(a\d\.h\d|m\d)@\d").all()

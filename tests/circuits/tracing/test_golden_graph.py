"""Attribution graphs of transcoders against circuit-tracer's (tests/golden/README.md)."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from attribution import Dictionary
from circuits import AttributionGraph, trace
from interp import load_model
from tests.conftest import GOLDEN

CASES = [("llama", "p0"), ("llama_skip", "p0"), ("llama_skip", "p1")]


@functools.cache
def model_of(base, read):
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors, metadata = read("transcoder_graph_tiny")
    config = {key: value for key, value in metadata[f"config_{base}"].items() if key not in ("architectures", "torch_dtype")}  # fmt: skip # noqa: E501
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(base, **config))
    prefix = f"{base}.hf."
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return load_model(module.eval())


@functools.cache
def traced(case, prompt, read, top=None):
    tensors, _ = read("transcoder_graph_tiny")
    units = []
    for layer in range(3):
        prefix = f"{case}.transcoder.{layer}."
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        units.append(Dictionary.from_tensors(layer, "transcoder", **weights))
    tokens = tensors[f"{case}.{prompt}.tokens"]
    graph = trace(model_of("llama", read), tokens, units=units, top=top, quiet=True)
    return graph, {k.removeprefix(f"{case}.{prompt}."): v for k, v in tensors.items() if f"{case}.{prompt}." in k}


@pytest.mark.parametrize(("case", "prompt"), CASES)
def test_graph_is_the_references(case, prompt, golden):
    graph, theirs = traced(case, prompt, golden)
    n, nodes = len(theirs["node_order"]), graph.nodes
    kinds = ["feature", "error", "token", "logit"]
    order = torch.tensor([kinds.index(kind) for kind in nodes["kind"][:n]])
    assert torch.equal(order, theirs["node_order"][:, 0])
    ours = torch.tensor(nodes[["layer", "position", "unit"]][:n].to_numpy(copy=True))
    tokens = order == 2
    assert torch.equal(ours[~tokens], theirs["node_order"][~tokens][:, 1:])
    assert torch.equal(ours[tokens][:, 2], theirs["tokens"])
    assert set(nodes["kind"][n:]) == {"bias"}  # every feature is shown: nothing remains
    assert (graph.adjacency[:n, :n] - theirs["adjacency_matrix"]).abs().max() < 1e-5
    influence = torch.tensor(nodes["influence"][:n].to_numpy(copy=True))
    assert (influence - theirs["node_influence"]).abs().max() < 1e-6
    assert (torch.tensor(nodes["cumulative"][:n].to_numpy(copy=True)) - theirs["cumulative_scores"]).abs().max() < 1e-6
    scores = torch.tensor([graph.replacement_score, graph.completeness_score])
    assert (scores - theirs["scores"]).abs().max() < 1e-6
    assert (graph.weights[:n][order == 3] - theirs["logit_probabilities"]).abs().max() < 1e-6
    kept, edges = graph.masks(nodes=0.8, edges=0.98)
    assert torch.equal(kept[:n], theirs["node_mask"].bool())
    assert torch.equal(edges[:n, :n], theirs["edge_mask"].bool())
    assert not kept[n:].any()


@pytest.mark.parametrize(("case", "prompt"), CASES)
def test_biases_are_what_the_reference_leaves_out(case, prompt, golden):
    graph, theirs = traced(case, prompt, golden)
    rows = torch.tensor(graph.nodes["kind"].isin(["feature", "logit"]).to_numpy(copy=True))
    for place, key in (("encoder", "b_enc"), ("decoder", "b_dec"), ("position 0", "pos0")):
        columns = torch.tensor((graph.nodes["place"] == place).to_numpy(copy=True))
        found = graph.adjacency[rows][:, columns].sum(1).double()
        assert (found - theirs[f"conservation_{key}"]).abs().max() < 2e-5
    values = torch.tensor(graph.nodes["activation"].to_numpy(copy=True))[rows]
    assert (graph.adjacency.sum(1)[rows] - values).abs().max() < 2e-5


def test_pruned_graph_has_the_references_nodes_and_links(golden, tmp_path):
    graph, _ = traced("llama", "p0", golden)
    theirs = json.loads((GOLDEN / "transcoder_graph_tiny.llama.p0.json").read_text())
    graph.to_json(tmp_path / "ours.json")
    ours = json.loads((tmp_path / "ours.json").read_text())
    for content in (ours, theirs):
        for node in content["nodes"]:
            if node["feature_type"] == "mlp reconstruction error":
                layer, position = int(node["layer"]), node["ctx_idx"]
                node["node_id"] = f"error_{layer}_{position}"
    assert [node["node_id"] for node in ours["nodes"]] == [node["node_id"] for node in theirs["nodes"]]
    for mine, other in zip(ours["nodes"], theirs["nodes"], strict=True):
        assert mine.keys() == other.keys()
        for key in ("feature", "layer", "ctx_idx", "feature_type", "is_target_logit", "jsNodeId"):
            if key != "jsNodeId" or "error" not in mine["node_id"]:
                assert mine[key] == other[key], key
        for key in ("influence", "activation", "token_prob"):
            assert mine[key] == pytest.approx(other[key], abs=1e-5), key
    weights = [sorted(link["weight"] for link in content["links"]) for content in (ours, theirs)]
    assert weights[0] == pytest.approx(weights[1], abs=1e-5)


def test_the_references_file_is_read(golden):
    graph, _ = traced("llama", "p0", golden)
    small, found = graph.prune(), AttributionGraph.from_json(GOLDEN / "transcoder_graph_tiny.llama.p0.json")
    where = ["kind", "layer", "position", "unit"]
    units = small.nodes["kind"] != "bias"
    assert found.nodes[where].values.tolist() == small.nodes[units][where].values.tolist()
    # links of the id that an error and a feature share are told apart by their order
    shared = found.nodes["name"].isin(["m0.f0@7", "m0.error@7"]).to_numpy(copy=True)
    assert (found.adjacency - small.adjacency)[:, torch.from_numpy(~shared)].abs().max() < 1e-5
    both = torch.from_numpy(shared)
    assert (found.adjacency[:, both].sum(1) - small.adjacency[:, both].sum(1)).abs().max() < 1e-5


def test_features_that_are_left_out_count_as_errors(golden):
    whole, _ = traced("llama_skip", "p0", golden)
    some, _ = traced("llama_skip", "p0", golden, 40)
    assert some.nodes["kind"].value_counts()["feature"] == 40
    assert some.replacement_score < whole.replacement_score
    assert some.completeness_score < whole.completeness_score
    names = [name for name in some.nodes["name"] if name != "remainder"]
    at = [whole.nodes["name"].tolist().index(name) for name in names]
    keep = torch.tensor([some.nodes["name"].tolist().index(name) for name in names])
    assert (some.adjacency[keep][:, keep] - whole.adjacency[at][:, at]).abs().max() < 1e-5
    assert torch.allclose(some.magnitude[keep], whole.magnitude[at], atol=1e-4)
    rest = some.adjacency[:, some.nodes["kind"].tolist().index("remainder")]
    rows = some.kinds().units | some.kinds().logits
    values = torch.tensor(some.nodes["activation"].to_numpy(copy=True))
    assert rest.any()
    assert (some.adjacency.sum(1) - values)[rows].abs().max() < 2e-5

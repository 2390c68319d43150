from __future__ import annotations

import pickle

import pytest
import torch

from interp import ComputationalGraph
from interp.errors import InputError
from tests import oracle

SHAPES = [
    pytest.param({"n_layers": 3, "n_heads": 4}, id="every head its own"),
    pytest.param({"n_layers": 3, "n_heads": 4, "n_kv_heads": 2}, id="grouped, per query head"),
    pytest.param({"n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "kv": "group"}, id="grouped, per group"),
    pytest.param({"n_layers": 2, "n_heads": 3, "n_kv_heads": 1, "kv": "group"}, id="one group"),
    pytest.param({"n_layers": 2, "n_heads": 2, "parallel": True}, id="parallel"),
    pytest.param({"n_layers": 1, "n_heads": 1}, id="smallest"),
]


def exists(source: str, target: str, parallel: bool) -> bool:
    """Whether `source` writes before `target` reads, from their names alone."""

    def when(name: str) -> float:
        if name in ("input", "logits"):
            return -1.0 if name == "input" else 1e9
        layer = int(name[1:].split(".")[0])
        return layer + (0.5 if name.startswith("m") else 0.0)

    if not source.startswith("m") and source != "input" and target == f"m{source[1:].split('.')[0]}":
        return not parallel
    return when(source) < when(target)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_edge_exists_where_a_source_writes_before_a_target_reads(shape):
    graph = ComputationalGraph(**shape)
    expected = [[exists(source, target, graph.parallel) for target in graph.targets] for source in graph.sources]
    assert graph.edge_mask.tolist() == expected
    assert graph.n_edges == sum(map(sum, expected))
    assert len([*graph.edges()]) == graph.n_edges


def test_sources_and_targets_are_named_and_ordered_as_in_the_reference():
    graph = ComputationalGraph(n_layers=2, n_heads=2)
    assert graph.sources == ("input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1")
    assert graph.targets == (
        "a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0",
        "a1.h0<q>", "a1.h1<q>", "a1.h0<k>", "a1.h1<k>", "a1.h0<v>", "a1.h1<v>", "m1",
        "logits",
    )  # fmt: skip
    grouped = ComputationalGraph(n_layers=1, n_heads=4, n_kv_heads=2, kv="group")
    assert grouped.targets == (
        "a0.h0<q>", "a0.h1<q>", "a0.h2<q>", "a0.h3<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0", "logits",
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_index_helpers_point_at_the_names_they_promise(shape):
    graph = ComputationalGraph(**shape)
    for layer in range(graph.n_layers):
        heads = graph.sources[graph.head_sources(layer)]
        assert heads == tuple(f"a{layer}.h{head}" for head in range(graph.n_heads))
        assert graph.sources[graph.mlp_source(layer)] == f"m{layer}" == graph.targets[graph.mlp_target(layer)]
        ports = graph.targets[graph.attention_targets(layer)]
        assert len(ports) == graph.n_heads + 2 * graph.n_ports
        assert all(port.startswith(f"a{layer}.") for port in ports)
        readable = graph.sources[: graph.sources_before_attention(layer)]
        assert readable == tuple(s for s in graph.sources if exists(s, f"a{layer}.h0<q>", graph.parallel))
        readable = graph.sources[: graph.sources_before_mlp(layer)]
        assert readable == tuple(s for s in graph.sources if exists(s, f"m{layer}", graph.parallel))


@pytest.mark.parametrize("shape", SHAPES)
def test_targets_know_the_sources_that_they_feed(shape):
    graph = ComputationalGraph(**shape)
    per_group = graph.n_heads // graph.n_ports
    for target, sources in zip(graph.targets, graph.target_sources, strict=True):
        kind, layer, letter, port = oracle.place_of(target)
        if kind == "logits":
            expected = []
        elif kind == "mlp":
            expected = [target]
        elif letter == "q":
            expected = [f"a{layer}.h{port}"]
        else:
            expected = [f"a{layer}.h{port * per_group + i}" for i in range(per_group)]
        assert [graph.sources[i] for i in sources] == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_names_and_indices_of_edges_are_inverse(shape):
    graph = ComputationalGraph(**shape)
    for source, target in graph.edge_mask.nonzero().tolist():
        assert graph.edge_index(graph.edge_name(source, target)) == (source, target)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ("a0.h0", "is not an edge"),
        ("a0.h9->logits", "is not an edge"),
        ("a0.h0->a1.h0", "is not an edge"),
        ("a0.h0->a1.h0<x>", "is not an edge"),
        ("m1->a1.h0<q>", "m1 is not upstream of a1.h0<q>"),
        ("a0.h0->a0.h1<k>", "is not upstream"),
        ("m0->m0", "is not upstream"),
        ("logits->m0", "is not an edge"),
    ],
)
def test_an_edge_that_does_not_exist_is_refused_by_name(edge, message):
    with pytest.raises(InputError, match=message) as caught:
        ComputationalGraph(n_layers=2, n_heads=2).edge_index(edge)
    assert repr(edge) in str(caught.value)


def test_heads_and_mlp_of_a_parallel_layer_are_not_connected():
    graph = ComputationalGraph(n_layers=2, n_heads=2, parallel=True)
    with pytest.raises(InputError, match="not upstream"):
        graph.edge_index("a1.h0->m1")
    assert graph.edge_index("a0.h0->m1") == (1, 13)


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(7, 15),
        torch.zeros(15, 7, dtype=torch.bool),
        torch.zeros(105, dtype=torch.bool),
        [[True] * 15] * 7,
        None,
    ],
    ids=["float", "transposed", "flat", "list", "None"],
)
def test_a_mask_of_another_shape_or_dtype_is_refused(mask):
    with pytest.raises(InputError, match=r"keep must be a torch.bool tensor of shape \(7, 15\)"):
        ComputationalGraph(n_layers=2, n_heads=2).check_mask(mask, "keep")


def test_a_mask_that_fits_is_returned_and_its_edges_named():
    graph = ComputationalGraph(n_layers=1, n_heads=1)
    mask = torch.zeros_like(graph.edge_mask)
    mask[graph.edge_index("m0->logits")] = mask[graph.edge_index("input->a0.h0<v>")] = True
    assert graph.check_mask(mask).equal(mask)
    assert [*graph.edges(mask)] == ["input->a0.h0<v>", "m0->logits"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_layers": 0, "n_heads": 1}, "n_layers=0"),
        ({"n_layers": 1, "n_heads": -1}, "n_heads=-1"),
        ({"n_layers": 1, "n_heads": 4, "n_kv_heads": 3}, "n_kv_heads=3 must divide n_heads=4"),
        ({"n_layers": 1, "n_heads": 4, "n_kv_heads": 0}, "n_kv_heads=0"),
        ({"n_layers": 1, "n_heads": 1, "kv": "heads"}, "did you mean 'head'"),
    ],
)
def test_impossible_graphs_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ComputationalGraph(**arguments)


def test_a_graph_survives_its_dictionary_and_pickling():
    graph = ComputationalGraph(n_layers=2, n_heads=4, n_kv_heads=2, kv="group", parallel=True)
    assert graph.edge_mask.any()  # cached properties must not break equality or pickling
    assert ComputationalGraph(**graph.to_dict()) == graph == pickle.loads(pickle.dumps(graph))
    assert hash(ComputationalGraph(**graph.to_dict())) == hash(graph)
    assert graph != ComputationalGraph(n_layers=2, n_heads=4, n_kv_heads=2, kv="head", parallel=True)


@pytest.mark.parametrize("name", oracle.MODELS)
def test_the_graph_of_a_model_has_its_layers_heads_and_groups(name):
    model = oracle.model_of(name)
    config = model.original_model.config
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    graph, grouped = ComputationalGraph.of(model), ComputationalGraph.of(model, kv="group")
    assert (graph.n_layers, graph.n_heads, graph.n_kv_heads) == (3, config.num_attention_heads, groups)
    assert graph.parallel == (name in ("gpt_neox", "gptj"))
    assert len(graph.targets) - len(grouped.targets) == 2 * 3 * (graph.n_heads - groups)
    assert "key-value" in repr(graph) or groups == graph.n_heads

"""`circuits.trace`: what it shows and why, what adds up, what is kept, and what it refuses."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution import neurons
from attribution.tracing.effects import Tracer
from attribution.tracing.held import hold
from attribution.tracing.logits import logit_targets
from attribution.tracing.neurons import Neurons
from attribution.tracing.units import Places, Targets
from circuits import AttributionGraph, trace
from interp import load_model
from interp.errors import InputError
from interp.inspection import anatomy_of
from tests.oracle import MODELS, error, model_of
from tests.tiny import LAYERS, mostly_slow, shared, tiny_module, word_tokenizer

IDS = [4, 17, 9, 30, 2, 41, 8]
FEW = ("llama", "gpt2", "gemma2")


@functools.cache
def traced(name, target=7, top=20, **settings):
    target = list(target) if isinstance(target, tuple) and isinstance(target[0], tuple) else target
    return trace(model_of(name), IDS, target, top=top, quiet=True, **settings)


def column(graph, name):
    return torch.tensor(graph.nodes[name].to_numpy(copy=True))


def rows_of(graph):
    kinds = graph.kinds()
    return kinds.units | kinds.logits


@pytest.mark.parametrize("name", MODELS)
def test_rows_add_up_to_activations_and_logits(name):
    graph = traced(name)
    rows = rows_of(graph)
    assert error(graph.adjacency.sum(1)[rows], column(graph, "activation")[rows]) < 1e-10
    assert not graph.adjacency[~rows].any()
    logit = graph.nodes[graph.nodes["kind"] == "logit"].iloc[0]
    assert logit["activation"] == pytest.approx(float(model_of(name)(torch.tensor([IDS]))[0, -1, 7]), rel=1e-9)
    assert (logit["layer"], logit["position"], logit["unit"]) == (LAYERS, len(IDS) - 1, 7)
    assert graph.nodes["name"].is_unique
    scores = neurons(model_of(name), [IDS], 7, quiet=True)
    units = graph.nodes[graph.nodes["kind"] == "neuron"]
    at = tuple(torch.tensor(units[["layer", "position", "unit"]].to_numpy(copy=True)).T)
    assert error(column(graph, "score")[graph.kinds().units], scores.values[0][at]) < 1e-10
    assert error(column(graph, "score")[graph.kinds().tokens], scores.embedding[0]) < 1e-10


@functools.cache
def everything(name):
    """Influence of all units, from the whole matrix at once: names of units, influence, both scores."""
    held = hold(anatomy_of(model_of(name)), torch.tensor(IDS))
    units = Neurons(held)
    places = Places.of(
        torch.cat(
            [
                torch.cartesian_prod(torch.tensor([layer]), *map(torch.arange, units.activations(layer).shape))
                for layer in range(LAYERS)
            ]
        )
    )
    reads = [units.reads(layer, places.select(places.layers == layer)) for layer in range(LAYERS)]
    logits, _ = logit_targets(held, [((7,), ())], centred=False)
    found = Tracer(held, units, places).effects(Targets.joined([*reads, logits]))
    weights = torch.cat((found.units, found.tokens), 1).abs()
    shares = weights / weights.sum(1, keepdim=True)
    chance = held.logits.softmax(-1)[7]
    n = len(places)
    inverse = torch.linalg.inv(torch.eye(n) - shares[:n, :n])
    influence = chance * (shares[n] @ torch.block_diag(inverse, torch.eye(len(IDS)))
                          + torch.cat((torch.zeros(n), shares[n, :n] @ inverse @ shares[:n, n:])))  # fmt: skip
    return places, influence, shares


@pytest.mark.parametrize("name", FEW)
def test_all_neurons_shown_have_the_influence_of_the_whole_matrix(name):
    places, influence, _ = everything(name)
    active = int((torch.cat([Neurons(hold(anatomy_of(model_of(name)), torch.tensor(IDS))).activations(layer).flatten() for layer in range(LAYERS)]) != 0).sum())  # fmt: skip # noqa: E501
    graph = traced(name, top=None)
    assert graph.kinds().units.sum() == active
    assert "remainder" not in set(graph.nodes["kind"])
    assert graph.replacement_score == pytest.approx(1.0)
    assert graph.completeness_score == pytest.approx(1.0)
    by_place = {tuple(row): value for row, value in zip(places.rows().tolist(), influence.tolist(), strict=False)}
    for row in graph.nodes[graph.nodes["kind"] == "neuron"].itertuples():
        assert row.influence == pytest.approx(by_place[row.layer, row.position, row.unit], rel=1e-9, abs=1e-15)
    tokens = column(graph, "influence")[graph.kinds().tokens]
    assert error(tokens, influence[-len(IDS) :]) < 1e-9
    # those of the largest influence are what rounds find
    few = traced(name, top=20)
    shown = few.nodes[few.nodes["kind"] == "neuron"]
    found = sum(by_place[row.layer, row.position, row.unit] for row in shown.itertuples())
    assert found > 0.9 * float(influence[: -len(IDS)].topk(20).values.sum())


@pytest.mark.parametrize("name", mostly_slow(MODELS, lambda name: name in FEW))
def test_what_is_not_shown_counts_as_an_error(name):
    graph, whole = traced(name), traced(name, top=None)
    rest = graph.nodes["kind"].tolist().index("remainder")
    counted = graph.counted()
    names = whole.nodes["name"].tolist()
    same = [names.index(one) if one in names else -1 for one in graph.nodes["name"]]
    rows = rows_of(graph)
    for row in rows.nonzero()[:, 0].tolist():
        assert float(counted[row].sum()) == pytest.approx(float(whole.counted()[same[row]].sum()), rel=1e-9)
        left = [i for i in whole.kinds().units.nonzero()[:, 0].tolist() if i not in same]
        assert float(graph.adjacency[row, rest]) == pytest.approx(float(whole.adjacency[same[row], left].sum()), abs=1e-9)  # fmt: skip # noqa: E501
        assert float(counted[row, rest]) == pytest.approx(float(whole.adjacency[same[row], left].abs().sum()), abs=1e-9)
    assert 0 < graph.replacement_score < 1
    assert 0 < graph.completeness_score < 1


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_biases_may_be_one_node(name):
    each, one = traced(name), traced(name, biases="summed")
    bias = each.nodes["kind"] == "bias"
    assert bias.sum() > 20
    assert one.nodes["kind"].tolist() == [*each.nodes["kind"][~bias], "bias"]
    n = int((~bias).sum())
    assert error(each.adjacency[:n, n:].sum(1), one.adjacency[:n, -1]) < 1e-10
    assert not each.nodes[bias]["influence"].any()
    assert one.replacement_score == pytest.approx(each.replacement_score, rel=1e-12)


def test_targets_may_be_several_and_contrasts():
    likely = trace(model_of("llama"), IDS, top=5, quiet=True)
    chances = model_of("llama")(torch.tensor([IDS]))[0, -1].softmax(-1)
    logits = likely.nodes[likely.nodes["kind"] == "logit"]
    best = chances.topk(len(logits))
    assert logits["unit"].tolist() == best.indices.tolist()
    assert len(logits) == 10 or float(best.values.sum()) >= 0.95 > float(best.values[:-1].sum())
    assert error(likely.weights[likely.kinds().logits], best.values.detach()) < 1e-10
    graph = trace(model_of("llama"), IDS, [3, (7, 5)], top=5, quiet=True)
    values = model_of("llama")(torch.tensor([IDS]))[0, -1]
    expected = [float(values[3]), float(values[7] - values[5])]
    assert column(graph, "activation")[graph.kinds().logits].tolist() == pytest.approx(expected)
    assert graph.weights[graph.kinds().logits].tolist() == [0.5, 0.5]
    assert graph.target_tokens == ["3", "7 - 5"]
    rows = rows_of(graph)
    assert error(graph.adjacency.sum(1)[rows], column(graph, "activation")[rows]) < 1e-10


def test_what_is_left_out_is_not_shown_but_counted():
    graph = traced("llama", leave_out=(0, 5))
    units = graph.nodes[graph.nodes["kind"] == "neuron"]
    assert not units["position"].isin([0, 5]).any()
    assert len(units) == 20
    rows = rows_of(graph)
    assert error(graph.adjacency.sum(1)[rows], column(graph, "activation")[rows]) < 1e-10


def test_batches_change_nothing_and_a_seedless_call_is_the_same_twice():
    first, second = traced("qwen3"), traced("qwen3", batch_size=3)
    assert first.nodes["name"].tolist() == second.nodes["name"].tolist()
    assert error(second.adjacency, first.adjacency) < 1e-10
    again = trace(model_of("qwen3"), IDS, 7, top=20, quiet=True)
    assert torch.equal(again.adjacency, first.adjacency)


def test_pruning_keeps_what_carries_the_influence():
    graph = traced("llama", top=60)
    small = graph.prune(nodes=0.6, edges=0.9)
    assert small.pruned
    assert set(small.nodes["name"]) < set(graph.nodes["name"])
    assert {"token", "logit", "remainder"} <= set(small.nodes["kind"])
    assert small.replacement_score == graph.replacement_score
    leads, comes = (small.adjacency != 0).any(0), (small.adjacency != 0).any(1)
    assert (leads & comes)[small.kinds().units].all()
    more = graph.prune(nodes=0.95, edges=0.98)
    assert set(small.nodes["name"]) < set(more.nodes["name"])
    assert set(graph.prune(1.0, 1.0).nodes["name"]) <= set(graph.nodes["name"])
    with pytest.raises(InputError, match="pruned already"):
        small.prune()
    with pytest.raises(InputError, match="nodes"):
        graph.prune(nodes=1.5)


def test_a_graph_is_kept_in_a_file_and_shown(tmp_path):
    graph = traced("gpt2")
    found = AttributionGraph.load(graph.save(tmp_path / "graph.json"))
    assert torch.equal(found.adjacency, graph.adjacency)
    assert found.nodes.equals(graph.nodes)
    assert found.settings == graph.settings
    assert "20 neurons" in repr(found)
    assert "m2.n" in found._repr_html_()
    assert found.edges["weight"].abs().is_monotonic_decreasing
    figure = found.figure()
    assert {trace.name for trace in figure.data} >= {"adds", "takes away", "token", "logit"}
    edges = found.edges.set_index(["target", "source"])["weight"]
    names = found.nodes["name"].tolist()
    assert edges["logit0", "token@6"] == float(found.adjacency[names.index("logit0"), names.index("token@6")])


def test_a_graph_goes_through_the_viewers_file(tmp_path):
    graph = traced("llama", top=60)
    small = graph.prune()
    found = AttributionGraph.from_json(graph.to_json(tmp_path / "graph.json"))
    where = ["name", "kind", "layer", "position", "unit"]
    assert found.nodes[where].values.tolist() == small.nodes[where].values.tolist()
    assert torch.allclose(found.adjacency.double(), small.adjacency)
    assert found.tokens == small.tokens
    with pytest.raises(InputError, match="does not say how it was made"):
        found.attached(model_of("llama"))
    (tmp_path / "broken.json").write_text('{"metadata": {}, "nodes": 3}')
    with pytest.raises(InputError, match="damaged"):
        AttributionGraph.from_json(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": []}, "at least one"),
        ({"prompt": [IDS, IDS]}, "one by one"),
        ({"target": 53}, "from 0 to 52"),
        ({"target": [3, 3]}, "twice"),
        ({"target": (3, 3)}, "with itself"),
        ({"target": (3, 4, 5)}, "a pair"),
        ({"target": []}, "empty list"),
        ({"top": 0}, "top"),
        ({"top": 10**5}, "more than the"),
        ({"units": "experts"}, "is unknown"),
        ({"leave_out": [7]}, "leave_out"),
        ({"biases": "none"}, "biases"),
        ({"tops": 3}, "keyword of trace"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_a_sentence(given, told):
    with pytest.raises(InputError, match=told) as caught:
        trace(model_of("llama"), **{"prompt": IDS, "target": 7, "quiet": True, **given})
    assert "\n" not in str(caught.value)


def test_models_without_a_residual_stream_are_refused():
    from transformers import BertConfig, BertForMaskedLM

    bert = BertForMaskedLM(BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))  # fmt: skip # noqa: E501
    with pytest.raises(InputError, match="model"):
        trace(bert, IDS)
    post = tiny_module("opt", do_layer_norm_before=False)
    with pytest.raises(InputError, match="post-norm"):
        trace(load_model(post), IDS)


def test_strings_are_read_with_the_models_tokenizer():
    model = load_model(tiny_module("llama", torch.float32), tokenizer=word_tokenizer())
    graph = trace(model, "a b c", "b", top=5, quiet=True)
    assert graph.tokens == ["<bos>", "a", "b", "c"]
    assert graph.target_tokens == ["b"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_add_up_as_far_as_they_go(dtype):
    graph = trace(shared("llama", dtype), IDS, 7, top=20, quiet=True)
    rows = rows_of(graph)
    assert graph.adjacency.dtype == torch.float32
    assert error(graph.adjacency.sum(1)[rows].double(), column(graph, "activation")[rows]) < (1e-5 if dtype == torch.float32 else 0.1)  # fmt: skip # noqa: E501

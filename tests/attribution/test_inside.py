"""Scores inside a circuit: what they are at small steps, what they add up to, and what is refused."""

from __future__ import annotations

import pytest
import torch

import metrics
from attribution import Scores, attribute, methods
from attribution.components import component_scores
from interp import ComputationalGraph
from interp.errors import InputError
from interp.kernels.ablation import ABLATIONS, KNOWN
from tests import oracle
from tests.oracle import MODELS, TOLERANCE, error, mixed_task
from tests.tiny import mostly_slow


def scores(name, mask, method="eap", **settings):
    model = oracle.model_of(name)
    return attribute(model, mixed_task(model), method, inside=mask, quiet=True, **settings)


def some_circuit(graph, share=0.6, seed=4):
    return graph.edge_mask & (torch.rand(graph.shape, generator=torch.Generator().manual_seed(seed)) < share)


def effect(name, mask, ablation="patch", **settings):
    """M(circuit) - M(empty circuit)."""
    model = oracle.model_of(name)
    masks = torch.stack([mask, torch.zeros_like(mask)])
    whole, empty = metrics.evaluate(model, mixed_task(model), masks, ablation=ablation, quiet=True, **settings).mean(1)
    return float(whole - empty)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "gemma3"])
def test_edges_into_the_logits_are_removed_and_added_to_first_order(name, ablation):
    # a nearly linear objective: the mean of the last residual stream's logits through a norm that hardly moves; what
    # removing or adding a single edge really does has the sign and about the size of its score
    model = oracle.model_of(name)
    graph = ComputationalGraph.of(model)
    mask = some_circuit(graph)
    values = scores(name, mask, ablation=ablation).values
    changed = mask.repeat(len(graph.sources), 1, 1)
    rows = torch.arange(len(graph.sources))
    changed[rows, rows, -1] ^= True
    after = metrics.evaluate(
        model, mixed_task(model), torch.cat((mask[None], changed)), ablation=ablation, quiet=True
    ).mean(1)
    moved = (after[1:] - after[0]) * torch.where(mask[:, -1], -1.0, 1.0)
    assert mask[:, -1].any()
    assert not mask[:, -1].all()
    assert float(torch.corrcoef(torch.stack((moved, values[:, -1])))[0, 1]) > 0.6
    largest = moved.abs().argmax()
    assert moved[largest] * values[largest, -1] > 0


def test_the_whole_model_is_the_circuit_of_all_edges():
    graph = ComputationalGraph.of(oracle.model_of("gemma2"))
    assert error(scores("gemma2", graph.edge_mask).values, scores("gemma2", None).values) < TOLERANCE
    whole = scores("gemma2", None, "mask-ig", ablation="mean", steps=3).values
    assert torch.equal(whole, scores("gemma2", graph.edge_mask, "mask-ig", ablation="mean", steps=3).values)


# a router that changes its mind on the way makes a jump, which no gradient sees
@pytest.mark.parametrize(
    ("ablation", "name"),
    mostly_slow(
        [(ABLATIONS[i % 4], name) for i, name in enumerate(MODELS) if name != "mixtral"],
        lambda case: case[1] in ("gpt2", "llama", "gemma2"),
    ),
)
def test_along_the_weights_scores_of_a_circuit_add_up_to_what_it_does(ablation, name):
    mask = some_circuit(ComputationalGraph.of(oracle.model_of(name)))
    values = scores(name, mask, "mask-ig", ablation=ablation, steps=30, quadrature="gauss-legendre").values
    whole = effect(name, mask, ablation)
    assert float(values[mask].sum()) == pytest.approx(whole, abs=2e-3 * float(values.abs().max()))
    assert (values[~mask] != 0).any()


def test_the_gap_of_few_steps_closes_with_more():
    mask = some_circuit(ComputationalGraph.of(oracle.model_of("llama")))
    found = [scores("llama", mask, "mask-ig", steps=steps, quadrature="midpoint") for steps in (4, 12, 36)]
    whole = effect("llama", mask)
    gaps = [abs(float(one.values[mask].sum()) - whole) for one in found]
    assert gaps[2] < gaps[1] / 4 < gaps[0]
    for one, gap in zip(found, gaps, strict=True):
        assert one.whole == pytest.approx(whole, rel=1e-9)
        assert abs(one.gap) == pytest.approx(gap, rel=1e-6)


def test_scores_say_what_they_add_up_to_and_files_keep_it(tmp_path):
    model = oracle.model_of("llama")
    # as a user asks: the whole model, five steps
    found = attribute(model, mixed_task(model), "mask-ig", ablation="zero", quiet=True)
    whole = effect("llama", found.graph.edge_mask, "zero")
    total = float(found.values.sum())
    assert abs(total) < 0.1 * abs(whole)  # .02 of 1.27, which scores themselves do not show
    assert (found.whole, found.gap) == (pytest.approx(whole), pytest.approx(whole - total))
    assert f"adds up to {total:.3g} of {whole:.3g}" in repr(found)
    assert found.to_dict()["gap"] == found.gap
    assert Scores.load(found.save(tmp_path / "s")).gap == found.gap
    by_node = attribute(model, mixed_task(model), "mask-ig", level="node", ablation="zero", quiet=True)
    assert by_node.whole - by_node.gap == pytest.approx(float(by_node.values.sum()))
    assert attribute(model, mixed_task(model), "eap", quiet=True).gap is None


def test_long_paths_are_summed_in_pieces_and_lose_nothing(monkeypatch):
    mask = some_circuit(ComputationalGraph.of(oracle.model_of("llama")))
    whole = scores("llama", mask, "mask-ig", steps=7).values
    monkeypatch.setattr("attribution.inside._POINTS_AT_ONCE", 3)
    assert error(scores("llama", mask, "mask-ig", steps=7, batch_size=1).values, whole) < TOLERANCE


@pytest.mark.parametrize("method", ["eap", "mask-ig"])
def test_a_nodes_score_is_the_sum_over_its_edges_inside(method):
    mask = some_circuit(ComputationalGraph.of(oracle.model_of("gpt2")))
    nodes, edges = scores("gpt2", mask, method, level="node"), scores("gpt2", mask, method)
    assert error(nodes.values, (edges.values * mask).sum(1)) < TOLERANCE
    if method == "eap":
        assert torch.equal(scores("gpt2", mask, "attribution-patching").values, nodes.values)


def test_groups_and_circuits_are_taken_and_settings_recorded():
    graph = ComputationalGraph.of(oracle.model_of("llama"), "group")
    found = scores("llama", some_circuit(graph), "mask-ig", kv="group", steps=2)
    assert found.graph.kv == "group"
    assert found.settings["edges_inside"] == int(some_circuit(graph).sum())
    assert found.settings["steps"] == 2

    class Holder:
        mask = some_circuit(graph)

    assert torch.equal(scores("llama", Holder(), "mask-ig", kv="group", steps=2).values, found.values)


def test_kl_has_a_gradient_at_a_circuit_but_not_at_the_whole_model():
    graph = ComputationalGraph.of(oracle.model_of("gpt2"))
    assert (scores("gpt2", some_circuit(graph), objective="kl").values != 0).any()
    with pytest.raises(InputError, match="gradient of zero at the clean run"):
        scores("gpt2", graph.edge_mask, objective="kl")


@pytest.mark.parametrize("method", ["eap-ig", "relp", "exact"])
def test_methods_without_a_meaning_inside_a_circuit_are_refused(method):
    mask = some_circuit(ComputationalGraph.of(oracle.model_of("gpt2")))
    with pytest.raises(InputError, match=f"inside is no setting of method='{method}'"):
        scores("gpt2", mask, method=method)
    with pytest.raises(InputError, match="scores the whole model; inside a circuit use method='eap'"):
        scores("gpt2", mask, rules="relp")


def test_what_is_no_circuit_is_refused():
    graph = ComputationalGraph.of(oracle.model_of("gpt2"))
    with pytest.raises(InputError, match=r"inside must be a torch\.bool tensor of shape"):
        scores("gpt2", graph.edge_mask.float())
    with pytest.raises(InputError, match=r"inside switches on .* edges that do not exist"):
        scores("gpt2", ~graph.edge_mask)
    with pytest.raises(InputError, match="rules is no setting of method='mask-ig'"):
        scores("gpt2", None, "mask-ig", rules="relp")
    with pytest.raises(InputError, match="'mask-ig' scores edges alone"):
        component_scores(oracle.model_of("gpt2"), mixed_task(oracle.model_of("gpt2")), "mask-ig")


def test_the_method_is_listed_with_its_cost():
    row = methods().set_index("method").loc["mask-ig"]
    assert (row["forward_passes"], row["backward_passes"]) == ("2S+4", "S")
    assert row["ablations"] == ", ".join(KNOWN)

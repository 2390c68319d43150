"""Running circuits: every mask against a slow run, node by node, of the bridge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attribution import attribute
from interp import ComputationalGraph, load_model
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.ablation import ABLATIONS, Ablator
from interp.kernels.circuit import Edges, _whole_layers
from interp.kernels.evaluate import Meter
from interp.kernels.reach import live_edges
from interp.objectives import get_objective
from interp.selection import LADDER_FRACTIONS
from interp.selection.named import TopN
from interp.setting import Setting
from metrics.circuit.curve import faithfulness_curve, ladder_masks
from tests import oracle
from tests.oracle import MODELS, TOLERANCE, error, mixed_task
from tests.tiny import tiny_module


def ours(model, masks, ablation="patch", task=None, kv="head", objective="logit-difference", **settings):
    anatomy, task = anatomy_of(model), task or mixed_task(model)
    graph, prompts = ComputationalGraph.of_anatomy(anatomy, kv), task.prompts(model)
    ablator = Ablator.of(anatomy, ablation, prompts, settings.get("batch_size"))
    return Meter(Edges(anatomy, graph, ablator), prompts, **settings).values(masks, [get_objective(objective)])[0]


def random_masks(graph, densities=(0.06, 0.25, 0.6, 0.95), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([graph.edge_mask & (torch.rand(graph.shape, generator=generator) < p) for p in densities])


def mask_of(graph, *edges):
    mask = torch.zeros_like(graph.edge_mask)
    for edge in edges:
        mask[graph.edge_index(edge)] = True
    return mask


def slow(model, graph, masks, ablations):
    """[ablation, circuit, n] by the bridge."""
    prompts = mixed_task(model).prompts(model)
    circuits = [
        (set(graph.edges(mask)), oracle.ablated_outputs(model, prompts, ablation))
        for ablation in ablations
        for mask in masks
    ]
    return oracle.circuit_values(model, prompts, circuits).unflatten(0, (len(ablations), -1))


@pytest.mark.parametrize("name", MODELS)
def test_any_mask_gives_what_a_slow_run_target_by_target_gives(name):
    graph = ComputationalGraph.of(oracle.model_of(name))
    masks = random_masks(graph)
    expected = slow(oracle.expanded(name), graph, masks, ABLATIONS)
    for ablation, values in zip(ABLATIONS, expected, strict=True):
        assert error(ours(oracle.model_of(name), masks, ablation).circuits, values) < TOLERANCE, ablation


@pytest.mark.parametrize(("name", "ablation"), [("llama", "patch"), ("gptj", "mean"), ("gemma3", "zero")])
def test_layers_at_the_bottom_that_are_whole_are_taken_from_the_clean_run(name, ablation):
    graph = ComputationalGraph.of(oracle.model_of(name))
    masks = random_masks(graph, (0.3, 0.6))
    masks[:, :, : graph.targets_per_layer] = graph.edge_mask[:, : graph.targets_per_layer]
    masks[1, :, : 2 * graph.targets_per_layer] = graph.edge_mask[:, : 2 * graph.targets_per_layer]
    assert [_whole_layers(some, graph) for some in (masks, masks[1:], graph.edge_mask[None])] == [1, 2, 3]
    (expected,) = slow(oracle.expanded(name), graph, masks, [ablation])
    assert error(ours(oracle.model_of(name), masks, ablation).circuits, expected) < TOLERANCE
    assert error(ours(oracle.model_of(name), masks[1:], ablation).circuits, expected[1:]) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_without_tokens_the_input_keeps_its_position(name):
    """As MIB's zero ablation, whose input is the token embedding alone."""
    model = oracle.model_of(name)
    masks = random_masks(ComputationalGraph.of(model), (0.25, 0.6))
    (expected,) = slow(oracle.expanded(name), ComputationalGraph.of(model), masks, ["zero-token"])
    found = ours(model, masks, "zero-token").circuits
    assert error(found, expected) < TOLERANCE
    assert error(ours(model, masks, "zero").circuits, expected) > 1e-2
    # the empty circuit reads the last position, and the biases of attention, which are no source's
    prompts = mixed_task(model).prompts(model)
    places = oracle.places(model, oracle.source_outputs(model, prompts.clean)["input"])
    stream = places + sum(block.attn.o.original_component.bias for block in model.blocks)
    logits = model.unembed.original_component(model.ln_final.original_component(stream))
    empty = ours(model, torch.zeros_like(masks[:1]), "zero-token").circuits
    assert error(empty, oracle.logit_difference(logits, prompts)) < TOLERANCE


def test_areas_under_both_zeros_differ_where_positions_are_learned():
    """CPR of one ranking: with the position taken away as well, as by default, and as MIB has it."""
    model, graph = oracle.model_of("gpt2"), ComputationalGraph.of(oracle.model_of("gpt2"))
    task = mixed_task(model)
    values = attribute(model, task, "eap", ablation="zero", quiet=True).values
    masks = torch.stack([torch.zeros_like(graph.edge_mask), *ladder_masks(Setting(model, task), values, TopN())])
    areas = []
    for (empty, *circuits), ablation in zip(
        slow(oracle.expanded("gpt2"), graph, masks, ["zero", "zero-token"]).mean(2), ("zero", "zero-token"), strict=True
    ):
        clean = circuits[-1]  # all edges
        f = [float((one - empty) / (clean - empty)) for one in circuits]
        areas.append(np.trapezoid(f, LADDER_FRACTIONS))
        assert faithfulness_curve(model, task, values, ablation=ablation, quiet=True).cpr == pytest.approx(areas[-1])
    assert areas[0] - areas[1] > 0.45


def test_without_learned_positions_both_zeros_are_one():
    model = oracle.model_of("llama")
    masks = random_masks(ComputationalGraph.of(model), (0.25, 0.6))
    assert error(ours(model, masks, "zero-token").circuits, ours(model, masks, "zero").circuits) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "mixtral"])
def test_any_mask_over_groups_gives_what_a_slow_run_gives(name):
    model = oracle.model_of(name)
    graph = ComputationalGraph.of(model, kv="group")
    masks = random_masks(graph, seed=1)
    expected = slow(model, graph, masks, ("patch", "mean"))
    for ablation, values in zip(("patch", "mean"), expected, strict=True):
        assert error(ours(model, masks, ablation, kv="group").circuits, values) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "gemma2", "gemma3"])
def test_thin_circuits_and_dead_ends_are_run_right(name):
    model, twin = oracle.model_of(name), oracle.expanded(name)
    graph = ComputationalGraph.of(model)
    masks = torch.stack(
        [
            mask_of(graph, "input->logits"),
            mask_of(graph, "input->m0", "m0->logits"),
            mask_of(graph, "input->a0.h1<v>", "a0.h1->a2.h3<k>", "a2.h3->logits"),
            mask_of(graph, "input->a0.h1<q>", "a0.h1->m2", "m2->logits"),
            mask_of(graph, "m0->a1.h0<v>", "a1.h0->logits"),  # nothing comes from the input
            mask_of(graph, "input->m0", "m0->a1.h0<v>", "a0.h2->a1.h2<k>"),  # nothing reaches the logits
            mask_of(graph, "a2.h0->logits", "a2.h1->logits", "input->a2.h0<q>", "m1->a2.h1<v>"),
        ]
    )
    expected = slow(twin, graph, masks, ABLATIONS)
    for ablation, values in zip(ABLATIONS, expected, strict=True):
        assert error(ours(model, masks, ablation).circuits, values) < TOLERANCE, ablation


@pytest.mark.parametrize("kv", ["head", "group"])
@pytest.mark.parametrize("name", MODELS)
def test_the_full_circuit_is_the_clean_model_and_the_empty_one_the_corrupted(name, kv):
    model = oracle.model_of(name)
    graph = ComputationalGraph.of(model, kv=kv)
    prompts = mixed_task(model).prompts(model)
    clean, corrupted = (
        oracle.logit_difference(model(tokens), prompts)[0] for tokens in (prompts.clean, prompts.corrupted)
    )
    masks = torch.stack((graph.edge_mask, torch.zeros_like(graph.edge_mask)))
    assert error(clean, corrupted) > 1e-2
    for ablation in ABLATIONS:
        values = ours(model, masks, ablation, kv=kv)
        assert error(values.clean, clean) < TOLERANCE
        assert error(values.circuits[0], clean) < TOLERANCE
        assert (values.circuits[1] - values.empty).abs().max() < TOLERANCE
    assert error(ours(model, masks, kv=kv).empty, corrupted) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "gemma2"])
def test_the_empty_circuit_under_other_ablations_unembeds_the_sum_of_what_sources_give(name):
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    bias = sum(
        block.attn.o.original_component.bias
        for block in model.blocks
        if getattr(block.attn.o.original_component, "bias", None) is not None
    )
    for ablation in ABLATIONS[1:]:
        total = sum(oracle.ablated_outputs(model, prompts, ablation).values()) + bias
        logits, _ = oracle.run(model, prompts.clean, {"ln_final.hook_in": oracle.write(total)})
        values = ours(model, torch.zeros(0, *ComputationalGraph.of(model).shape, dtype=torch.bool), ablation)
        expected = oracle.logit_difference(logits, prompts)[0]
        assert (values.empty - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 1}, {"batch_size": 2}, {"memory": 1 << 20}, {"memory": 1 << 20, "batch_size": 3}],
    ids=str,
)
@pytest.mark.parametrize("ablation", ["patch", "mean"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "gemma2", "mixtral"])
def test_batches_and_stacks_of_circuits_change_nothing(name, ablation, settings):
    model = oracle.model_of(name)
    masks = random_masks(ComputationalGraph.of(model), [0.02 * i for i in range(1, 30, 2)])
    expected, values = ours(model, masks, ablation), ours(model, masks, ablation, **settings)
    for one, other in ((values.clean, expected.clean), (values.empty, expected.empty)):
        assert error(one, other) < TOLERANCE
    assert error(values.circuits, expected.circuits) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "mixtral"])
def test_circuits_run_together_are_circuits_run_alone(name):
    model = oracle.model_of(name)
    masks = random_masks(ComputationalGraph.of(model), (0.03, 0.5, 0.1, 0.9, 0.05))
    together = ours(model, masks).circuits
    assert error(torch.stack([ours(model, mask[None]).circuits[0] for mask in masks]), together) < TOLERANCE
    assert error(ours(model, masks[[3, 1, 4, 0, 2]]).circuits, together[[3, 1, 4, 0, 2]]) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chosen", [(1, 2), (0, 1, 2)], ids=["from 3", "from 1"])
def test_skipping_the_shared_prefix_changes_nothing(name, chosen, monkeypatch):
    model = oracle.model_of(name)
    task, masks = mixed_task(model, chosen), random_masks(ComputationalGraph.of(model))
    skipped = ours(model, masks, task=task).circuits
    monkeypatch.setattr(Ablator, "skip_prefix", False)
    assert error(skipped, ours(model, masks, task=task).circuits) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "gemma3"])
def test_values_stand_in_the_order_of_the_prompts_and_padding_changes_none(name):
    model = oracle.model_of(name)
    task, masks = mixed_task(model), random_masks(ComputationalGraph.of(model))
    together = ours(model, masks)
    alone = [ours(model, masks, task=task.select([i])) for i in range(3)]
    for values in ("clean", "empty", "circuits"):
        expected = torch.cat([getattr(one, values) for one in alone], -1)
        assert error(getattr(together, values), expected) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_grouped_equals_expanded(name):
    model = oracle.model_of(name)
    masks = random_masks(ComputationalGraph.of(model))
    for ablation in ABLATIONS:
        expanded = ours(oracle.expanded(name), masks, ablation).circuits
        assert error(ours(model, masks, ablation).circuits, expanded) < TOLERANCE


@pytest.mark.parametrize("objective", ["kl", "probability-difference", "log-probability", "accuracy"])
def test_objectives_of_circuits_are_those_of_their_logits(objective):
    model = oracle.model_of("gpt2")
    graph, prompts = ComputationalGraph.of(model), mixed_task(model).prompts(model)
    values = ours(model, torch.stack((graph.edge_mask, ~graph.edge_mask & False)), objective=objective)
    clean, corrupted = (
        model(tokens)[torch.arange(3), prompts.lengths - 1] for tokens in (prompts.clean, prompts.corrupted)
    )
    goal = get_objective(objective)
    for logits, ours_, again in ((clean, values.clean, 0), (corrupted, values.empty, 1)):
        expected = goal(logits, prompts, clean)
        assert (ours_ - expected).abs().max() < TOLERANCE
        assert (values.circuits[again] - expected).abs().max() < TOLERANCE


def test_edges_that_cannot_matter_are_exactly_the_ones_that_are_not_run():
    graph = ComputationalGraph(n_layers=2, n_heads=2)
    path = mask_of(graph, "input->a0.h0<v>", "a0.h0->m1", "m1->logits")
    stray = mask_of(graph, "input->a0.h1<q>", "m0->a1.h0<k>", "a1.h0->logits", "input->a1.h1<v>")
    both = (path | stray)[None]
    assert live_edges(both, graph, from_input=True)[0].equal(path)
    # under other ablations a node that nothing feeds still computes something of its own
    expected = path | mask_of(graph, "m0->a1.h0<k>", "a1.h0->logits")
    assert live_edges(both, graph, from_input=False)[0].equal(expected)
    # behind a norm that heads share, every head of layer 1 bears on the logits
    coupled = expected | mask_of(graph, "input->a1.h1<v>", "input->a0.h1<q>")
    assert live_edges(both, graph, from_input=False, coupled=True)[0].equal(coupled)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost():
    model = oracle.model_of("llama")
    masks = random_masks(ComputationalGraph.of(model))

    def hungry(logits, prompts, clean):
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("pretended")
        return logits[:, 3] - logits[:, 4]

    expected = ours(model, masks, objective=lambda logits, prompts, clean: logits[:, 3] - logits[:, 4])
    assert error(ours(model, masks, objective=hungry).circuits, expected.circuits) < TOLERANCE


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_impossible_batch_size_is_refused(batch_size):
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError, match=f"batch_size={batch_size} must be a whole number of at least 1"):
        ours(model, random_masks(ComputationalGraph.of(model)), batch_size=batch_size)


def test_a_nan_objective_is_refused_and_the_prompt_named():
    model = oracle.model_of("gpt2")
    culprit = mixed_task(model).prompts(model).correct[0, 0]

    def broken(logits, prompts, clean):
        return torch.where(prompts.correct[:, 0] == culprit, math.nan, logits[:, 0])

    with pytest.raises(InputError, match="objective='broken' is NaN on prompt 0"):
        ours(model, random_masks(ComputationalGraph.of(model)), objective=broken)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_circuits_are_near_those_of_float32(name, dtype):
    half, single = load_model(tiny_module(name, dtype)), load_model(tiny_module(name, dtype).float())
    masks = random_masks(ComputationalGraph.of(half))
    values, expected = ours(half, masks), ours(single, masks)
    assert values.circuits.dtype == torch.float32
    assert error(values.circuits, expected.circuits) < {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    full = ours(half, ComputationalGraph.of(half).edge_mask[None])
    assert error(full.circuits[0], full.clean) < {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]

"""Weighted circuits: values and gradients against a slow run, its finite differences, and the other engines."""

from __future__ import annotations

import pytest
import torch

from attribution import attribute
from interp import ComputationalGraph
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.ablation import ABLATIONS, Ablator
from interp.kernels.circuit import Edges
from interp.kernels.evaluate import Meter
from interp.kernels.soft import prompts_that_fit, soft_values
from interp.objectives import Objective, get_objective
from interp.run import Run
from interp.setting import Setting
from interp.span_mask import SpanMask
from interp.tasks.task import Task
from tests import oracle
from tests.interp.test_answers import pairs_of
from tests.oracle import MODELS, TOLERANCE, error, mixed_task
from tests.tiny import mostly_slow, shared, tiny_task


def ours(model, weights, ablation="patch", task=None, kv="head", objective="logit-difference", **settings):
    anatomy, task = anatomy_of(model), task or mixed_task(model)
    graph, prompts = ComputationalGraph.of_anatomy(anatomy, kv), task.prompts(model)
    ablator = Ablator.of(anatomy, ablation, prompts, settings.get("batch_size"))
    return soft_values(anatomy, graph, prompts, weights, ablator, get_objective(objective), **settings)


FEW = {"gpt2", "gemma2", "mixtral"}


def random_weights(graph, seed=0, density=0.7):
    """Weights between 0 and 1, of which some are 0 and some 1."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(graph.shape, generator=generator, dtype=torch.float64) * 1.5 - (1 - density) / density
    return weights.clamp(0, 1) * graph.edge_mask


def named(graph, weights):
    return {graph.edge_name(u, t): float(weights[u, t]) for u, t in graph.edge_mask.nonzero().tolist()}


@pytest.mark.parametrize("kv", ["head", "group"])
@pytest.mark.parametrize("name", mostly_slow(MODELS, FEW.__contains__))
def test_with_all_edges_at_one_the_gradient_is_edge_attribution_patching(name, kv):
    model = oracle.model_of(name)
    graph = ComputationalGraph.of(model, kv)
    for ablation in ABLATIONS:
        found = ours(model, graph.edge_mask.double()[None], ablation, kv=kv)
        expected = attribute(model, mixed_task(model), "eap", ablation=ablation, kv=kv, quiet=True).values
        assert error(found.gradients[0], expected) < TOLERANCE, ablation


@pytest.mark.parametrize("kv", ["head", "group"])
@pytest.mark.parametrize("name", mostly_slow(MODELS, FEW.__contains__))
def test_with_edges_at_zero_and_one_the_values_are_the_circuits(name, kv):
    model, anatomy = oracle.model_of(name), anatomy_of(oracle.model_of(name))
    graph, prompts = ComputationalGraph.of(model, kv), mixed_task(model).prompts(model)
    generator = torch.Generator().manual_seed(3)
    masks = torch.stack([graph.edge_mask & (torch.rand(graph.shape, generator=generator) < p) for p in (0, 0.2, 0.8)])
    for ablation in ABLATIONS:
        ablator, goal = Ablator.of(anatomy, ablation, prompts), get_objective("logit-difference")
        expected = Meter(Edges(anatomy, graph, ablator), prompts).values(masks, [goal])[0]
        assert error(ours(model, masks.double(), ablation, kv=kv).values, expected.circuits) < TOLERANCE, ablation


@pytest.mark.parametrize("several", [False, True], ids=["one token", "several tokens"])
@pytest.mark.parametrize("spans", [(2, 4, "rest"), (3, 4, 5)])
def test_weights_that_differ_by_span_are_circuits_by_position_and_slopes_are_finite_differences(spans, several):
    model = oracle.model_of("gemma2")
    task = Task.from_pairs("t", pairs_of()) if several else mixed_task(model)
    setting = Setting(model, task, run=Run(quiet=True))
    graph, placed = setting.graph, setting.placed(spans)
    draw = torch.Generator().manual_seed(4)

    def at_spans(weights, **told):
        return soft_values(setting.anatomy, graph, setting.prompts, weights, setting.ablator, setting.goal,
                           placed=placed, **told)  # fmt: skip

    masks = [SpanMask(graph.edge_mask & (torch.rand(3, *graph.shape, generator=draw) < p), spans) for p in (0.3, 0.8)]
    boolean = at_spans(torch.stack([one.mask.double() for one in masks]))
    assert error(boolean.values, setting.measure(masks).circuits) < TOLERANCE
    weights = torch.rand(3, *graph.shape, generator=draw, dtype=torch.float64) * graph.edge_mask
    direction = torch.randn(3, *graph.shape, generator=draw, dtype=torch.float64) * graph.edge_mask
    found = at_spans(weights[None], batch_size=1)
    down, up = at_spans(torch.stack([weights - 1e-5 * direction, weights + 1e-5 * direction])).values.mean(1)
    assert float((found.gradients[0] * direction).sum()) == pytest.approx(float((up - down) / 2e-5), rel=1e-6)
    same = at_spans(weights[:1].expand(3, -1, -1)[None])
    if "rest" in spans:  # else edges at other positions are ablated
        once = at_spans(weights[:1])
        assert error(same.values, once.values) < TOLERANCE
        assert error(same.gradients, once.gradients) < TOLERANCE


@pytest.mark.parametrize(("ablation", "name"), [(ABLATIONS[i % 4], name) for i, name in enumerate(MODELS)])
def test_values_and_slopes_are_those_of_a_slow_run(ablation, name):
    # the reference runs the bridge target by target and knows no gradient: central differences, whose error is
    # about 1e-9 here
    model, eps = oracle.expanded(name), 1e-5
    graph, prompts = ComputationalGraph.of(model), mixed_task(model).prompts(model)
    weights = random_weights(graph)
    corrupted = oracle.ablated_outputs(model, prompts, ablation)
    edges = ["input->a0.h1<q>", "a0.h2->a1.h0<k>", "m0->a1.h3<v>", "m0->m1", "a1.h1->a2.h2<k>", "a2.h0->logits"]
    places = [graph.edge_index(edge) for edge in edges]
    weights[places[2]] = weights[places[5]] = 0.0
    found = ours(oracle.model_of(name), weights[None], ablation)
    moved = [named(graph, weights)]
    moved += [{**moved[0], edge: moved[0][edge] + sign * eps} for sign in (-1, 1) for edge in edges]
    values = oracle.circuit_values(model, prompts, [(each, corrupted) for each in moved])
    assert error(found.values[0], values[0]) < TOLERANCE
    down, up = values[1:].mean(1).chunk(2)
    chosen = torch.stack([found.gradients[0][place] for place in places])
    assert chosen.abs().max() > 1e-4
    assert (chosen - (up - down) / (2 * eps)).abs().max() < 1e-6 * found.gradients.abs().max()


@pytest.mark.parametrize("name", ["llama", "gemma3", "gptj"])
def test_every_slope_over_groups_is_a_finite_difference(name):
    model, eps = oracle.model_of(name), 1e-5
    graph = ComputationalGraph.of(model, "group")
    weights, places = random_weights(graph, seed=1), graph.edge_mask.nonzero()[::17]
    moved = weights.repeat(2 * len(places), 1, 1)
    for i, (source, target) in enumerate(places.tolist()):
        moved[i, source, target] -= eps
        moved[i + len(places), source, target] += eps
    down, up = ours(model, moved, "mean", kv="group").values.mean(1).chunk(2)
    gradients = ours(model, weights[None], "mean", kv="group").gradients[0]
    assert (gradients[tuple(places.T)] - (up - down) / (2 * eps)).abs().max() < 1e-6 * gradients.abs().max()


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 2}, {"memory": 1 << 20}], ids=str)
@pytest.mark.parametrize("ablation", ["patch", "mean-positional"])
def test_batches_change_nothing(ablation, settings):
    model = oracle.model_of("gemma2")
    weights = random_weights(ComputationalGraph.of(model))[None]
    whole = ours(model, weights, ablation)
    found = ours(model, weights, ablation, **settings)
    assert error(found.values, whole.values) < TOLERANCE
    assert error(found.gradients, whole.gradients) < TOLERANCE


@pytest.mark.parametrize("ablation", ["patch", "zero"])
def test_order_padding_and_prefixes_change_nothing(ablation, monkeypatch):
    model = oracle.model_of("llama")
    task, weights = mixed_task(model), random_weights(ComputationalGraph.of(model))[None]
    whole, turned = ours(model, weights, ablation), ours(model, weights, ablation, task.select([2, 0, 1]))
    assert error(turned.gradients, whole.gradients) < TOLERANCE
    assert error(turned.values, whole.values[:, [2, 0, 1]]) < TOLERANCE
    alone = [ours(model, weights, ablation, task.select([i])).gradients for i in range(3)]
    assert error(sum(alone) / 3, whole.gradients) < TOLERANCE
    monkeypatch.setattr(Ablator, "skip_prefix", False)
    assert error(ours(model, weights, ablation).gradients, whole.gradients) < TOLERANCE


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost():
    def hungry(logits, prompts, clean):
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("pretended")
        return logits[:, 3] - logits[:, 4]

    model = oracle.model_of("llama")
    weights = random_weights(ComputationalGraph.of(model))[None]
    frugal = ours(model, weights, objective=lambda logits, prompts, clean: logits[:, 3] - logits[:, 4])
    assert error(ours(model, weights, objective=hungry).gradients, frugal.gradients) < TOLERANCE


def test_the_budget_bounds_the_batch():
    model = oracle.model_of("llama")
    anatomy, graph = anatomy_of(model), ComputationalGraph.of(model)
    prompts = tiny_task(model, n=200).prompts(model)
    sizes = [prompts_that_fit(anatomy, graph, prompts, memory) for memory in (1 << 20, 1 << 22, 1 << 30)]
    assert 1 <= sizes[0] < sizes[1] < sizes[2] == 200


def test_edges_without_a_way_to_the_logits_have_no_slope_and_new_edges_do():
    model = oracle.model_of("gpt2")
    graph = ComputationalGraph.of(model)
    weights = torch.zeros(graph.shape, dtype=torch.float64)
    for edge in ("input->m1", "m1->logits"):
        weights[graph.edge_index(edge)] = 1.0
    slopes = ours(model, weights[None]).gradients[0]
    largest = slopes.abs().max()
    assert slopes[graph.edge_index("input->m1")].abs() > 1e-3 * largest
    # a head that reads only corrupted sources gives nothing new
    assert slopes[graph.edge_index("a0.h1->m1")].abs() < 1e-14 * largest
    assert slopes[graph.edge_index("m1->logits")].abs() > 1e-3 * largest
    reach = {
        target for target, slope in zip(graph.targets, slopes.abs().amax(0), strict=True) if slope > 1e-3 * largest
    }
    assert reach == {"m1", "logits"}


def test_kl_is_measured_from_the_clean_run():
    model = oracle.model_of("llama")
    graph = ComputationalGraph.of(model)
    at_clean = ours(model, graph.edge_mask.double()[None], objective="kl")
    assert at_clean.values.abs().max() < 1e-12
    assert at_clean.gradients.abs().max() < 1e-8
    assert (ours(model, random_weights(graph)[None], objective="kl").values < -1e-6).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_finite_float32_slopes_close_to_float32(dtype):
    half = shared("llama", dtype)
    single = shared("llama", torch.float32)
    weights = random_weights(ComputationalGraph.of(half))[None]
    found, expected = ours(half, weights).gradients, ours(single, weights).gradients
    assert found.dtype == expected.dtype == torch.float32
    assert found.isfinite().all()
    assert float(torch.corrcoef(torch.stack((found.flatten(), expected.flatten())))[0, 1]) > 0.9


def test_what_cannot_be_differentiated_is_refused():
    model = oracle.model_of("gpt2")
    weights = random_weights(ComputationalGraph.of(model))[None]
    with pytest.raises(InputError, match="has no gradient in the logits"):
        ours(model, weights, objective=Objective("stuck", lambda logits, prompts, clean: logits.detach()[:, 0]))
    with pytest.raises(InputError, match="'broken' is NaN on prompt"):
        ours(model, weights, objective=Objective("broken", lambda logits, prompts, clean: logits[:, 0] * torch.nan))
    with pytest.raises(InputError, match="batch_size=0"):
        ours(model, weights, batch_size=0)

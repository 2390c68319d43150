"""Circuits by position: every mask against a slow run of the bridge in which each position reads its own mixture."""

from __future__ import annotations

import pytest
import torch

import metrics
from attribution import attribute
from interp import ComputationalGraph
from interp.errors import InputError
from interp.setting import Setting
from interp.span_mask import SpanMask
from interp.tasks.task import Task
from tests import oracle
from tests.oracle import MODELS as EVERY_MODEL
from tests.oracle import TOLERANCE, error, mixed_task

MODELS = ["llama", "gpt2", "gemma2", "gptj"]


def _masks(graph, n_spans, densities=(0.2, 0.6, 0.9), seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = n_spans, *graph.shape
    return torch.stack([graph.edge_mask & (torch.rand(shape, generator=generator) < p) for p in densities])


def _named(task):
    """Spans that stand elsewhere in each prompt."""
    slices = [{"a": (0, 2), "b": (4, 5)}, {"b": (1, 3), "a": (4, 5)}, {"a": (3, 4)}]
    return Task(task.name, task.examples, objective=task.objective, spans=slices)


def _where(spans, slots, prompts):
    """The span of each position, None at those in none, looked up one by one."""
    rest = spans.index("rest") if "rest" in spans else None
    found = []
    for i, row in enumerate(prompts.clean.tolist()):
        places = []
        for position in range(len(row)):
            name = next((s.name for s in slots[i] if s.start <= position < s.stop), None)
            places.append(spans.index(position) if position in spans else spans.index(name) if name in spans else rest)
        found.append(places)
    return found


def slow(name, task, spans, masks, ablation):
    """[circuit, n] by the bridge, every edge with a weight of 0 or 1 at every position."""
    model, graph = oracle.expanded(name), ComputationalGraph.of(oracle.model_of(name))
    prompts = task.prompts(model)
    where = _where(spans, task.spans(model).of or [()] * len(prompts), prompts)
    corrupted = oracle.ablated_outputs(model, prompts, ablation)
    circuits = []
    for mask in masks:
        weights = {}
        for edge in graph.edges():
            at = graph.edge_index(edge)
            inside = [[k is not None and bool(mask[k][at]) for k in row] for row in where]
            weights[edge] = torch.tensor(inside, dtype=torch.float64)
        circuits.append((weights, corrupted))
    return oracle.circuit_values(model, prompts, circuits)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("spans", "ablation"), [((2, 4, "rest"), "patch"), (("a", "b", "rest"), "mean"), ((0, 1, 3, 5), "zero")]
)
def test_each_position_reads_its_own_mixture(name, spans, ablation):
    model = oracle.model_of(name)
    graph, task = ComputationalGraph.of(model), _named(mixed_task(model))
    masks = _masks(graph, len(spans))
    found = metrics.evaluate(model, task, masks, spans=spans, ablation=ablation, quiet=True)
    assert error(found, slow(name, task, spans, masks, ablation)) < TOLERANCE
    one = metrics.evaluate(model, task, SpanMask(masks[1], spans), ablation=ablation, batch_size=1, quiet=True)
    assert error(one, found[1]) < TOLERANCE


@pytest.mark.parametrize("ablation", ["patch", "mean-positional"])
def test_single_edges_at_single_positions(ablation):
    """All edges but one at one position: it is the patching of that edge at that position."""
    name, spans = "llama", (4, 5, 6)
    model = oracle.model_of(name)
    graph, task = ComputationalGraph.of(model), mixed_task(model).select([0])
    prompts = task.prompts(oracle.expanded(name))
    less = oracle.differences(oracle.expanded(name), prompts, ablation)
    edges = ["input->a0.h1<k>", "m0->a1.h3<v>", "a0.h2->a2.h0<q>", "m2->logits", "a1.h1->m1"]
    masks, cases = [], []
    for edge in edges:
        for position in spans:
            mask = graph.edge_mask.repeat(7, 1, 1)
            mask[position][graph.edge_index(edge)] = False
            masks.append(mask)
            alone = torch.zeros_like(less["input"])
            alone[:, position] = less[edge.split("->")[0]][:, position]
            cases.append((edge, alone))
    found = metrics.evaluate(model, task, torch.stack(masks), spans=range(7), ablation=ablation, quiet=True)
    assert error(found, oracle.edges_moved(oracle.expanded(name), prompts, cases)) < TOLERANCE


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_exact_scores_at_a_position_are_brute_force_patching(name):
    edges, spans = ["input->a0.h1<k>", "m0->a1.h3<v>"], (4, 5)
    model, expanded = oracle.model_of(name), oracle.expanded(name)
    task = mixed_task(model).select([0])
    prompts = task.prompts(expanded)
    less = oracle.differences(expanded, prompts, "patch")
    cases = [("m0->a1.h3<v>", torch.zeros_like(less["input"]))]
    for edge in edges:
        for position in spans:
            alone = torch.zeros_like(less["input"])
            alone[:, position] = less[edge.split("->")[0]][:, position]
            cases.append((edge, alone))
    clean, *moved = oracle.edges_moved(expanded, prompts, cases).mean(1)
    scores = attribute(model, task, "exact", edges=edges, positions=list(spans), quiet=True)
    found = [scores.values[scores.spans.index(p)][scores.graph.edge_index(edge)] for edge in edges for p in spans]
    assert error(torch.stack(found), clean - torch.stack(moved)) < TOLERANCE
    assert max(abs(one) for one in found) > 0


@pytest.mark.parametrize("ablation", ["patch", "mean"])
def test_the_same_mask_at_all_spans_is_the_plain_circuit(ablation):
    model = oracle.model_of("gemma2")
    graph, task = ComputationalGraph.of(model), _named(mixed_task(model))
    masks = _masks(graph, 1)[:, 0]
    plain = metrics.measure(model, task, masks, ablation=ablation, quiet=True)
    spread = metrics.measure(model, task, masks[:, None].repeat(1, 3, 1, 1), spans=["a", "b", "rest"],
                             ablation=ablation, quiet=True)  # fmt: skip
    assert error(spread.circuits, plain.circuits) < TOLERANCE
    assert error(spread.empty, plain.empty) < TOLERANCE
    full = graph.edge_mask.repeat(3, 1, 1)
    whole = metrics.evaluate(model, task, full, spans=("b", 6, "rest"), ablation=ablation, quiet=True)
    assert error(whole, plain.clean) < TOLERANCE


def test_a_mask_of_scores_runs():
    model = oracle.model_of("llama")
    task = _named(mixed_task(model))
    scores = attribute(model, task, "eap", positions="spans", quiet=True)
    mask = scores.mask(200, selection="connected")
    assert (mask.n_edges, mask.level, mask.spans) == (200, "edge", ("a", "b", "rest"))
    found = metrics.evaluate(model, task, mask, quiet=True)
    assert found.shape == (3,)
    assert torch.equal(found, metrics.evaluate(model, task, mask.mask, spans=mask.spans, quiet=True))
    everything = scores.mask(3 * scores.graph.n_edges, selection="top-n", pruned=False)
    clean = Setting(model, task).measure([everything])
    assert error(clean.circuits[0], clean.clean) < TOLERANCE


def test_refused():
    model = oracle.model_of("llama")
    graph, task = ComputationalGraph.of(model), mixed_task(model)
    full = graph.edge_mask.repeat(2, 1, 1)
    for mask, told, words in [
        (full, {"spans": (1,)}, "mask has 2 spans on its first axis; spans names 1"),
        (full, {"spans": (1, 1)}, "none of them twice"),
        (full, {"spans": ("verb", "rest")}, "tell the span 'verb' apart; the task's spans are none"),
        (full.float(), {"spans": (1, 2)}, "is a torch.bool tensor"),
        (full[:, :4], {"spans": (1, 2)}, "does not fit model="),
        (~full, {"spans": (1, 2)}, "edges that do not exist, the first being"),
        (SpanMask(full, (1, 2)), {"spans": (1, 2)}, "leave them out"),
        (SpanMask(full[:, :4], (1, 2)), {}, "does not fit model="),
    ]:
        with pytest.raises(InputError) as raised:
            metrics.evaluate(model, task, mask, quiet=True, **told)
        assert words in str(raised.value)

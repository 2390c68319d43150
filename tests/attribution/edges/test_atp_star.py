"""AtP*: against patterns that the bridge computes, a saturated softmax, ways that cancel, verified edges."""

from __future__ import annotations

import functools

import pytest
import torch

import metrics
from attribution import AtPStar, attribute
from attribution.pattern_changes import of_the_others, one_key_changed
from circuits import compare_methods, find_circuit, planted
from interp import ComputationalGraph
from interp.errors import InputError
from tests import oracle
from tests.oracle import TOLERANCE, error, logit_difference, mixed_task
from tests.tiny import tiny, tiny_task

EDGES = [
    *("input->a0.h1<q>", "input->a1.h2<k>", "m0->a1.h0<q>", "a0.h2->a2.h1<k>", "a1.h3->a2.h0<q>", "m1->a2.h3<k>"),
    *("a0.h0->a1.h1<v>", "input->m1", "m2->logits", "input->logits"),
]


def star(model, task=None, ablation="patch", kv="head", **settings):
    given = {"ablation": ablation, "kv": kv, "quiet": True}
    return attribute(model, task or mixed_task(model), AtPStar(**settings), **given).values


def detached(model, dropped):
    """The edits under which a layer adds what it adds without a gradient."""
    if dropped is None:
        return {}
    return {oracle.sub_layer(model, part, dropped): torch.detach for part in ("attn", "mlp")}


@functools.lru_cache(maxsize=64)
def pattern_gradient(model, prompts, layer, dropped):
    """The gradient of the objective, summed over prompts, at a layer's pattern."""
    point, leaf = f"blocks.{layer}.attn.hook_pattern", []

    def tap(x):
        leaf.append(torch.zeros_like(x).requires_grad_())
        return x + leaf[0]

    logits, _ = oracle.run(model, prompts.clean, {point: tap, **detached(model, dropped)})
    found = torch.autograd.grad(logit_difference(logits, prompts).sum(), leaf, allow_unused=True)[0]
    return torch.zeros_like(leaf[0]) if found is None else found


@torch.no_grad()
def pattern_with(model, prompts, layer, point, change):
    """The pattern of a layer in a run in which `change` is made at one of its hook points."""
    name = f"blocks.{layer}.attn.hook_pattern"
    return oracle.passing(model, prompts.clean, {point: change}, [name])[name]


def one_edge(model, prompts, edge, delta, dropped=None):
    """[n]: the score of an edge on each prompt, the long way."""
    source, target = edge.split("->")
    kind, layer, letter, head = oracle.place_of(target)
    if letter not in ("q", "k"):
        gradient = oracle.input_gradients(model, prompts, detached(model, dropped), [target])[target]
        return (delta[source] * gradient).sum((1, 2))
    point, read = f"blocks.{layer}.{oracle.LETTERS[letter]}", oracle.norm_input(model, kind, layer)
    clean = oracle.passing(model, prompts.clean, {}, [point, f"blocks.{layer}.attn.hook_pattern"])
    lower = {read: lambda x: x - delta[source]}
    changed = oracle.passing(model, prompts.clean, lower, [point])[point]
    gradient, before = pattern_gradient(model, prompts, layer, dropped), clean[f"blocks.{layer}.attn.hook_pattern"]
    total = torch.zeros(len(prompts), dtype=torch.float64)
    width = prompts.clean.shape[1]
    for places in [list(range(width))] if letter == "q" else [[place] for place in range(width)]:
        values = clean[point].clone()
        values[:, places, head] = changed[:, places, head]
        after = pattern_with(model, prompts, layer, point, oracle.write(values))
        total += ((before - after) * gradient).sum((1, 2, 3))
    return total


@pytest.mark.parametrize(
    ("name", "ablation"), [("gpt2", "patch"), ("llama", "patch"), ("gemma2", "mean"), ("gpt_neox", "zero")]
)
def test_scores_are_those_of_patterns_that_the_bridge_computes(name, ablation):
    model, slow = oracle.model_of(name), oracle.expanded(name)
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    delta = oracle.differences(slow, prompts, ablation)
    expected = torch.stack([one_edge(slow, prompts, edge, delta).mean() for edge in EDGES])
    values = star(model, ablation=ablation)
    assert error(torch.stack([values[graph.edge_index(edge)] for edge in EDGES]), expected) < TOLERANCE
    assert torch.allclose(star(model, ablation=ablation, checkpointed=True), values, atol=1e-12)
    one = attribute(model, mixed_task(model), "atp-star", ablation=ablation, batch_size=1, quiet=True).values
    assert torch.allclose(one, values, atol=1e-12)


def test_dropped_gradients_are_those_of_detached_layers():
    model, slow, few = oracle.model_of("llama"), oracle.expanded("llama"), [2, 1, 6, 7, 9]
    task, graph, edges = mixed_task(model, [1, 0]), ComputationalGraph.of(model), [EDGES[i] for i in few]
    total = torch.zeros(len(edges), dtype=torch.float64)
    plain = torch.zeros_like(total)
    for number in range(2):
        prompts = task.select([number]).prompts(model)
        delta = oracle.differences(slow, prompts)
        for place, edge in enumerate(edges):
            layer = oracle.place_of(edge.split("->")[1])[1]
            others = range(3) if edge.endswith("logits") else [one for one in range(3) if one != layer]
            sizes = [one_edge(slow, prompts, edge, delta, dropped).abs() for dropped in others]
            total[place] += float(sum(sizes)) / len(sizes) / 2
            plain[place] += float(one_edge(slow, prompts, edge, delta)) / 2
    values = star(model, task, grad_drop=True)
    assert error(torch.stack([values[graph.edge_index(edge)] for edge in edges]), plain.sign() * total) < TOLERANCE


def test_edges_into_shared_keys_add_up_those_of_their_heads():
    model = oracle.model_of("llama")
    whole, grouped = ComputationalGraph.of(model), ComputationalGraph.of(model, kv="group")
    each, shared = star(model), star(model, kv="group")
    expected = each[:, whole.n_heads : 2 * whole.n_heads].unflatten(1, (grouped.n_ports, -1)).sum(-1)
    assert error(shared[:, grouped.n_heads : grouped.n_heads + grouped.n_ports], expected) < TOLERANCE


def test_closed_forms_hold_where_a_softmax_is_saturated():
    generator = torch.Generator().manual_seed(0)
    before = 40 * torch.randn(1, 2, 6, 6, generator=generator, dtype=torch.float64)
    before = before.masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), float("-inf"))
    before[0, 0, 5] = torch.tensor([90.0, 0, 1, 2, 3, -50])  # p is 1 but for 1e-38
    after = before[None] + 60 * torch.randn(4, 1, 2, 6, 6, generator=generator, dtype=torch.float64)
    after[0, 0, 0, 5, 0] = 1.5  # and another key takes its place
    found = one_key_changed(before, after)
    gradient = torch.randn(3, 1, 2, 6, 6, generator=generator, dtype=torch.float64)
    moved = gradient - of_the_others(before, gradient)
    assert float(before.softmax(-1)[0, 0, 5, 0]) == 1
    assert float(found[0, 0, 0, 5, 0]) == pytest.approx(float(torch.tensor([1.5, 0, 1, 2, 3, -50]).softmax(-1)[0]))
    for row in range(6):
        for key in range(row + 1):
            scores = before[None].repeat(4, 1, 1, 1, 1)
            scores[..., row, key] = after[..., row, key]
            pattern = scores.softmax(-1)
            assert torch.allclose(found[..., row, key], pattern[..., row, key], atol=1e-13)
            change = (pattern - before.softmax(-1))[..., row, :]
            expected = torch.einsum("sbhk,rbhk->rsbh", change, gradient[..., row, :])
            short = (found[..., row, key] - before.softmax(-1)[..., row, key]) * moved[:, None, ..., row, key]
            assert torch.allclose(short, expected, atol=1e-12)


@functools.cache
def known(name):
    model = planted.load(name)
    return model, model.task.select(range(32))


@pytest.mark.parametrize(("name", "least"), [("induction", 0.97), ("boolean", 0.98), ("greater", 0.96), ("sum", 0.96)])
def test_planted_circuits_are_found_at_least_as_well_as_by_slopes(name, least):
    model, task = known(name)
    found = metrics.auroc(attribute(model.model, task, "atp-star", quiet=True), model.mask)
    assert found >= metrics.auroc(attribute(model.model, task, "eap", quiet=True), model.mask) - 1e-9
    assert found > least


def test_verified_edges_have_their_exact_scores():
    model, task = known("boolean")
    scores = attribute(model.model, task, "atp-star", verify=20, quiet=True)
    plain = attribute(model.model, task, "atp-star", quiet=True).values
    exact = attribute(model.model, task, "exact", quiet=True).values
    best = plain.abs().flatten().topk(20).indices
    assert torch.allclose(scores.values.flatten()[best], exact.flatten()[best])
    others = torch.ones(plain.numel(), dtype=torch.bool)
    others[best] = False
    assert torch.equal(scores.values.flatten()[others], plain.flatten()[others])
    assert scores.settings["verified"] == 20


def test_it_is_compared_finds_circuits_and_scores_nodes():
    model, task = known("induction")
    table = compare_methods(model.model, task, methods=["eap", "atp-star"], quiet=True)
    assert set(table.to_frame()["method"]) == {"eap", "atp-star", "random"}
    circuit = find_circuit(model.model, task, method="atp-star", edges=9, quiet=True)
    assert circuit.scores.method == "atp-star"
    nodes = attribute(model.model, task, AtPStar(level="node"), quiet=True).values
    assert torch.allclose(nodes, attribute(model.model, task, "atp-star", quiet=True).values.sum(1), atol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="defined for the plain gradient"):
        AtPStar(rules="relp")
    with pytest.raises(InputError, match="verify=3 with level='node'"):
        AtPStar(level="node", verify=3)
    with pytest.raises(InputError, match="verify=-1 must"):
        AtPStar(verify=-1)
    model = tiny("gpt2", n_layer=1)
    with pytest.raises(InputError, match="this model has one"):
        attribute(model, tiny_task(model), AtPStar(grad_drop=True), quiet=True)

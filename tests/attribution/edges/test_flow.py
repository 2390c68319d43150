"""Information flow: against a walk, vector by vector, over what the bridge's hook points show."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
import torch

import metrics
from attribution import attribute
from circuits import planted
from interp import ComputationalGraph, Task
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task, norm_input


def flow(name, task=None, **settings):
    model = oracle.model_of(name)
    return attribute(model, task or mixed_task(model), "information-flow", quiet=True, **settings)


def shares(parts):
    """By part: how much nearer zero the sum of all is without it, as a share."""
    whole = sum(parts.values())
    near = {name: max(float(whole.abs().sum() - (whole - part).abs().sum()), 1e-5) for name, part in parts.items()}
    return {name: value / sum(near.values()) for name, value in near.items()}


def kept_of(model, tokens):
    """What passes the hook points that matter, of one prompt without padding, and every source's output."""
    points = {*oracle.output_points(model)}
    for layer in range(len(model.blocks)):
        points |= {f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.attn.v.hook_out"}
        points |= {norm_input(model, kind, layer) for kind in ("attention", "mlp")}
    with torch.no_grad():
        _, kept = oracle.run(model, tokens[None], keep=points)
    return kept, {name: x[0] for name, x in oracle.outputs(model, kept).items()}


def walked(model, graph, tokens):
    """The scores of one prompt, by edge name: from the logits to the input, one vector at a time."""
    kept, outputs = kept_of(model, tokens)
    biases = {layer: getattr(b.attn.o.original_component, "bias", None) for layer, b in enumerate(model.blocks)}
    scores, importance = defaultdict(float), defaultdict(float)
    into = {target: graph.edge_mask[:, i].nonzero()[:, 0].tolist() for i, target in enumerate(graph.targets)}

    def share_out(target, position, given):
        parts = {graph.sources[i]: outputs[graph.sources[i]][position] for i in into[target]}
        layer = len(model.blocks) if target == "logits" else int(re.findall(r"\d+", target)[0])
        below = layer + (target[0] == "m" and not graph.parallel)
        kinds = [bias for bias in list(biases.values())[:below] if bias is not None]
        if kinds:
            parts["biases"] = sum(kinds)
        for source, share in shares(parts).items():
            if source != "biases":
                scores[f"{source}->{target}"] += given * share
                importance[source, position] += given * share

    share_out("logits", len(tokens) - 1, 1.0)
    for layer in reversed(range(len(model.blocks))):
        for position in range(len(tokens)):
            share_out(f"m{layer}", position, importance[f"m{layer}", position])
        heads, point = [f"a{layer}.h{head}" for head in range(graph.n_heads)], f"blocks.{layer}.attn.o.hook_in"
        values = kept[f"blocks.{layer}.attn.v.hook_out"].reshape(1, len(tokens), -1, kept[point].shape[-1])
        asked = defaultdict(float)
        for number, head in enumerate(heads):
            for query in range(len(tokens)):
                given = importance[head, query] / 3
                asked[f"{head}<q>", query] += given
                parts = {}
                for key in range(query + 1):
                    weight = kept[f"blocks.{layer}.attn.hook_pattern"][0, number, query, key]
                    value = values[0, key, number * values.shape[2] // graph.n_heads]
                    if weight > 0:
                        parts[key] = writes(model, layer, number, kept, query, weight * value)
                assert torch.allclose(sum(parts.values()), outputs[head][query])
                for key, share in shares(parts).items():
                    asked[f"{head}<k>", key] += given * share
                    asked[f"{head}<v>", key] += given * share
        for (target, position), given in asked.items():
            share_out(target, position, given)
    return scores


def writes(model, layer, head, kept, position, vector):
    """What a head adds to the stream at a position for such a vector in front of W_O, in this run."""
    z = torch.zeros_like(kept[f"blocks.{layer}.attn.o.hook_in"])
    z[0, position, head] = vector
    return oracle.head_outputs(model, layer, {**kept, f"blocks.{layer}.attn.o.hook_in": z})[f"a{layer}.h{head}"][
        0, position
    ]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "gptj"])
def test_scores_are_those_of_a_walk_vector_by_vector(name):
    model, graph = oracle.model_of(name), ComputationalGraph.of(oracle.model_of(name))
    prompts = mixed_task(model).prompts(model)
    expected = torch.zeros(graph.shape, dtype=torch.float64)
    for tokens, length in zip(prompts.clean, prompts.lengths.tolist(), strict=True):
        for edge, value in walked(model, graph, tokens[:length]).items():
            expected[graph.edge_index(edge)] += value / len(prompts)
    scores = flow(name)
    assert error(scores.values, expected) < TOLERANCE
    assert (scores.values[graph.edge_mask] > 0).all()
    assert torch.allclose(flow(name, batch_size=1).values, scores.values, atol=1e-12)


def test_what_enters_is_what_leaves_but_for_biases():
    scores = flow("llama")
    graph, values = scores.graph, scores.values
    assert float(values[:, -1].sum()) == pytest.approx(1)
    for target, sources in list(enumerate(graph.target_sources))[:-1]:
        third = 1 / 3 if len(sources) == 1 and "<" in graph.targets[target] else 1
        assert float(values[:, target].sum()) == pytest.approx(third * float(values[list(sources)].sum()))
    grouped = flow("llama", kv="group").values
    ports = graph.n_heads + torch.arange(graph.n_heads)  # keys of the first layer
    assert torch.allclose(grouped[0, 4:6], values[0, ports].unflatten(0, (2, 2)).sum(1))


def test_neither_counterfactual_nor_ablation_nor_objective_play_a_part():
    values, model = flow("gpt2").values, oracle.model_of("gpt2")
    assert torch.equal(flow("gpt2", ablation="mean", objective="kl").values, values)
    prompts = mixed_task(model).prompts(model)
    others = (prompts.corrupted + 1) % model.cfg.d_vocab
    given = prompts.incorrect[:, :1], prompts.correct[:, :1]
    task = Task.from_tokens("others", prompts.clean, others, *given, attention_mask=prompts.mask)
    assert torch.equal(flow("gpt2", task).values, values)


@pytest.mark.parametrize(("name", "least"), [("induction", 0.7), ("boolean", 0.9), ("greater", 0.95), ("sum", 0.93)])
def test_of_planted_circuits_it_finds_what_carries_values(name, least):
    model = planted.load(name)
    scores = attribute(model.model, model.task.select(range(32)), "information-flow", quiet=True)
    assert metrics.auroc(scores, model.mask) > least

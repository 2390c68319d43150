"""Learned edge masks: the loss falls, planted paths are found, sizes hold, and what is refused."""

from __future__ import annotations

import pytest
import torch

from attribution import Schedule, Scores, attribute, edge_pruning
from attribution.edges.learned import _margin
from interp import ComputationalGraph
from interp.errors import InputError
from interp.selection import top_n
from metrics import evaluate
from tests import oracle
from tests.oracle import mixed_task
from tests.tiny import tiny, tiny_task


def learned(name, edges=0.2, start=None, steps=30, **settings):
    model = oracle.model_of(name)
    return edge_pruning(model, mixed_task(model), edges, start, schedule=Schedule(steps=steps), quiet=True, **settings)


def distance(name, values, size, ablation="patch", kv="head"):
    """Mean distance of a circuit's objective from the clean model's, prompt by prompt."""
    model = oracle.model_of(name)
    graph = ComputationalGraph.of(model, kv)
    masks = torch.stack([graph.edge_mask, top_n(values, graph, size)])
    clean, circuit = evaluate(model, mixed_task(model), masks, ablation=ablation, quiet=True)
    return float((circuit - clean).abs().mean())


@pytest.mark.parametrize(("name", "ablation"), [("gpt2", "patch"), ("llama", "patch"), ("gemma3", "mean")])
def test_the_loss_falls_and_circuits_are_closer_than_those_they_started_from(name, ablation):
    method = "eap-ig" if ablation == "patch" else "mask-ig"
    model = oracle.model_of(name)
    start = attribute(model, mixed_task(model), method, ablation=ablation, quiet=True)
    found = learned(name, start=start, ablation=ablation)
    losses, size = found.settings["losses"], found.settings["edges"]
    assert len(losses) == 30
    assert min(losses[-3:]) < losses[0] / 4
    assert distance(name, found.values, size, ablation) < distance(name, start.values, size, ablation) / 2


def test_a_planted_path_is_found_from_a_start_that_knows_nothing():
    # one head speaks in each of two layers and no MLP does: 12 of 46 edges carry all that differs between the prompts
    model = tiny("gpt2", n_layer=2, n_head=2)
    graph = ComputationalGraph.of(model)
    with torch.no_grad():
        for head, block in zip((0, 1), model.original_model.transformer.h, strict=True):
            silent = slice(8 * (1 - head), 8 * (2 - head))
            block.attn.c_proj.weight[silent] = 0
            block.mlp.c_proj.weight.zero_()
    task = tiny_task(model, n=12, length=5)
    matter = attribute(model, task, "exact", quiet=True).values.abs() > 1e-9
    assert int(matter.sum()) == 12
    noise = torch.rand(graph.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * graph.edge_mask
    start = Scores(noise, graph, method="noise")
    found = edge_pruning(model, task, 12, start, schedule=Schedule(steps=60), quiet=True).values
    kept = found >= found[graph.edge_mask].topk(12).values[-1]
    assert int((kept & matter).sum()) >= 11


def test_the_same_input_gives_the_same_scores_in_any_batches():
    whole = learned("llama", steps=5)
    assert torch.equal(learned("llama", steps=5).values, whole.values)
    assert torch.allclose(learned("llama", steps=5, batch_size=1).values, whole.values, rtol=1e-6)


def test_values_are_odds_around_the_size_asked_for():
    found = learned("gpt2", edges=40)
    graph = found.graph
    odds = found.values[graph.edge_mask]
    assert found.settings["edges"] == 40
    assert (odds > 0).all()
    assert abs(int((odds > 1).sum()) - 40) <= 8
    assert found.settings["start"] == "eap-ig"
    assert learned("gpt2", edges=40, steps=1, ablation="zero").settings["start"] == "mask-ig"


@pytest.mark.parametrize("size", [1, 40, 99])
def test_weights_add_up_to_the_size(size):
    logits = 3 * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for temperature in (1.0, 0.05):
        weights = torch.sigmoid((logits - _margin(logits, size, temperature)) / temperature)
        assert float(weights.sum()) == pytest.approx(size, abs=1e-6)


def test_groups_and_other_objectives_are_taken():
    found = learned("llama", steps=8, kv="group", objective="kl")
    assert found.graph.kv == "group"
    assert found.settings["objective"] == "kl"
    assert found.settings["losses"][-1] < found.settings["losses"][0]


def test_what_cannot_be_right_is_refused():
    model = oracle.model_of("gpt2")
    for edges, message in ((1.0, "must leave between 1 and"), (10**9, "must leave between 1 and"), (0, "or a share"),
                           (-3, "or a share"), ("many", "edges='many' must be a whole number")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            learned("gpt2", edges)
    with pytest.raises(InputError, match="start must be edge scores over"):
        learned("gpt2", start=attribute(model, mixed_task(model), "attribution-patching", quiet=True))
    with pytest.raises(InputError, match="steps=0 must be a whole number"):
        Schedule(steps=0)
    with pytest.raises(InputError, match="rate=-1 must be a number above 0"):
        Schedule(rate=-1)
    with pytest.raises(InputError, match="'accuracy' has no gradient"):
        learned("gpt2", start=attribute(model, mixed_task(model), "eap", quiet=True), objective="accuracy")

"""Optimal ablation: constants against a slow run by hooks, and what becomes of them in settings and files."""

from __future__ import annotations

import functools

import pytest
import torch

import metrics
from attribution import Scores, attribute
from circuits import Circuit, find_circuit
from interp import ComputationalGraph, Fitting, Run, Setting
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.fitting import fit
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task
from tests.tiny import tiny, tiny_task

FEW = Fitting(steps=3, prompts=2)


@functools.cache
def fitted(name, fitting=FEW):
    model = oracle.model_of(name)
    return fit(anatomy_of(model), mixed_task(model).prompts(model), fitting, Run(quiet=True))


@torch.no_grad()
def slow_losses(model, prompts, constants):
    """[source]: KL from the clean run with a source replaced by its constant, by the bridge's hooks."""
    clean, logits = oracle.source_outputs(model, prompts.clean), model(prompts.clean)
    last = prompts.lengths - 1
    rows = torch.arange(len(prompts))
    wanted = logits[rows, last].log_softmax(-1)
    found = []
    for source, own in clean.items():
        layer = -1 if source == "input" else int(source[1:].split(".")[0])
        point = "blocks.0.hook_in"
        if source == "input":
            value = constants.embedding
        elif source.startswith("m"):
            point, value = oracle.sub_layer(model, "mlp", layer), constants.mlps[:, layer]
        else:
            head = int(source.split("h")[1])
            block, z = model.blocks[layer], torch.zeros_like(constants.heads[:, layer])
            z[:, head] = constants.heads[:, layer, head]
            project = block.attn.o.original_component
            value = project(z.flatten(1)[None])[0] - project(torch.zeros_like(z).flatten(1)[None])[0]
            if hasattr(block, "ln1_post"):
                value = value * (1 + block.ln1_post.original_component.weight)
            point = oracle.sub_layer(model, "attn", layer)
        change = torch.cat((value[:1], value[1:].expand(own.shape[1] - 1, -1))) - own
        moved = oracle.run(model, prompts.clean, {point: lambda x, change=change: x + change})[0][rows, last]
        found.append((wanted.exp() * (wanted - moved.log_softmax(-1))).sum(-1).mean())
    return torch.stack(found)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "gemma2"])
def test_losses_are_those_of_a_slow_run_and_of_the_circuit_without_the_source(name):
    model = oracle.model_of(name)
    task, graph, constants = mixed_task(model), ComputationalGraph.of(model), fitted(name)
    assert error(constants.losses[1], slow_losses(model, task.prompts(model), constants)) < TOLERANCE
    masks = graph.edge_mask.repeat(3, 1, 1)
    chosen = [0, 3, len(graph.sources) - 1]
    for mask, source in zip(masks, chosen, strict=True):
        mask[source] = False
    values = Setting(model, task, "optimal", "kl", constants=constants).measure(masks).circuits
    assert error(-values.mean(1), constants.losses[1][chosen]) < TOLERANCE


def test_constants_lose_less_than_means_and_nothing_and_end_where_the_loss_is_flat():
    model = oracle.model_of("llama")
    task = mixed_task(model)
    prompts, constants = task.prompts(model), fitted("llama", Fitting(steps=50, prompts=3, rate=0.2))
    before, after = constants.losses
    assert (after < before).all()
    graph = ComputationalGraph.of(model)
    masks = graph.edge_mask.repeat(len(graph.sources), 1, 1)
    masks[torch.arange(len(masks)), torch.arange(len(masks))] = False
    for other in ("mean", "zero"):
        there = -Setting(model, task, other, "kl").measure(masks).circuits.mean(1)
        assert (after < there).all(), other

    def slopes(of):
        """By finite differences of the slow run, along one direction for each source."""
        generator, eps = torch.Generator().manual_seed(0), 1e-4
        way = {part: torch.randn(getattr(of, part)[1:].shape, generator=generator).double() for part in PARTS}
        ends = [
            slow_losses(model, prompts, type(of)(*(moved(of, way, part, sign * eps) for part in PARTS), *rest(of)))
            for sign in (-1, 1)
        ]
        return (ends[1] - ends[0]) / (2 * eps)

    start = fitted("llama", Fitting(steps=1, prompts=3, rate=1e-9))
    assert slopes(constants).norm() < 0.1 * slopes(start).norm()


PARTS = ("embedding", "heads", "mlps")


def moved(constants, way, part, eps):
    own = getattr(constants, part)
    return torch.cat((own[:1], own[1:] + eps * way[part]))


def rest(constants):
    return constants.losses, constants.model, constants.weights


def test_batches_stacks_and_memory_change_nothing():
    model = oracle.model_of("gemma2")
    anatomy, prompts = anatomy_of(model), mixed_task(model).prompts(model)
    for run in (Run(batch_size=1, quiet=True), Run(memory=1 << 20, quiet=True)):
        again = fit(anatomy, prompts, FEW, run)
        for part in PARTS:
            assert error(getattr(again, part), getattr(fitted("gemma2"), part)) < 1e-6, part


def test_a_setting_fits_once_and_hands_its_constants_on():
    model = tiny("gpt2")
    setting = Setting(model, tiny_task(model, n=6), "optimal", run=Run(quiet=True), constants=FEW)
    first, second = setting.split(0.5, 0)
    assert second.fitted == first.fitted == first.select([0]).fitted == first.under(objective="kl").fitted
    assert first.fitted == Setting(model, first.task, "optimal", run=Run(quiet=True), constants=FEW).fitted
    assert first.under(ablation="zero").constants is None
    # the first position is not ablated: there sources give their mean, which is their value where prompts begin alike
    means = setting.under(ablation="mean-positional").ablator.means.rows(torch.tensor([0]))
    assert error(setting.fitted.embedding[:1], means.embedding) < 1e-6


def test_a_saved_circuit_is_judged_under_its_own_constants(tmp_path):
    model = tiny("llama")
    task = tiny_task(model, n=6)
    circuit = find_circuit(
        model, task, edges=20, method="eap", ablation="optimal", constants=FEW, n_random=0, quiet=True
    )
    again = Circuit.load(circuit.save(tmp_path / "one"))
    assert again.setting.constants == circuit.setting.constants == again.scores.constants
    judged = [metrics.evaluate(model, task, one, quiet=True) for one in (circuit, again)]
    assert torch.equal(*judged)
    refit = metrics.evaluate(model, task, again, ablation="optimal", constants=Fitting(steps=1), quiet=True)
    assert not torch.equal(refit, judged[0])
    scores = Scores.load(circuit.scores.save(tmp_path / "scores"))
    assert scores.constants == circuit.scores.constants
    assert again.setting.to_dict()["constants"] == scores.constants.digest


def test_methods_that_take_gradients_and_nodes_work_under_it():
    model = tiny("gpt2")
    task, told = tiny_task(model, n=6), {"ablation": "optimal", "constants": FEW, "quiet": True}
    for method in ("eap", "mask-ig"):
        scores = attribute(model, task, method, **told)
        assert scores.ablation == "optimal"
        assert scores.values.abs().max() > 0
    assert find_circuit(model, task, level="head", method="eap", nodes=4, n_random=0, **told).n_nodes == 4
    nodes = find_circuit(model, task, level="node", method="eap", nodes=4, n_random=0, **told)
    same = [metrics.evaluate(model, task, one, quiet=True) for one in (nodes, nodes.to_circuit())]
    assert torch.allclose(*same, atol=1e-5)


def test_what_cannot_be_is_refused():
    model, other, edited = tiny("llama"), tiny("qwen3"), tiny("llama")
    with torch.no_grad():
        edited.original_model.model.layers[0].self_attn.q_proj.weight.add_(0.1)
    task = tiny_task(model, n=6)
    scores = attribute(model, task, "eap", ablation="optimal", constants=FEW, quiet=True)
    with pytest.raises(InputError, match="constants are of 'LlamaForCausalLM', with layers"):
        metrics.evaluate(other, tiny_task(other), scores.mask(9), ablation="optimal", constants=scores.constants)
    with pytest.raises(InputError, match="fitted to other weights"):
        metrics.evaluate(edited, tiny_task(edited), scores.mask(9), ablation="optimal", constants=scores.constants)
    with pytest.raises(InputError, match="belong to ablation='optimal'"):
        metrics.evaluate(model, task, scores.mask(9), constants=FEW)
    with pytest.raises(InputError, match="steps=0"):
        Fitting(steps=0)

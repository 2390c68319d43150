"""Optimal constants of neurons and features: what is minimised, by circuits measured one by one; files; refusals."""

from __future__ import annotations

import functools

import pytest
import torch

import attribution
import metrics
from circuits import NodeCircuit, find_circuit
from interp import Fitting, Setting
from interp.dictionaries.sets import DictionarySet
from interp.errors import InputError
from interp.node_mask import NodeMask
from interp.run import Run
from tests.node_circuits import QUIET, UNITS
from tests.oracle import error
from tests.tiny import shared, tiny, tiny_task

FEW = Fitting(steps=4, prompts=2)
LEVELS = ("neuron", "feature")


def setting_of(level, constants=FEW, ablation="optimal", objective="kl", errors="nodes"):
    model = shared("llama")
    features = DictionarySet(tuple(UNITS), errors) if level == "feature" else None
    task = tiny_task(model)
    told = {"run": Run(quiet=True), "features": features}
    return Setting(model, task, ablation, objective, constants=constants if ablation == "optimal" else None, **told)


@functools.cache
def fitted(level, fitting=FEW):
    setting = setting_of(level, fitting)
    setting.measure([NodeMask(setting.nodes(level).full, level)])
    return setting.fitted


def drawn(full, n, generator):
    shares = torch.rand(n, generator=generator).reshape(-1, *[1] * full.ndim)
    return (torch.rand(n, *full.shape, generator=generator) < shares) & full


def loss(setting, level, masks):
    """The mean KL of circuits [draw, prompt, *axes], each run alone, on its own prompt alone."""
    rows = [setting.measure([NodeMask(mask, level) for mask in each]).circuits.diagonal() for each in masks]
    return -torch.stack(rows).mean()


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_minimised_is_the_loss_of_drawn_circuits(level):
    tiniest = Fitting(steps=1, prompts=3, rate=1e-6)
    first, full = fitted(level, tiniest), setting_of(level).nodes(level).full
    generator = torch.Generator().manual_seed(0)
    judges, step = drawn(full, 12, generator).unflatten(0, (4, 3)), drawn(full, 3, generator)[None]
    assert error(loss(setting_of(level, first), level, judges), first.losses[1, 0]) < 1e-8
    # Adam's first step goes down each slope by one length: its sign is that of differences of the loss
    means = fitted(level, Fitting(steps=1, prompts=3, rate=1e-300))
    spots = [tuple(one) for one in (first.units - means.units).abs()[1].nonzero()[:: full.numel() // 4].tolist()]
    assert len(spots) >= 3
    for row, unit in spots:
        ends = []
        for sign in (-1, 1):
            moved = means.units.clone()
            moved[1, row, unit] += sign * 1e-4
            ends.append(loss(setting_of(level, type(means)(moved, means.errors, *rest(means))), level, step))
        assert float(ends[1] - ends[0]) * float(first.units[1, row, unit] - means.units[1, row, unit]) < 0


def rest(constants):
    return constants.losses, constants.model, constants.weights, constants.dictionaries


@pytest.mark.parametrize("level", LEVELS)
def test_they_lose_less_than_means_and_nothing(level):
    constants = fitted(level, Fitting(steps=20, prompts=3, rate=0.3))
    full = setting_of(level).nodes(level).full
    fresh = drawn(full, 24, torch.Generator().manual_seed(5)).unflatten(0, (8, 3))
    own = loss(setting_of(level, constants), level, fresh)
    assert own < loss(setting_of(level, ablation="mean"), level, fresh)
    assert own < loss(setting_of(level, ablation="zero"), level, fresh)
    assert constants.losses[1, 0] < constants.losses[0, 0]
    assert f"{constants!r}".startswith("UnitConstants(LlamaForCausalLM, ")


def test_a_setting_fits_once_at_the_first_use_and_hands_them_on():
    level = "feature"
    setting = setting_of(level)
    first, second = setting.split(0.7, 0)
    full = NodeMask(setting.nodes(level).full, level)
    second.measure([full])
    assert first.fitted == second.fitted == second.under(objective="logit-difference").fitted
    alone = Setting(first.model, first.task, "optimal", constants=FEW, features=first.features, run=Run(quiet=True))
    alone.measure([full])
    assert alone.fitted == second.fitted != fitted(level)


@pytest.mark.parametrize("level", LEVELS)
def test_a_saved_circuit_is_judged_under_its_own_constants(level, tmp_path):
    model = shared("llama")
    task, under = tiny_task(model, n=6), {"ablation": "optimal", "constants": FEW}
    features = {"dictionaries": UNITS, "errors": "nodes"} if level == "feature" else {}
    circuit = find_circuit(
        model, task, level=level, method="mask-ig", nodes=9, n_random=1, **under, **features, **QUIET
    )
    assert circuit.setting.constants == circuit.scores.constants is not None
    again = NodeCircuit.load(circuit.save(tmp_path / "one"))
    assert again.setting.constants == circuit.setting.constants
    again = again.with_dictionaries(UNITS) if level == "feature" else again
    judged = [metrics.evaluate(model, task, one, quiet=True) for one in (circuit, again)]
    assert torch.equal(*judged)
    assert not torch.equal(judged[0], metrics.evaluate(model, task, again, ablation="mean", quiet=True))
    scores = attribution.Scores.load(circuit.scores.save(tmp_path / "scores"))
    assert scores.constants == circuit.scores.constants


def test_scores_of_neurons_are_differences_from_constants():
    setting = setting_of("neuron", objective="logit-difference")
    model, task = setting.model, setting.task
    told = {"ablation": "optimal", "constants": fitted("neuron"), "quiet": True}
    exact = attribution.neurons(model, task, method="exact", only=[(1, 3)], **told).top(None)
    mask = setting.nodes("neuron").full.clone()
    mask[1, 3] = False
    values = setting_of("neuron", fitted("neuron"), objective="logit-difference").measure([NodeMask(mask, "neuron")])
    assert abs(exact["score"].mean() - float((values.clean - values.circuits[0]).mean())) < 1e-9
    slopes = attribution.neurons(model, task, method="eap", **told)
    zero = attribution.neurons(model, task, method="eap", ablation="zero", quiet=True)
    ratio = (slopes.activations - fitted("neuron").units[1][None, :, None]) / slopes.activations
    assert error(slopes.values[:, :, 1:], (zero.values * ratio)[:, :, 1:]) < 1e-9


def test_constants_of_others_are_refused_in_a_sentence():
    model = shared("llama")
    task, mask = tiny_task(model), NodeMask(setting_of("neuron").nodes("neuron").full, "neuron")
    told = {"ablation": "optimal", "quiet": True}
    with pytest.raises(InputError, match="constants are of features, and neurons are ablated"):
        metrics.evaluate(model, task, mask, constants=fitted("feature"), **told)
    with pytest.raises(InputError, match="constants are of neurons, and sources"):
        metrics.evaluate(model, task, Setting(model, task).graph.edge_mask, constants=fitted("neuron"), **told)
    other = setting_of("feature", fitted("feature")).under(features=DictionarySet(tuple(UNITS[::-1]), "nodes"))
    with pytest.raises(InputError, match="features of other dictionaries, or in another order"):
        other.measure([NodeMask(other.nodes("feature").full, "feature")])
    edited = tiny("llama")
    with torch.no_grad():
        edited.original_model.model.layers[0].self_attn.q_proj.weight.add_(0.1)
    with pytest.raises(InputError, match="fitted to other weights"):
        metrics.evaluate(edited, tiny_task(edited), mask, constants=fitted("neuron"), **told)
    experts = shared("mixtral")
    with pytest.raises(InputError, match="mixture of experts, none for level='neuron'"):
        find_circuit(experts, tiny_task(experts, n=6), level="neuron", nodes=3, **told)

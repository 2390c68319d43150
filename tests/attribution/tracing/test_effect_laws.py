"""Laws of direct effects, in float64 on every architecture: what all sources give is what there is."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution import neurons
from attribution.tracing.effects import Tracer
from attribution.tracing.held import hold
from attribution.tracing.logits import logit_targets
from attribution.tracing.neurons import Neurons
from attribution.tracing.totals import largest, scores_at, total_scores
from attribution.tracing.units import Places, Targets
from interp.inspection import anatomy_of
from tests.oracle import MODELS, TOLERANCE, error, model_of
from tests.tiny import mostly_slow

IDS = [4, 17, 9, 30, 2, 41, 8]
SIDES = [((7,), ()), ((3,), (5,)), ((3, 8), ())]
FEW = ("llama", "gpt2", "mixtral")


def every(held, units):
    """All units of all layers."""
    parts = [
        torch.cartesian_prod(torch.tensor([layer]), *map(torch.arange, units.activations(layer).shape))
        for layer in range(held.n_layers)
    ]
    return Places.of(torch.cat(parts))


@functools.cache
def traced(name):
    """All effects on all neurons and some logits, and the targets' values."""
    held = hold(anatomy_of(model_of(name)), torch.tensor(IDS))
    units = Neurons(held)
    places = every(held, units)
    rows = [units.reads(layer, places.select(places.layers == layer)) for layer in range(held.n_layers)]
    logits, values = logit_targets(held, SIDES, centred=False)
    tracer = Tracer(held, units, places, batch_size=100)
    found = tracer.effects(Targets.joined([*rows, logits]), magnitudes=True)
    activations = torch.cat([units.activations(layer).flatten() for layer in range(held.n_layers)])
    return held, units, tracer, found, torch.cat([activations, values])


@pytest.mark.parametrize("name", MODELS)
def test_all_sources_add_up_to_the_activation_or_the_logit(name):
    _, _, tracer, found, values = traced(name)
    assert error(found.row_sums(), values) < TOLERANCE
    shown = found.tokens.sum(1) + found.units.sum(1) + found.biases.sum((1, 2))
    assert error(shown, values) < TOLERANCE
    logits = model_of(name)(torch.tensor([IDS]))[0, -1]
    expected = [logits[7], logits[3] - logits[5], logits[3] + logits[8]]
    assert error(found.row_sums()[-3:], torch.stack(expected).detach()) < TOLERANCE
    assert not found.errors.numel()  # neurons leave nothing
    assert bool(tracer.biases.places) == (name not in ("llama", "mistral", "qwen3", "gemma2", "gemma3", "mixtral"))


@pytest.mark.parametrize("name", MODELS)
def test_magnitudes_are_streamed_sums_over_all_units(name):
    _, _, _, found, _ = traced(name)
    assert error(found.magnitude, found.units.abs().sum(1)) < TOLERANCE
    assert error(found.everything, found.units.sum(1)) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_a_score_is_the_direct_edge_and_those_of_all_neurons_behind(name):
    held, units, _, found, _ = traced(name)
    theirs = neurons(model_of(name), [IDS], 7, quiet=True)
    logits, _ = logit_targets(held, SIDES[:1], centred=False)
    scores = []
    words = total_scores(held, units, logits, lambda layer, values: scores.insert(0, values[0].flatten()))
    flat = torch.cat(scores)
    assert error(flat, theirs.values[0].flatten()) < TOLERANCE
    assert error(words[0], theirs.embedding[0]) < TOLERANCE
    # dL/da_t, which is the score over the activation where that is not 0
    activations = torch.cat([units.activations(layer).flatten() for layer in range(held.n_layers)])
    slopes = torch.where(activations != 0, flat / activations, 0.0)
    assert error(found.units[-3] + slopes @ found.units[:-3], flat) < TOLERANCE
    assert error(found.tokens[-3] + slopes @ found.tokens[:-3], words[0]) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_biases_have_the_total_effect_that_neurons_scores_give_them(name):
    held, units, tracer, found, _ = traced(name)
    theirs = neurons(model_of(name), [IDS], 7, quiet=True)
    scores = theirs.values[0].flatten()
    activations = torch.cat([units.activations(layer).flatten() for layer in range(held.n_layers)])
    slopes = torch.where(activations != 0, scores / activations, 0.0)
    total = found.biases[-3] + torch.einsum("t,tbp->bp", slopes, found.biases[:-3])
    expected = torch.zeros_like(total)
    # a norm that attention and MLP share has one name there
    names = {place: i for i, place in enumerate(tracer.biases.places)}
    for row in theirs.biases.itertuples():
        expected[names[row.layer, row.place], row.position] += row.score
    if ("gptj" in name) and total.numel():
        both = [(names[layer, "attention_norm"], names[layer, "mlp_norm"]) for layer in range(held.n_layers)]
        for first, second in both:
            total[first] += total[second]
            total[second] = 0
    if total.numel():
        assert error(total, expected) < TOLERANCE


@pytest.mark.parametrize("name", mostly_slow(MODELS, lambda name: name in FEW))
def test_batches_and_the_choice_of_units_change_nothing(name):
    held, units, tracer, found, _ = traced(name)
    some = torch.arange(5, len(tracer.chosen), 41)
    places = tracer.chosen.select(some)
    rows = [units.reads(layer, places.select(places.layers == layer)) for layer in range(held.n_layers)]
    small = Tracer(held, units, places, batch_size=3).effects(Targets.joined(rows))
    assert error(small.units, found.units[some][:, some]) < TOLERANCE
    assert error(small.tokens, found.tokens[some]) < TOLERANCE
    assert small.magnitude is None


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_centred_logit_is_in_front_of_the_soft_cap_and_less_the_mean(name):
    held, _, tracer, _, _ = traced(name)
    logits, values = logit_targets(held, SIDES, centred=True)
    found = tracer.effects(logits)
    bridge = model_of(name)
    cap = getattr(bridge.original_model.config, "final_logit_softcapping", None)
    raw = bridge(torch.tensor([IDS]))[0, -1].detach()
    if cap is not None:
        raw = torch.atanh(raw / cap) * cap
    raw = raw - raw.mean()
    expected = torch.stack([raw[7], raw[3] - raw[5], raw[3] + raw[8]])
    assert error(values, expected) < 1e-9
    assert error(found.row_sums(), expected) < 1e-9


def test_the_largest_are_the_largest_without_what_is_left_out():
    held, units, _, _, _ = traced("llama")
    logits, _ = logit_targets(held, [((7,), ()), ((9,), ())], centred=False)
    weights = torch.tensor([0.75, 0.25])
    pair = [neurons(model_of("llama"), [IDS], target, quiet=True).values[0] for target in (7, 9)]
    strength = 0.75 * pair[0].abs() + 0.25 * pair[1].abs()
    strength[:, [0, 3]] = 0
    found = largest(held, units, logits, weights, 20, leave_out=[0, 3])
    assert torch.allclose(found.strength, strength.flatten().topk(20).values)
    at = tuple(found.places.rows().T)
    assert torch.allclose(strength[at], found.strength)
    assert torch.allclose((0.75 * pair[0] + 0.25 * pair[1])[at], found.scores)
    assert torch.allclose(scores_at(held, units, logits, weights, found.places), found.scores)

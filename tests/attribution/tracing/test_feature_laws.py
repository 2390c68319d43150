"""Features of random transcoders as units, in float64: what all sources give is what the encoder computes."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution import Dictionary
from attribution.tracing.effects import Tracer
from attribution.tracing.features import Features, check_dictionaries
from attribution.tracing.held import hold
from attribution.tracing.logits import logit_targets
from attribution.tracing.totals import total_scores
from attribution.tracing.units import Places, Targets
from interp.errors import InputError
from interp.inspection import anatomy_of
from tests.oracle import TOLERANCE, error, model_of
from tests.tiny import D_MODEL, LAYERS

IDS = [4, 17, 9, 30, 2, 41, 8]
KINDS = [
    {},
    {"W_skip": True},
    {"threshold": 0.3, "reads": "normalized", "writes": "added"},
    {"k": 6, "W_skip": True, "reads": "normalized"},
    {"W_later": True, "threshold": 0.3, "reads": "stream"},
    {"W_later": True, "W_skip": True, "writes": "added"},
]


def dictionaries(kind, layers=range(LAYERS), seed=0):
    """One transcoder a layer with 20 features."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64) * 0.5

    return [
        Dictionary.from_tensors(
            layer, "transcoder", W_enc=draw(20, D_MODEL), b_enc=draw(20), W_dec=draw(20, D_MODEL), b_dec=draw(D_MODEL),
            **{**kind, **({"W_skip": draw(D_MODEL, D_MODEL)} if "W_skip" in kind else {}),
               **({"W_later": draw(LAYERS - 1 - layer, 20, D_MODEL) if layer < LAYERS - 1 else None}
                  if "W_later" in kind else {})},
        )
        for layer in layers
    ]  # fmt: skip


@functools.cache
def traced(name, index, layers=tuple(range(LAYERS))):
    held = hold(anatomy_of(model_of(name)), torch.tensor(IDS))
    units = Features(held, dictionaries(KINDS[index], layers))
    rows = []
    for layer in layers:
        position, column = units.activations(layer).nonzero().T
        rows.append(torch.stack((torch.full_like(position, layer), position, units.numbers(layer)[column]), 1))
    places = Places.of(torch.cat(rows))
    reads = [units.reads(layer, places.select(places.layers == layer)) for layer in layers]
    logits, values = logit_targets(held, [((7,), ()), ((3,), (5,))], centred=True)
    tracer = Tracer(held, units, places, batch_size=50)
    found = tracer.effects(Targets.joined([*reads, logits]), magnitudes=True)
    return held, units, tracer, found, torch.cat([units.at(places), values])


@pytest.mark.parametrize("index", range(len(KINDS)))
@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj", "gemma2"])
def test_all_sources_add_up_to_what_the_encoder_computes(name, index):
    _, units, _, found, values = traced(name, index)
    assert error(found.row_sums(), values) < TOLERANCE
    shown = found.tokens.sum(1) + found.units.sum(1) + found.errors.sum((1, 2)) + found.biases.sum((1, 2))
    assert error(shown, values) < TOLERANCE
    assert error(found.magnitude, found.units.abs().sum(1)) < TOLERANCE
    assert not found.errors[:, :, 0].any()  # nothing at position 0
    assert found.errors.any()
    assert not any(units.activations(layer)[0].any() for layer in range(LAYERS))


@pytest.mark.parametrize("index", range(len(KINDS)))
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_scores_are_direct_effects_and_those_of_all_features_behind(name, index):
    held, units, tracer, found, values = traced(name, index)
    logits, _ = logit_targets(held, [((7,), ())], centred=True)
    scores = {}
    words = total_scores(held, units, logits, lambda layer, given: scores.update({layer: given[0]}))
    flat = torch.cat([scores[layer][units.activations(layer) != 0] for layer in range(LAYERS)])
    n = len(tracer.chosen)
    slopes = flat / values[:n]
    assert error(found.units[n] + slopes @ found.units[:n], flat) < TOLERANCE
    assert error(found.tokens[n] + slopes @ found.tokens[:n], words[0]) < TOLERANCE


@pytest.mark.parametrize("index", [i for i, kind in enumerate(KINDS) if "W_later" in kind])
def test_features_of_all_layers_in_front_write_to_an_mlp(index):
    """By hand: with a gradient at one MLP's output alone, a feature's effect is its own decoder of that layer."""
    held, units, tracer, _, values = traced("llama", index)
    given = dictionaries(KINDS[index])
    for into in range(LAYERS):
        by_hand = torch.zeros_like(held.words)
        for one in given[: into + 1]:
            x = held.layers[one.layer].mlp_input
            f = one.encode(x if one.reads == "stream" else held.block(one.layer).mlp_norm(x))
            f[0] = 0
            by_hand += f @ (one.W_dec if one.layer == into else one.W_later[into - one.layer - 1])
        assert error(units.total(into), by_hand) < TOLERANCE
    written = {into: units.writes(0, tracer.chosen.select(tracer.chosen.layers == 0), into) for into in range(LAYERS)}
    column = int(tracer.chosen.units[0])
    decoders = torch.stack([given[0].W_dec[column], *given[0].W_later[:, column]])
    assert error(torch.stack([written[i][0] for i in range(LAYERS)]), values[0] * decoders) < TOLERANCE


def test_a_layer_without_a_dictionary_is_all_error():
    held, _, _, found, values = traced("llama", 0, (1,))
    assert error(found.row_sums(), values) < TOLERANCE
    assert found.errors[:, 0].any()
    assert (held.n_layers, found.errors.shape[1]) == (LAYERS, LAYERS)


def test_what_can_be_no_units_is_refused():
    held = hold(anatomy_of(model_of("llama")), torch.tensor(IDS))
    eye = torch.eye(D_MODEL)
    sae = Dictionary.from_tensors(0, "mlp", W_enc=eye, b_enc=None, W_dec=eye, b_dec=None)
    foreign = Dictionary.from_tensors(0, "transcoder", W_enc=eye[:, :4], b_enc=None, W_dec=eye[:, :4], b_dec=None)
    twice = dictionaries({}, [1, 1])
    normalised = dictionaries({"normalization": "layer_norm"}, [1])
    cases = [([sae], "no transcoder"), ([foreign], "another model"), (twice, "two dictionaries"), (3, "must be")]
    cases += [([], "must be"), (normalised, "normalises its input")]
    for given, told in cases:
        with pytest.raises(InputError, match=told):
            check_dictionaries(held, given)

"""Heads and MLPs as units: laws on every architecture, and edges against autograd on the transformers module."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution.tracing.component_effects import ComponentTracer
from attribution.tracing.components import Components
from attribution.tracing.held import hold
from attribution.tracing.logits import logit_targets
from attribution.tracing.units import Places
from interp.inspection import anatomy_of
from tests.detached import held_patterns, linearised
from tests.oracle import MODELS, TOLERANCE, error, model_of
from tests.tiny import HEADS, LAYERS

IDS = [4, 17, 9, 30, 2, 41, 8]
SIDES = [((7,), ()), ((3,), (5,))]
WEIGHTS = torch.tensor([0.75, 0.25], dtype=torch.float64)
SHAPE = (LAYERS, len(IDS), HEADS + 1)  # layer, position, unit: the MLP first


@functools.cache
def traced(name):
    held = hold(anatomy_of(model_of(name)), torch.tensor(IDS))
    logits, values = logit_targets(held, SIDES, centred=False)
    units = Components(held, logits, WEIGHTS)
    places = Places.of(torch.cartesian_prod(*map(torch.arange, SHAPE)) - torch.tensor([0, 0, 1]))
    tracer = ComponentTracer(held, units, places, batch_size=10)
    direct = tracer.on_logits(logits, True, lambda n: None)
    rows = tracer.on_units(places, True, lambda n: None)
    return units, tracer, direct, rows, values


@pytest.mark.parametrize("name", MODELS)
def test_rows_add_up_to_what_units_give_and_logits_to_themselves(name):
    units, _, direct, rows, values = traced(name)
    activations = torch.stack([units.activations(layer) for layer in range(LAYERS)]).flatten()
    assert activations.abs().max() > 0.1
    for found, expected in ((rows, activations), (direct, values)):
        assert error(found.row_sums(), expected) < TOLERANCE
        shown = found.tokens.sum(1) + found.units.sum(1) + found.biases.sum((1, 2))
        assert error(shown, expected) < TOLERANCE
        assert error(found.magnitude, found.units.abs().sum(1)) < TOLERANCE
    logits = model_of(name)(torch.tensor([IDS]))[0, -1].detach()
    assert error(values, torch.stack([logits[7], logits[3] - logits[5]])) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_what_a_unit_gives_the_logits_goes_along_its_edges(name):
    units, _, direct, rows, _ = traced(name)
    activations = torch.stack([units.activations(layer) for layer in range(LAYERS)]).flatten()
    assert error(WEIGHTS @ direct.units + rows.units.sum(0), activations) < TOLERANCE
    assert error(WEIGHTS @ direct.tokens + rows.tokens.sum(0), units.token_scores) < TOLERANCE


def by_autograd(name):
    """All edges between heads, MLPs and tokens, and those to the sum of logits; `[..., layer, position, unit]`."""
    module, outputs, words = linearised(name)
    blocks = module.model.layers if name == "llama" else module.transformer.h
    attentions = [block.self_attn.o_proj if name == "llama" else block.attn.c_proj for block in blocks]
    own, cut, cutting = {}, {}, [False]

    def stop(key, x):
        own[key] = x
        if not x.requires_grad:
            x.requires_grad_()
        if cutting[0]:
            cut[key] = x.detach().requires_grad_()
            return cut[key]
        return x

    for layer in range(LAYERS):
        attentions[layer].register_forward_pre_hook(lambda part, given, layer=layer: (stop(("z", layer), given[0]),))
        if name == "llama":
            outputs[layer].register_forward_hook(lambda part, given, out, layer=layer: stop(("m", layer), out))
        else:  # its bias is no part of what neurons give
            hook = lambda part, given, out, layer=layer: stop(("m", layer), out - part.bias) + part.bias  # noqa: E731
            outputs[layer].register_forward_hook(hook)
    words.register_forward_hook(lambda part, given, out: stop("words", out))

    def logit():
        with held_patterns():
            logits = module(torch.tensor([IDS]), use_cache=False).logits[0, -1]
        return WEIGHTS[0] * logits[7] + WEIGHTS[1] * (logits[3] - logits[5])

    keys = [(kind, layer) for layer in range(LAYERS) for kind in ("m", "z")]

    def split(values):
        """What heads and MLPs have: products by element, summed over each."""
        return torch.stack([torch.cat((values["m", i].sum(-1)[0, :, None], values["z", i][0].unflatten(-1, (HEADS, -1)).sum(-1)), 1) for i in range(LAYERS)])  # fmt: skip # noqa: E501

    value = logit()
    total = dict(zip(keys, torch.autograd.grad(value, [own[key] for key in keys]), strict=True))
    cutting[0] = True
    value = logit()
    scalars = split({key: total[key] * own[key] for key in keys})
    rows, tokens = [], []
    for one in [*scalars.flatten(), value]:
        inputs = [*(cut[key] for key in keys), cut["words"]]
        if not one.requires_grad:
            found = [None] * len(inputs)
        else:
            found = torch.autograd.grad(one, inputs, allow_unused=True, retain_graph=True)
        found = [torch.zeros_like(x) if g is None else g * x for g, x in zip(found, inputs, strict=True)]
        rows.append(split(dict(zip(keys, found, strict=False))).detach().flatten())
        tokens.append(found[-1].sum(-1)[0].detach())
    return scalars.detach(), torch.stack(rows), torch.stack(tokens)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_edges_are_autograds_on_a_module_with_heads_and_mlps_cut(name):
    units, _, direct, rows, _ = traced(name)
    activations, edges, tokens = by_autograd(name)
    assert error(torch.stack([units.activations(layer) for layer in range(LAYERS)]), activations) < TOLERANCE
    assert error(torch.cat((rows.units, (WEIGHTS @ direct.units)[None])), edges) < TOLERANCE
    assert error(torch.cat((rows.tokens, (WEIGHTS @ direct.tokens)[None])), tokens) < TOLERANCE

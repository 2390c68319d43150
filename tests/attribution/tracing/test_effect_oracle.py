"""Direct effects against autograd on the transformers module itself, MLPs' outputs cut: no line of ours is run."""

from __future__ import annotations

import pytest
import torch

from attribution.tracing.effects import Tracer
from attribution.tracing.held import hold
from attribution.tracing.logits import logit_targets
from attribution.tracing.neurons import Neurons
from attribution.tracing.units import Places, Targets
from interp.inspection import anatomy_of
from tests.detached import held_patterns, linearised
from tests.oracle import TOLERANCE, error, model_of
from tests.tiny import LAYERS, MLP

IDS = [4, 17, 9, 30, 2, 41, 8]
PLACES = [(0, 1, 3), (0, 6, 20), (1, 0, 5), (1, 4, 7), (1, 6, 23), (2, 2, 0), (2, 6, 9), (2, 6, 22)]


def by_autograd(name):
    """Effects of every neuron and word on the neurons in PLACES, and on logit 7 less logit 5."""
    module, outputs, words = linearised(name)
    hidden, cut = {}, {}

    def keep(layer):
        def hook(part, given):
            hidden[layer] = given[0]

        return hook

    def stop(key):
        def hook(part, given, out):
            cut[key] = out.detach().requires_grad_()
            return cut[key]

        return hook

    for layer, part in enumerate(outputs):
        part.register_forward_pre_hook(keep(layer))
        part.register_forward_hook(stop(layer))
    words.register_forward_hook(stop("words"))
    with held_patterns():
        logits = module(torch.tensor([IDS]), use_cache=False).logits[0, -1]
    values = [hidden[layer][0, position, unit] for layer, position, unit in PLACES] + [logits[7] - logits[5]]
    rows, embedded = [], []
    for value in values:
        found = torch.autograd.grad(value, [*(cut[i] for i in range(LAYERS)), cut["words"]], allow_unused=True, retain_graph=True)  # fmt: skip # noqa: E501
        gradients = [torch.zeros_like(cut["words"]) if one is None else one for one in found]
        weights = [part.weight if name == "gpt2" else part.weight.T for part in outputs]
        rows.append(torch.stack([(hidden[i] * (gradients[i] @ weights[i].T))[0] for i in range(LAYERS)]).detach())
        embedded.append((gradients[-1] * cut["words"]).sum(-1)[0].detach())
    return torch.stack(rows).flatten(1), torch.stack(embedded)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_edges_are_autograds_on_a_module_with_mlps_cut(name):
    held = hold(anatomy_of(model_of(name)), torch.tensor(IDS))
    units, shown = Neurons(held), Places.of(torch.tensor(PLACES))
    every = Places.of(torch.cartesian_prod(torch.arange(LAYERS), torch.arange(len(IDS)), torch.arange(MLP)))
    rows = [units.reads(layer, shown.select(shown.layers == layer)) for layer in range(LAYERS)]
    logits, _ = logit_targets(held, [((7,), (5,))], centred=False)
    found = Tracer(held, units, every, batch_size=4).effects(Targets.joined([*rows, logits]))
    expected, words = by_autograd(name)
    assert error(found.units, expected) < TOLERANCE
    assert error(found.tokens, words) < TOLERANCE

"""Scores of neurons against autograd on the transformers module itself, with detached parts: no line of ours is run.

Under `relp-ah` a norm is its input times a constant, an activation its input times a constant, a gated product the mean
of the products in which one factor is constant, and attention patterns are constants.
"""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import nn

from attribution import neurons
from tests.oracle import TOLERANCE, error
from tests.tiny import LAYERS, tiny_module

softmax = nn.functional.softmax  # the module's own, before it is patched
IDS = [[4, 17, 9, 30, 2, 41, 8], [11, 3, 26, 50, 19, 33, 7]]


class LinearNorm(nn.Module):
    """An RMSNorm or a LayerNorm with its divisor detached."""

    def __init__(self, own):
        super().__init__()
        self.own = own

    def forward(self, x):
        centred = isinstance(self.own, nn.LayerNorm)
        x = x - x.mean(-1, keepdim=True) if centred else x
        eps = self.own.eps if centred else self.own.variance_epsilon
        y = self.own.weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt().detach()
        return y + self.own.bias if centred else y


class LinearActivation(nn.Module):
    """An activation function whose slope through the origin is detached."""

    def __init__(self, own):
        super().__init__()
        self.own = own

    def forward(self, x):
        return x * (self.own(x) / x).detach()


class HalvedMLP(nn.Module):
    """A gated MLP whose product gives half of the gradient to each factor."""

    def __init__(self, own):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = own.gate_proj, own.up_proj, own.down_proj
        self.act_fn = LinearActivation(own.act_fn)

    def forward(self, x):
        gate, up = self.act_fn(self.gate_proj(x)), self.up_proj(x)
        return self.down_proj(0.5 * (gate * up.detach() + gate.detach() * up))


def linearised(name):
    """The module, its MLPs' output matrices by layer, and its embedding, with all parts replaced."""
    module = tiny_module(name)
    if name == "llama":
        body, blocks = module.model, module.model.layers
        for block in blocks:
            block.mlp = HalvedMLP(block.mlp)
            block.input_layernorm = LinearNorm(block.input_layernorm)
            block.post_attention_layernorm = LinearNorm(block.post_attention_layernorm)
        body.norm = LinearNorm(body.norm)
        return module, [block.mlp.down_proj for block in blocks], body.embed_tokens
    body, blocks = module.transformer, module.transformer.h
    for block in blocks:
        block.mlp.act = LinearActivation(block.mlp.act)
        block.ln_1, block.ln_2 = LinearNorm(block.ln_1), LinearNorm(block.ln_2)
    body.ln_f = LinearNorm(body.ln_f)
    return module, [block.mlp.c_proj for block in blocks], body.wte


def by_autograd(name, value):
    """Activations times gradients [n, layer, pos, d_mlp], and the same of word embeddings [n, pos]."""
    module, outputs, words = linearised(name)
    seen = {}

    def keep(key):
        def hook(part, given):
            seen[key] = given[0]
            given[0].retain_grad()

        return hook

    for layer, part in enumerate(outputs):
        part.register_forward_pre_hook(keep(layer))

    def embedded(part, given, out):
        seen["words"] = out
        out.retain_grad()

    words.register_forward_hook(embedded)

    def held(x, *args, **settings):
        settings["dtype"] = None  # which would be float32
        return softmax(x, *args, **settings).detach()

    with patch.object(nn.functional, "softmax", held):
        logits = module(torch.tensor(IDS), use_cache=False).logits[:, -1]
    value(logits).sum().backward()
    scores = torch.stack([seen[layer] * seen[layer].grad for layer in range(LAYERS)], 1)
    return scores.detach(), (seen["words"] * seen["words"].grad).sum(-1).detach()


@pytest.mark.parametrize("target", [7, (3, 5), [[3, 5, 8], 9]], ids=["logit", "contrast", "sum"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_scores_are_autograds_on_a_module_with_detached_parts(name, target):
    from tests.oracle import model_of

    values = {
        7: lambda x: x[:, 7],
        (3, 5): lambda x: x[:, 3] - x[:, 5],
    }
    summed = lambda x: torch.stack([x[0, [3, 5, 8]].sum(), x[1, 9]])  # noqa: E731
    scores, words = by_autograd(name, summed if isinstance(target, list) else values[target])
    found = neurons(model_of(name), IDS, target, quiet=True)
    assert error(found.values, scores) < TOLERANCE
    assert error(found.embedding, words) < TOLERANCE

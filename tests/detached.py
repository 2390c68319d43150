"""Transformers modules with detached parts, as `relp-ah` has them linear: an oracle that runs no line of ours.

A norm is its input times a constant, an activation its input times a constant, a gated product the mean of the products
in which one factor is constant; `held_patterns` makes attention patterns constants.
"""

from __future__ import annotations

import contextlib
from unittest.mock import patch

from torch import nn

from tests.tiny import tiny_module

softmax = nn.functional.softmax  # the module's own, before it is patched


@contextlib.contextmanager
def held_patterns():
    """Attention patterns are constants while the block runs."""

    def held(x, *args, **settings):
        settings["dtype"] = None  # which would be float32
        return softmax(x, *args, **settings).detach()

    with patch.object(nn.functional, "softmax", held):
        yield


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

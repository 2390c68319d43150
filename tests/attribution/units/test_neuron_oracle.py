"""Scores of neurons against autograd on the transformers module itself, with detached parts: no line of ours is run.

Under `relp-ah` a norm is its input times a constant, an activation its input times a constant, a gated product the mean
of the products in which one factor is constant, and attention patterns are constants.
"""

from __future__ import annotations

import pytest
import torch

from attribution import neurons
from tests.detached import held_patterns, linearised
from tests.oracle import TOLERANCE, error
from tests.tiny import LAYERS

IDS = [[4, 17, 9, 30, 2, 41, 8], [11, 3, 26, 50, 19, 33, 7]]


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

    with held_patterns():
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

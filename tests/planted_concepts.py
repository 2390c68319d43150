"""Networks whose logits are a known function of a few concepts, and images in which these are known."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from interp.concepts import ConceptHeads, ConceptImages
from interp.concepts.heads import directions_of

NAMES = tuple(f"c{at}" for at in range(8))
CHOSEN = [1, 4, 6]  # the concepts that the network uses
CLASSES = 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@functools.cache
def images(n: int = 120, seed: int = 0) -> ConceptImages:
    """Channel j is 1 on average where concept j is there, else 0; concepts come together."""
    latent = draw(n, len(NAMES), seed=seed) + 0.7 * draw(n, 1, seed=seed + 1)
    concepts = latent > 0
    texture = draw(n, len(NAMES), 2, 2, seed=seed + 2)
    texture = texture - texture.mean((2, 3), keepdim=True)
    return ConceptImages(concepts.double()[:, :, None, None] + texture, concepts, NAMES)


def planted_weights() -> Tensor:
    """Float [class, concept]: what each concept adds to each logit."""
    weights = torch.zeros(CLASSES, len(NAMES), dtype=torch.float64)
    weights[:, CHOSEN] = 2 * draw(CLASSES, len(CHOSEN), seed=7)
    return weights


@functools.cache
def network() -> nn.Sequential:
    """Mixes the channels into features, averages them, and reads logits off: `planted_weights` of the channels."""
    mixing = torch.linalg.qr(draw(len(NAMES), len(NAMES), seed=3)).Q + 0.3 * draw(len(NAMES), len(NAMES), seed=4)
    conv = nn.Conv2d(len(NAMES), len(NAMES), 1, dtype=torch.float64)
    last = nn.Linear(len(NAMES), CLASSES, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(mixing[:, :, None, None])
        conv.bias.zero_()  # type: ignore[union-attr]
        last.weight.copy_(planted_weights() @ torch.linalg.inv(mixing))
        last.bias.copy_(draw(CLASSES, seed=5))
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).requires_grad_(False)


@functools.cache
def true_heads() -> ConceptHeads:
    """Heads that read the channels back: logit j is channel j, averaged, less a half, times 4."""
    conv = network()[0]
    weights = 4 * torch.linalg.inv(conv.weight[:, :, 0, 0])  # type: ignore[index]
    features = images().concepts.double() @ conv.weight[:, :, 0, 0].T  # type: ignore[index]
    bias = torch.full((len(NAMES),), -2.0, dtype=torch.float64)
    return ConceptHeads(
        weights=weights, bias=bias, directions=directions_of(weights, features),
        means=(features @ weights.T + bias).mean(0), losses=torch.full((8,), 0.1, dtype=torch.float64),
        chance=torch.full((8,), 0.69, dtype=torch.float64), names=NAMES, layer="0", n=len(features), seconds=0.0,
    )  # fmt: skip

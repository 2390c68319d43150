"""Token methods without gradients: occlusion and feature ablation (captum), attention rollout, random values."""

from __future__ import annotations

import torch
from captum.attr import FeatureAblation, Occlusion
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attribution.inputs.encode import Inputs, Targets
from attribution.inputs.explained import Explainable

Values = Float[Tensor, "n pos"]


def feature_ablation(
    explained: Explainable, inputs: Inputs, targets: Targets, baseline: str | int, stacked: int
) -> Values:
    """What the explained logit loses when one token's embedding becomes the baseline's; by captum."""
    positions = torch.arange(inputs.ids.shape[1], device=explained.anatomy.device)[None, :, None]
    with torch.no_grad():
        embeddings = explained.embed(inputs.ids)
        found = FeatureAblation(explained.value).attribute(
            embeddings,
            baselines=explained.baseline(inputs, baseline),
            additional_forward_args=(inputs.lengths, targets.positive, targets.negative),
            feature_mask=positions.expand_as(embeddings[:1]),
            perturbations_per_eval=max(1, stacked // len(inputs)),
        )
    return found[..., 0]  # every coordinate of a token carries the whole difference


def occlusion(
    explained: Explainable, inputs: Inputs, targets: Targets, baseline: str | int, window: int, stacked: int
) -> Values:
    """The same for windows of adjoining tokens (Zeiler & Fergus 2014), averaged where they overlap; by captum.

    Input by input: windows must not reach into padding.
    """
    rows = []
    for i in range(len(inputs)):
        one, target = inputs.select(slice(i, i + 1)), targets.select(slice(i, i + 1))
        with torch.no_grad():
            embeddings = explained.embed(one.ids)
            found = Occlusion(explained.value).attribute(
                embeddings,
                sliding_window_shapes=(min(window, embeddings.shape[1]), embeddings.shape[2]),
                baselines=explained.baseline(one, baseline),
                additional_forward_args=(one.lengths, target.positive, target.negative),
                perturbations_per_eval=stacked,
            )
        rows.append(found[0, :, 0])
    return pad_sequence(rows, batch_first=True)


def attention_rollout(explained: Explainable, inputs: Inputs) -> Values:
    """Row of the position read out in the product over layers of (pattern + identity) / 2 (Abnar & Zuidema 2020)."""
    mixed: Tensor | None = None
    for pattern in explained.patterns(inputs):
        step = (pattern + torch.eye(pattern.shape[-1], dtype=pattern.dtype, device=pattern.device)) / 2
        mixed = step if mixed is None else step @ mixed
    assert mixed is not None
    return mixed[torch.arange(len(inputs), device="cpu"), explained.read_positions(inputs.lengths).to(mixed.device)]


def random_values(inputs: Inputs, seeds: list[int]) -> Values:
    """Normal random numbers: what a method must beat."""
    rows = [
        torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")
        for length, seed in zip(inputs.lengths.tolist(), seeds, strict=True)
    ]
    return pad_sequence(rows, batch_first=True)

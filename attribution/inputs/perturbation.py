"""Token methods without gradients: occlusion and feature ablation (captum), attention rollout, random values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attribution.inputs.method import Asked, TokenMethod, Values
from interp import numbers


@dataclass(frozen=True)
class FeatureAblation(TokenMethod):
    """What the explained logit loses when one token's embedding becomes the baseline's; by captum."""

    baseline: str | int = "zero"

    name = "feature-ablation"
    paper: ClassVar[str] = "Li et al. 2016, arXiv:1612.08220"
    formula: ClassVar[tuple[str, str]] = ("T+1", "0")

    def values(self, asked: Asked) -> Values:
        import captum.attr as captum  # not above: it loads matplotlib, which takes a second

        width = asked.inputs.ids.shape[1]
        positions = torch.arange(width, device=asked.explained.anatomy.device)[None, :, None]
        with torch.no_grad():
            embeddings = asked.embeddings
            found: Tensor = captum.FeatureAblation(asked.explained.value).attribute(
                embeddings,
                baselines=asked.baseline(self.baseline),
                additional_forward_args=asked.details,
                feature_mask=positions.expand_as(embeddings[:1]),
                perturbations_per_eval=max(1, asked.size // len(asked)),
            )
        return found[..., 0]  # every coordinate of a token carries the whole difference


@dataclass(frozen=True)
class Occlusion(TokenMethod):
    """The same for windows of adjoining tokens, averaged where they overlap; by captum.

    Input by input: windows must not reach into padding.
    """

    baseline: str | int = "zero"
    window: int = 2

    name = "occlusion"
    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    formula: ClassVar[tuple[str, str]] = ("T+1", "0")

    def __post_init__(self) -> None:
        numbers.settle(self, window=numbers.COUNT)

    def values(self, asked: Asked) -> Values:
        import captum.attr as captum  # as above

        rows = []
        for one in asked.each():
            with torch.no_grad():
                embeddings = one.embeddings
                found: Tensor = captum.Occlusion(one.explained.value).attribute(
                    embeddings,
                    sliding_window_shapes=(min(self.window, embeddings.shape[1]), embeddings.shape[2]),
                    baselines=one.baseline(self.baseline),
                    additional_forward_args=one.details,
                    perturbations_per_eval=one.size,
                )
            rows.append(found[0, :, 0])
        return pad_sequence(rows, batch_first=True)


@dataclass(frozen=True)
class AttentionRollout(TokenMethod):
    """Row of the position read out in the product over layers of (pattern + identity) / 2; explains no target."""

    name = "attention-rollout"
    paper: ClassVar[str] = "Abnar & Zuidema 2020, arXiv:2005.00928"
    formula: ClassVar[tuple[str, str]] = ("1", "0")

    def values(self, asked: Asked) -> Values:
        mixed: Tensor | None = None
        for pattern in asked.explained.patterns(asked.inputs):
            step = (pattern + torch.eye(pattern.shape[-1], dtype=pattern.dtype, device=pattern.device)) / 2
            mixed = step if mixed is None else step @ mixed
        assert mixed is not None
        read = asked.explained.read_positions(asked.inputs.lengths).to(mixed.device)
        return mixed[torch.arange(len(asked), device="cpu"), read]


@dataclass(frozen=True)
class Random(TokenMethod):
    """Normal random numbers: what a method must beat."""

    seed: int = 0

    name = "random"
    paper: ClassVar[str] = "a baseline"
    formula: ClassVar[tuple[str, str]] = ("0", "0")

    def __post_init__(self) -> None:
        numbers.settle(self)

    def values(self, asked: Asked) -> Values:
        rows = [
            torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")
            for length, seed in zip(asked.inputs.lengths.tolist(), asked.seeds, strict=True)
        ]
        return pad_sequence(rows, batch_first=True)

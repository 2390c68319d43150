"""Logits as targets: which, how likely they are, and where their gradients enter the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.rules.rules import origin_slope
from attribution.tracing.held import Held, norm_pull
from attribution.tracing.units import Targets
from interp.anatomy import Anatomy
from interp.parts import working

MOST_LOGITS, ENOUGH = 10, 0.95


@dataclass(frozen=True)
class Explained:
    """Logits that are explained, each a sum of some tokens' less that of others', and what each weighs."""

    sides: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    weights: Float[Tensor, " logit"]

    @classmethod
    def likely(cls, held: Held) -> Explained:
        """The most likely next tokens: at most ten, until .95 of the probability."""
        chances, order = held.logits.double().softmax(-1).sort(descending=True)
        enough = int((chances.cumsum(0) < ENOUGH).sum()) + 1
        n = min(MOST_LOGITS, enough)
        return cls(tuple(((int(i),), ()) for i in order[:n]), chances[:n].to(held.words))

    @classmethod
    def of(cls, held: Held, sides: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Explained:
        """Those named: they weigh what the model gives them, and all alike where one is more than one token."""
        chosen = tuple((tuple(these), tuple(those)) for these, those in sides)
        if all(len(these) == 1 and not those for these, those in chosen):
            chances = held.logits.double().softmax(-1)[[these[0] for these, _ in chosen]]
            # a token that the model rules out would have no share at all
            return cls(chosen, chances.clamp(min=torch.finfo(held.words.dtype).tiny).to(held.words))
        return cls(chosen, held.words.new_full((len(chosen),), 1 / len(chosen)))


def logit_targets(
    held: Held, sides: Sequence[tuple[Sequence[int], Sequence[int]]], centred: bool
) -> tuple[Targets, Float[Tensor, " logit"]]:
    """Logits at the last position as targets, and their values.

    `centred`: less the mean over the vocabulary, in front of a soft cap of the logits. Otherwise the model's own
    logits, a soft cap being its input times a constant.
    """
    anatomy, last = held.anatomy, held.stream[-1]
    weight, norm = working(anatomy.unembed.weight), anatomy.final_norm
    bias = None if anatomy.unembed.bias is None else working(anatomy.unembed.bias)
    raw = raw_logits(anatomy, last)
    slopes = torch.ones_like(raw)
    if anatomy.cap is not None and not centred:
        slopes = origin_slope(anatomy.cap, raw, anatomy.cap(raw))
    vectors, shifts = [], []
    for ids, signs in map(_signed, sides):
        signs = slopes[ids] * signs.to(raw)
        vectors.append(signs @ weight[ids])
        if bias is not None:
            shifts.append(signs @ bias[ids])
        if centred:
            vectors[-1] -= signs.sum() * weight.mean(0)
        if centred and bias is not None:
            shifts[-1] -= signs.sum() * bias.mean()
    stacked = torch.stack(vectors)
    own = {"unembed": torch.stack(shifts)} if shifts else {}
    if norm.bias is not None:
        own["final_norm"] = stacked @ working(norm.bias)
    layers = torch.full((len(sides),), held.n_layers, device="cpu")
    positions = torch.full((len(sides),), held.n_positions - 1, device="cpu")
    targets = Targets(layers, positions, norm_pull(norm, norm.divisor(last), stacked), own)
    return targets, logit_values(anatomy, raw, sides, centred)


def raw_logits(anatomy: Anatomy, stream: Float[Tensor, "*copy d_model"]) -> Float[Tensor, "*copy d_vocab"]:
    """Logits in front of a soft cap, from the last residual stream."""
    raw = working(anatomy.final_norm(stream)) @ working(anatomy.unembed.weight).T
    return raw if anatomy.unembed.bias is None else raw + working(anatomy.unembed.bias)


def logit_values(
    anatomy: Anatomy,
    raw: Float[Tensor, "*copy d_vocab"],
    sides: Sequence[tuple[Sequence[int], Sequence[int]]],
    centred: bool,
) -> Float[Tensor, "*copy logit"]:
    """The values of targets, from logits in front of a soft cap."""
    capped = raw if anatomy.cap is None else anatomy.cap(raw)
    logits = raw - raw.mean(-1, keepdim=True) if centred else capped
    return torch.stack([logits[..., ids] @ signs.to(logits) for ids, signs in map(_signed, sides)], -1)


def _signed(side: tuple[Sequence[int], Sequence[int]]) -> tuple[list[int], Tensor]:
    """The tokens of a target, and the sign of each."""
    these, those = side
    return [*these, *those], torch.tensor([1.0] * len(these) + [-1.0] * len(those), dtype=torch.float64, device="cpu")

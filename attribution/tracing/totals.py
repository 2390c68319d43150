"""Total effects on logits, by all paths: which units an attribution graph may hold.

score_u  =  a_u . dL/da_u  =  A[L, u] + sum over units t of A[t, u] dL/da_t
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.tracing.components import Components
from attribution.tracing.held import Gradients, Held
from attribution.tracing.units import MLPUnits, Places, Targets, Units
from attribution.tracing.walk import walk

Hear = Callable[[int, Float[Tensor, "logit pos unit"]], None]


@dataclass(frozen=True)
class Candidates:
    """The units with the largest scores, strongest first.

    `strength` is the sum over logits of weight times |score|, `scores` that of weight times score, `tokens` that of the
    tokens' embeddings.
    """

    places: Places
    strength: Float[Tensor, " unit"]
    scores: Float[Tensor, " unit"]
    tokens: Float[Tensor, " pos"]


@torch.no_grad()
def total_scores(held: Held, units: MLPUnits, targets: Targets, hear: Hear) -> Float[Tensor, "logit pos"]:
    """Scores of all units on logits, handed to `hear` layer by layer from the last; those of the tokens' embeddings.

    Cost: a backward pass for each logit.
    """

    behind: dict[int, Gradients] = {}

    def at_mlp(layer: int, gradients: Gradients) -> Gradients:
        carried = units.carried(layer, gradients, behind)
        if units.looks_behind:
            behind[layer] = gradients.clone()
        hear(layer, carried * units.activations(layer))
        found, skipped = units.pulled(layer, carried), units.skipped(layer, gradients)
        return found if skipped is None else found + skipped

    return (walk(held, targets, at_mlp, lambda layer, place, found: None) * held.words).sum(-1)


def largest(
    held: Held, units: Units, targets: Targets, weights: Float[Tensor, " logit"], most: int, leave_out: Sequence[int]
) -> Candidates:
    """The units with the largest scores on logits that weigh `weights`; no more than these and a layer's are held.

    Positions in `leave_out` have none, nor have units that are not active.
    """
    kept: list[tuple[Tensor, Tensor, Tensor]] = []  # rows of layer, position, unit; strengths; scores

    def hear(layer: int, strength: Tensor, signed: Tensor) -> None:
        # a unit may be active and without effect, at the end of the last layer for instance
        active = units.activations(layer) != 0
        strength = torch.where(active, strength, -1.0)
        strength[list(leave_out)] = -1.0
        found = strength.flatten().topk(min(most, strength.numel()))
        chosen = found.indices[found.values >= 0]
        position, column = chosen // strength.shape[1], chosen % strength.shape[1]
        rows = torch.stack((torch.full_like(chosen, layer), position, units.numbers(layer)[column]), 1)
        kept.append((rows, strength.flatten()[chosen], signed.flatten()[chosen]))

    words = _weighed(held, units, targets, weights, hear)
    rows, strength, signed = (torch.cat(parts) for parts in zip(*kept, strict=True))
    order = strength.argsort(descending=True, stable=True)[:most]
    return Candidates(Places.of(rows[order]), strength[order].cpu(), signed[order].cpu(), words.cpu())


def scores_at(
    held: Held, units: Units, targets: Targets, weights: Float[Tensor, " logit"], places: Places
) -> Float[Tensor, " unit"]:
    """Scores of these units on the sum of logits times `weights`."""
    found = held.words.new_zeros(len(places))

    def hear(layer: int, strength: Tensor, signed: Tensor) -> None:
        here = (places.layers == layer).nonzero()[:, 0]
        columns = torch.searchsorted(units.numbers(layer), places.units[here].to(found.device))
        found[here] = signed[places.positions[here], columns]

    _weighed(held, units, targets, weights, hear)
    return found.cpu()


def _weighed(
    held: Held, units: Units, targets: Targets, weights: Tensor, hear: Callable[[int, Tensor, Tensor], None]
) -> Float[Tensor, " pos"]:
    """Tells `hear` of each layer's units, [pos, unit], the sums over logits of |score| and of score, by weight."""
    if isinstance(units, Components):  # they are what they give the logits
        for layer in reversed(range(held.n_layers)):
            hear(layer, units.activations(layer).abs(), units.activations(layer))
        return units.token_scores
    assert isinstance(units, MLPUnits)
    shares = weights.to(held.words)

    def each(layer: int, scores: Tensor) -> None:
        hear(layer, torch.einsum("k,kpu->pu", shares, scores.abs()), torch.einsum("k,kpu->pu", shares, scores))

    return shares @ total_scores(held, units, targets, each)

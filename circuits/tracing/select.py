"""Which units an attribution graph shows: those with the largest influence, found in rounds.

The rows of the units chosen so far tell who influences them; each round chooses some more, and makes their rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.tracing.effects import Advance, Effects, RowMaker
from attribution.tracing.units import Targets
from circuits.tracing.influence import influence

_ROUNDS, _LEAST = 8, 16


@dataclass(frozen=True)
class Chosen:
    """The units that were chosen, as columns of the tracer's, and the effects on them and on the logits before them."""

    columns: Int[Tensor, " unit"]
    effects: Effects


def choose_units(
    tracer: RowMaker,
    logits: Targets,
    weights: Float[Tensor, " logit"],
    top: int,
    magnitudes: bool,
    advance: Advance,
) -> Chosen:
    """The `top` units with the largest influence among those that the tracer holds, or all of them."""
    found = [tracer.on_logits(logits, magnitudes, advance)]
    columns = torch.zeros(0, dtype=torch.long, device="cpu")
    several = top < len(tracer.chosen)
    size = max(_LEAST, -(-top // _ROUNDS)) if several else top
    while len(columns) < top:
        left = torch.arange(len(tracer.chosen), device="cpu")
        if several:
            strength = _influence(joined(found), columns, weights)
            strength[columns] = -1.0
            left = strength.argsort(descending=True, stable=True)
        more = left[: min(size, top - len(columns))]
        found.append(tracer.on_units(tracer.chosen.select(more), magnitudes, advance))
        columns = torch.cat((columns, more))
    return Chosen(columns, joined(found))


def _influence(effects: Effects, columns: Tensor, weights: Tensor) -> Float[Tensor, " unit"]:
    """Influence on the logits of all units that the tracer holds, as far as the rows made so far tell."""
    shares = effects.units.abs().double() / counted(effects).double().clamp(min=1e-10)[:, None]
    n_logits, chances = len(weights), weights.double().to(shares)
    direct = chances @ shares[:n_logits]
    among = shares[n_logits:][:, columns.to(shares.device)]
    start = direct[columns.to(shares.device)]
    inner = start + influence(among, start) if len(columns) else start
    return (direct + inner @ shares[n_logits:]).cpu()


def counted(effects: Effects) -> Float[Tensor, " row"]:
    """What a row is normalised by: |effects| of tokens, errors and all units, shown or not; without biases."""
    units = effects.units.abs().sum(1) if effects.magnitude is None else effects.magnitude
    return effects.tokens.abs().sum(1) + effects.errors.abs().sum((1, 2)) + units


def joined(parts: list[Effects]) -> Effects:
    """The rows of all."""
    magnitudes = [part.magnitude for part in parts if part.magnitude is not None]
    return Effects(
        tokens=torch.cat([part.tokens for part in parts]),
        units=torch.cat([part.units for part in parts]),
        errors=torch.cat([part.errors for part in parts]),
        biases=torch.cat([part.biases for part in parts]),
        everything=torch.cat([part.everything for part in parts]),
        magnitude=torch.cat(magnitudes) if magnitudes else None,
    )

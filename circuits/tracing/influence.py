"""Influence in an attribution graph, its two scores, and pruning: pure functions of matrices.

    N = |A| / row sums,    infl = p (N + N^2 + ...),    p: the logits' probabilities

Definitions of Ameisen et al. 2025 (circuit-tracer), where `|A|` holds what is not shown in a column of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_LEAST = 1e-10  # a row that sums to less is nothing

Matrix = Float[Tensor, "target source"]


@dataclass(frozen=True)
class Kinds:
    """Which nodes are what: `missed` are errors and the remainder, `rest` is the remainder alone."""

    tokens: Bool[Tensor, " node"]
    logits: Bool[Tensor, " node"]
    units: Bool[Tensor, " node"]
    missed: Bool[Tensor, " node"]
    rest: Bool[Tensor, " node"]

    @property
    def always(self) -> Bool[Tensor, " node"]:
        """What pruning keeps: the remainder is never hidden."""
        return self.tokens | self.logits | self.rest


def normalised(weights: Matrix) -> Matrix:
    """Rows that add up to one, or are zero."""
    return weights / weights.sum(1, keepdim=True).clamp(min=_LEAST)


def influence(shares: Matrix, chances: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
    """infl = p (N + N^2 + ...): p itself is not counted."""
    total, step = torch.zeros_like(chances), chances
    for _ in range(len(shares)):  # edges lead upwards: powers beyond the longest path are zero
        step = step @ shares
        if not step.any():
            break
        total = total + step
    return total


def replacement(found: Float[Tensor, " node"], kinds: Kinds) -> float:
    """I_tokens / (I_tokens + I_errors): how much of the influence comes from tokens, and not from what is missed."""
    tokens, missed = found[kinds.tokens].sum(), found[kinds.missed].sum()
    return float(tokens / (tokens + missed))


def completeness(shares: Matrix, found: Tensor, chances: Tensor, kinds: Kinds) -> float:
    """Share of what nodes are made of that is not missed, by their influence."""
    weight = found + chances
    return float(((1 - shares[:, kinds.missed].sum(1)) * weight).sum() / weight.sum())


def prune(
    weights: Matrix, chances: Float[Tensor, " node"], kinds: Kinds, nodes: float, edges: float
) -> tuple[Bool[Tensor, " node"], Bool[Tensor, "target source"]]:
    """Nodes that hold a share of all influence, edges that hold a share of what is left; then what dangles goes.

    The remainder stays with its edges, and its influence is not counted: it would leave no room for anything else.
    """
    found = influence(normalised(weights), chances)
    kept = _holding(torch.where(kinds.rest, 0.0, found), nodes) | kinds.always
    inside = weights * kept[:, None] * kept
    shares = normalised(inside)
    scores = shares * (influence(shares, chances) + chances)[:, None]
    counted = torch.where(kinds.rest, 0.0, scores)
    edge_kept = (_holding(counted.flatten(), edges).view_as(scores) | kinds.rest) & (scores > 0)
    return _without_dangling(kept, edge_kept, kinds)


def _holding(values: Float[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """The largest, until they hold a share of the sum."""
    ordered = values.sort(descending=True).values
    sums = ordered.cumsum(0)
    if not float(sums[-1]):
        return torch.zeros_like(values, dtype=torch.bool)
    reached = (sums / sums[-1] >= share).nonzero()[:, 0]
    return values >= ordered[reached[0] if len(reached) else -1]


def _without_dangling(kept: Tensor, edges: Tensor, kinds: Kinds) -> tuple[Tensor, Tensor]:
    """Drop units and errors that lead nowhere and units that come from nowhere, again and again."""
    kept = kept.clone()
    while True:
        edges = edges & kept[:, None] & kept
        leads, comes = edges.any(0), edges.any(1)
        lost = kept & (((kinds.units | kinds.missed) & ~leads) | (kinds.units & ~comes)) & ~kinds.rest
        if not lost.any():
            return kept, edges
        kept &= ~lost


def cumulative(found: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
    """Share of all influence that nodes with at least as much of it hold."""
    order = found.argsort(descending=True, stable=True)
    sums = found[order].cumsum(0)
    result = torch.zeros_like(found)
    result[order] = sums / sums[-1].clamp(min=torch.finfo(found.dtype).tiny)
    return result

"""From scores of nodes to masks of nodes: no node needs another to matter, so that the best are the best."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.selection.combine import weighed
from interp.selection.sizes import LADDER_FRACTIONS


def countable(values: Tensor, level: str, exists: Tensor | None = None) -> Tensor:
    """The places of scores that are nodes to choose among: all but `input` of level `node`, as flat indices.

    `exists`: True where there is a node, where rows are of unequal width.
    """
    places = torch.arange(values.numel(), device="cpu") if exists is None else exists.flatten().nonzero()[:, 0]
    if level != "node":
        return places
    return places[places % values.shape[-1] != 0]


@numbers.checked(n=numbers.FROM_ZERO, helping=numbers.UNIT)
def top_nodes(
    scores: Float[Tensor, "*axes"],
    n: int,
    level: str = "neuron",
    helping: float = 0.5,
    exists: Bool[Tensor, "*axes"] | None = None,
) -> Bool[Tensor, "*axes"]:
    """The `n` nodes of largest `weighed` score: by |score| at `helping=0.5`, by signed score at 1.

    Ties keep their order; `exists` as in `countable`. At level `node` the input (index 0 of the last axis) is always in
    and is not counted. Raises `InputError` for more than there are.

    >>> top_nodes(torch.tensor([[0.5, -2.0, 1.0]]), 2).tolist()
    [[False, True, True]]
    """
    places = countable(scores, level, exists)
    if n > len(places):
        raise InputError(f"n={n:,} is out of range: there are {len(places):,} {level}s")
    ranked = weighed(scores, helping).flatten()[places]
    mask = torch.zeros(scores.shape, dtype=torch.bool, device="cpu")
    mask.view(-1)[places[ranked.argsort(descending=True, stable=True)[:n]]] = True
    if level == "node":
        mask[..., 0] = True
    return mask


@numbers.checked(count=numbers.COUNT)
def node_ladder(count: int) -> tuple[int, ...]:
    """Sizes at which circuits of nodes are measured: the shares of the edges' ladder, of `count` nodes, at least one.

    >>> node_ladder(46080)
    (46, 92, 230, 460, 921, 2304, 4608, 9216, 23040, 46080)
    """
    return tuple(max(1, int(fraction * count)) for fraction in LADDER_FRACTIONS)

"""One score of many: shifted balance, averages of methods, consistency over parts of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose


@numbers.checked(helping=numbers.UNIT)
def weighed(scores: Float[Tensor, "*shape"], helping: float = 0.5) -> Float[Tensor, "*shape"]:
    """|score|, positive ones times `helping`, negative ones times 1 - `helping`; none is negative.

    Ranked by it, edges that help (score > 0) and edges that harm (score < 0) enter a circuit with a threshold of
    their own: 0.5 is the order of |score|, 1 that of signed scores, 0 that of edges that harm the most. Every share
    of helping edges among the n edges chosen has its `helping`. Raises `InputError` unless it lies in [0, 1].

    >>> weighed(torch.tensor([1.0, -2.0]), helping=0.75).tolist()
    [0.75, 0.5]
    """
    return torch.where(scores >= 0, scores * helping, scores * (helping - 1))


def average(
    scores: Sequence[Float[Tensor, "source target"]], by: Literal["scale", "rank"] = "scale"
) -> Float[Tensor, "source target"]:
    """The mean of several methods' scores, each normalised before.

    `scale` divides by the method's mean |score| over the edges that it scores (0 elsewhere), `rank` replaces every
    score by its sign times its rank among the |scores|, from 0 for scores of zero to 1 for the largest; equal ones
    share the mean rank. Raises `InputError` for no scores, other shapes, or a method that gives zeros alone.
    """
    choose("by", by, ("scale", "rank"))
    if not scores or any(one.shape != scores[0].shape for one in scores):
        raise InputError("scores must be at least one tensor, all of the same shape")
    if not all(one.any() for one in scores):
        raise InputError("scores of one of the methods are all zero: there is nothing to normalise by")
    settled = [_settled(one).double() for one in scores]
    normalised = [_ranks(one) if by == "rank" else _scaled(one) for one in settled]
    return torch.stack(normalised).mean(0).to(scores[0].dtype)


@numbers.checked(errors=numbers.FROM_ZERO)
def consistent(parts: Float[Tensor, "part source target"], errors: float = 1.0) -> Float[Tensor, "source target"]:
    """Mean score over disjoint parts of the prompts, less `errors` standard errors, never beyond zero.

        sign(mean) max(|mean| - errors sd / sqrt(parts), 0)

    An edge whose score depends on a few prompts falls behind. `parts` holds the scores of each part (of equal
    size: gradient scores are means over prompts). Raises `InputError` for fewer than two parts or negative `errors`.
    """
    if parts.ndim != 3 or len(parts) < 2:
        raise InputError(f"parts must be at least two scores, [part, source, target]; got shape {tuple(parts.shape)}")
    mean = parts.mean(0)
    lower: Tensor = mean.abs() - errors * parts.std(0) / len(parts) ** 0.5
    return mean.sign() * lower.clamp(min=0)


def _settled(scores: Tensor) -> Tensor:
    """Scores with exact zeros where they are zero but for rounding, which differs between processors and batches."""
    size = scores.abs()
    return torch.where(size > torch.finfo(scores.dtype).eps * size.max(), scores, 0.0)


def _scaled(scores: Tensor) -> Tensor:
    return scores / scores.abs().sum() * (scores != 0).sum()


def _ranks(scores: Tensor) -> Tensor:
    size, where, counts = scores.abs().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    middle: Tensor = last - (counts - 1) / 2  # equal ones share the mean of their ranks
    if size[0] == 0:
        middle = middle - counts[0]  # zeros are not ranked
        middle[0] = 0
    return scores.sign() * (middle / middle[-1])[where]

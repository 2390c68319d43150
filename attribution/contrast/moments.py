"""Running sums over questions, and the test of a mean that they are enough for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control, t
from torch import Tensor

from interp.errors import InputError

_ROUNDED = 1e-12  # a variance of so little of the squares' mean is rounding


@dataclass(frozen=True)
class Moments:
    """Sums of values and of their squares, float64, and how many values they are of; nothing else is ever held.

    `flipped` are the sums with signs that were drawn anew: what they are where neither sign is likelier. Their squares
    are the same.
    """

    total: Float[Tensor, "*axes"]
    squares: Float[Tensor, "*axes"]
    flipped: Float[Tensor, "draw ..."]
    count: int

    @classmethod
    def of_none(cls, *shape: int, draws: int = 0) -> Moments:
        """Of no values."""
        nothing = torch.zeros(shape, dtype=torch.float64, device="cpu")
        return cls(nothing, nothing, nothing.new_zeros(draws, *shape), 0)

    def with_more(self, values: Float[Tensor, "n ..."], signs: Float[Tensor, "draw n"]) -> Moments:
        """With further values, and the signs that they are drawn."""
        wide = values.double()
        flipped = self.flipped + torch.tensordot(signs.double(), wide, 1)
        return Moments(self.total + wide.sum(0), self.squares + wide.square().sum(0), flipped, self.count + len(wide))

    def draws(self) -> Iterator[Moments]:
        """Each draw of signs as if it were what was found."""
        for total in self.flipped:
            yield replace(self, total=total)

    @property
    def mean(self) -> Float[Tensor, "*axes"]:
        """The mean."""
        return self.total / self.count

    @property
    def variance(self) -> Float[Tensor, "*axes"]:
        """The unbiased variance, 0 where what is left of it is rounding."""
        average = self.squares / self.count
        spread = average - self.mean.square()
        return torch.where(spread > _ROUNDED * average, spread, 0.0) * (self.count / (self.count - 1))

    def t_test(self) -> tuple[Float[Tensor, "*axes"], Float[Tensor, "*axes"]]:
        """Student's t of the mean against 0, and its two-sided p-value; 0 and 1 where all values are 0.

        Raises `InputError` for fewer than two values.
        """
        if self.count < 2:
            raise InputError(f"questions has {self.count} groups; a test of their mean needs at least two")
        error = (self.variance / self.count).sqrt()
        statistic = torch.where(self.total == 0, 0.0, self.mean / error)  # of a constant: infinite
        p_values = torch.from_numpy(2 * t.sf(statistic.abs().numpy(), self.count - 1))
        return statistic, torch.where(self.total == 0, 1.0, p_values)


def benjamini_hochberg(p_values: Float[Tensor, "*axes"], tested: Bool[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """P-values corrected for the number of those that are `tested` (Benjamini and Hochberg 1995); others have 1."""
    found = torch.ones_like(p_values)
    found[tested] = torch.from_numpy(false_discovery_control(p_values[tested].numpy(), method="bh"))
    return found

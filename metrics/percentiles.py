"""Intervals and p-values of resampled statistics: one inversion of one distribution, made for few prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from interp import numbers
from interp.keeping import kept

Array = NDArray[np.float64]
_SCARCE = 2.0  # resamples that must lie beyond a tail for it to be read from them


@kept
@dataclass(frozen=True, eq=False)
class Resampled:
    """Statistics of n prompts, in resamples of them, and with prompts left out.

    Attributes:
        point: of all prompts, [k].
        spread: in each resample, [resamples, k].
        left_out: without one prompt (or one of at least two groups of them), [parts, k].
        n: how many prompts (clusters, seeds) are resampled.

    Columns of one object were resampled jointly, so that differences of them (`a.columns(i) - a.columns(j)`) are
    paired; so are those of two objects with the same draws.
    """

    point: Array
    spread: Array
    left_out: Array
    n: int

    def columns(self, chosen: Any) -> Resampled:
        """Some of the statistics, by an index of the k."""
        return Resampled(self.point[chosen], self.spread[:, chosen], self.left_out[:, chosen], self.n)

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(
            self.point - other.point, self.spread - other.spread, self.left_out - other.left_out, min(self.n, other.n)
        )


def percentile_interval(found: Resampled, confidence: float) -> tuple[Array, Array]:
    """Low and high ends [k] of expanded percentile intervals; NaN where n is 1 or no resample has a value.

    Plain percentiles are too narrow by sqrt((n - 1) / n), and take the normal's quantile for Student's t. Here the
    tails are Phi(-t sqrt(m / (m - 1))), with t the quantile of m - 1 degrees of freedom (Hesterberg 2015,
    arXiv:1411.5279). m is n, or less where few prompts carry the statistic: 3 (sum u^2)^2 / sum u^4 with u what each
    prompt moves it by (jackknife), which is n for normal u, and three times their number where a few are alike and
    the rest move nothing.

    Below 7 prompts or so, and at confidences near 1, those tails are thinner than the resamples reach. There the
    interval goes on from the last quantile that they know, in proportion to its distance from their median.

    Raises `InputError` for a confidence outside (0, 1).
    """
    confidence = numbers.real("confidence", confidence, numbers.COMMON["confidence"])
    tails = _Tails.of(found)
    return tails.end(confidence), -tails.mirrored().end(confidence)


def bootstrap_p(found: Resampled) -> Array:
    """Two-sided p-values [k] of statistics that are zero under the null, differences for instance.

    The inversion of `percentile_interval`: p is below 1 - confidence exactly where that interval leaves out zero, as
    far as resamples tell: the smallest p is 2 / (resamples + 1). NaN where there is no interval.
    """
    tails = _Tails.of(found)
    known = tails.known
    least = 2 / (np.maximum(known, 1) + 1)
    p = np.clip(np.minimum(tails.level(), tails.mirrored().level()), least, 1.0)
    return np.where((known > 0) & (found.n > 1), p, np.nan)


@dataclass(frozen=True, eq=False)
class _Tails:
    """The lower tails of sorted resamples [resamples, k], whose last ones may be NaN."""

    ordered: Array
    known: NDArray[np.int64]  # how many have a value, [k]
    n: int
    effective: Array  # m, [k]

    @classmethod
    def of(cls, found: Resampled) -> _Tails:
        there = np.isfinite(found.spread)
        ordered = np.sort(np.where(there, found.spread, np.nan), axis=0)
        return cls(ordered, there.sum(0), found.n, _effective(found.left_out, found.n))

    def mirrored(self) -> _Tails:
        """Those of the statistic's negative."""
        back = np.arange(len(self.ordered) - 1, -1, -1)[:, None] - (len(self.ordered) - self.known)
        ordered = np.where(back >= 0, -np.take_along_axis(self.ordered, back, 0), np.nan)
        return _Tails(ordered, self.known, self.n, self.effective)

    @property
    def _reach(self) -> Array:
        """How far out the resamples are known, in standard deviations of a normal: [k]."""
        # the last of them are n equal draws, whose chance is n^-n
        thinnest = np.maximum(_SCARCE / (np.maximum(self.known, 1) + 1), float(self.n) ** -self.n / 2)
        reach: Array = -ndtri(np.minimum(thinnest, 0.25))
        return reach

    def _quantile(self, share: Array) -> Array:
        """[k] at a share of each column, linear between neighbours."""
        place = share * np.maximum(self.known - 1, 0)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, np.maximum(self.known - 1, 0))
        low, high = (np.take_along_axis(self.ordered, at[None], 0)[0] for at in (below, above))
        between: Array = np.where(low == high, low, low + (place - below) * (high - low))
        return between

    def end(self, confidence: float) -> Array:
        if self.n < 2:
            return np.full(len(self.known), np.nan)
        tail, reach = (1 - confidence) / 2, self._reach
        ratio = np.maximum(_expanded(tail, float(self.n)) / reach, 1.0)
        quantile = self._quantile(ndtr(-np.minimum(_expanded(tail, self.effective), reach)))
        middle = self._quantile(np.full(len(self.known), 0.5))
        # a spread of rounding alone is left as it is
        return np.where(ratio > 1, middle - ratio * (middle - quantile), quantile)

    def level(self) -> Array:
        """1 - confidence of the interval whose lower end is zero, [k]: 2 where the middle is not above zero."""
        if self.n < 2:
            return np.full(len(self.known), np.nan)
        reach = self._reach
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = self._share_at_zero()
            z = np.where(inside < 0.5, -ndtri(inside), 0.0)
            within = 2 * _expanded_tail(z, self.effective)
            middle, last = self._quantile(np.full(len(z), 0.5)), self._quantile(ndtr(-reach))
            beyond = 2 * _expanded_tail(reach * middle / (middle - last), float(self.n))
        return np.where(inside >= 0.5, 2.0, np.where(z < reach, within, beyond))

    def _share_at_zero(self) -> Array:
        """Where the interpolated quantile function leaves zero, [k]; 0 where all resamples are above it."""
        under = (self.ordered <= 0).sum(0)
        last = np.clip(under - 1, 0, None)[None]
        following = np.clip(under, 0, np.maximum(self.known - 1, 0))[None]
        low, high = (np.take_along_axis(self.ordered, at, 0)[0] for at in (last, following))
        step = np.where(high > low, -low / np.where(high > low, high - low, 1.0), 0.0)
        share = (under - 1 + step) / np.maximum(self.known - 1, 1)
        return np.where(under == 0, 0.0, np.where(under >= self.known, 1.0, share))


def _expanded(tail: float, m: Any) -> Array:
    """t sqrt(m / (m - 1)), above zero for tails below a half."""
    return np.asarray(-stdtrit(m - 1, tail) * np.sqrt(m / (m - 1)))


def _expanded_tail(z: Array, m: Any) -> Array:
    """The tail that `_expanded` has z for."""
    return np.asarray(stdtr(m - 1, -z / np.sqrt(m / (m - 1))))


def _effective(left_out: Array, n: int) -> Array:
    """How many prompts a statistic stands on, [k]: n, or fewer where few of them move it."""
    there = np.isfinite(left_out)
    moved = np.where(there, left_out, 0.0)
    moved = np.where(there, moved - moved.sum(0) / np.maximum(there.sum(0), 1), 0.0)
    moved = moved / np.maximum(np.abs(moved).max(0), np.finfo(np.float64).tiny)
    fourth = (moved**4).sum(0)
    return np.where(fourth > 0, np.minimum(n, 3 * (moved**2).sum(0) ** 2 / np.where(fourth > 0, fourth, 1.0)), n)

"""Intervals by resampling: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp import numbers
from interp.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap interval."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"

    def to_dict(self) -> dict[str, float]:
        """`value`, `low`, `high` and `confidence`."""
        return {"value": self.value, "low": self.low, "high": self.high, "confidence": self.confidence}


def resample(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Indices of bootstrap samples, `[resamples, n]`, drawn with replacement by a generator of their own."""
    if n < 1:
        raise InputError(f"n={n} must be at least 1; there is nothing to resample")
    resamples = numbers.whole("resamples", resamples, numbers.COMMON["resamples"])
    return np.random.default_rng(numbers.seed(seed)).integers(0, n, (resamples, n))


@numbers.checked()
def bootstrap(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Estimate]:
    """Percentile bootstrap over the last axis (Efron 1979).

    `values` is `[..., n]`, n being what is resampled (prompts). `statistic` maps means of shape
    `[resamples or 1, ...]` to statistics `[resamples or 1, k]`; one `Estimate` comes back for each of the k. The
    statistic is a function of means, so that ratios of means are resampled as ratios of means. A resample whose
    statistic is not finite is left out of the interval.

    >>> bootstrap([1.0, 1.0, 1.0], lambda means: means[:, None])
    [Estimate(value=1.0, low=1.0, high=1.0, confidence=0.95)]
    """
    point, spread = resampled(values, statistic, resamples=resamples, seed=seed)
    return estimates(point, spread, confidence)


def resampled(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What `bootstrap` makes intervals of: statistics `[k]`, and what they are in each resample `[resamples, k]`.

    Statistics of one call are resampled jointly, so that their differences are paired.
    """
    array = np.asarray(values, dtype=np.float64)
    n = array.shape[-1]
    # how often each prompt is drawn: means of all resamples are one matrix product
    drawn = resample(n, resamples, seed)
    counts = np.zeros((resamples, n))
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1 / n)
    return statistic(array.mean(-1)[None])[0], statistic(np.moveaxis(array @ counts.T, -1, 0))


def estimates(point: NDArray[np.float64], spread: NDArray[np.float64], confidence: float = 0.95) -> list[Estimate]:
    """Statistics `[k]` with percentile intervals of their resamples `[resamples, k]`, those that are finite."""
    confidence = numbers.real("confidence", confidence, numbers.COMMON["confidence"])
    tail = (1 - confidence) / 2
    result = []
    for column, value in enumerate(point):
        finite = spread[:, column][np.isfinite(spread[:, column])]
        low, high = np.quantile(finite, [tail, 1 - tail]) if len(finite) else (np.nan, np.nan)
        result.append(Estimate(float(value), float(low), float(high), confidence))
    return result

"""Intervals by resampling: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from interp import numbers
from interp.errors import InputError
from interp.interval import Estimate, Interval, IntervalKeywords
from interp.keywords import check_keywords
from metrics.percentiles import Resampled, percentile_interval

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def resample(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Indices of bootstrap samples, `[resamples, n]`, drawn with replacement by a generator of their own."""
    if n < 1:
        raise InputError(f"n={n} must be at least 1; there is nothing to resample")
    resamples = numbers.whole("resamples", resamples, numbers.COMMON["resamples"])
    return np.random.default_rng(numbers.seed(seed)).integers(0, n, (resamples, n))


@numbers.checked()
def bootstrap(
    values: ArrayLike,
    statistic: Statistic,
    *,
    possible: tuple[float, float] = (-np.inf, np.inf),
    **keywords: Unpack[IntervalKeywords],
) -> list[Estimate]:
    """Bootstrap over the last axis (Efron 1979), with expanded percentile intervals (see `percentile_interval`).

    `values` is `[..., n]`, n being what is resampled (prompts). `statistic` maps means of shape
    `[resamples or 1, ...]` to statistics `[resamples or 1, k]`; one `Estimate` comes back for each of the k. The
    statistic is a function of means, so that ratios of means are resampled as ratios of means. A resample whose
    statistic is not finite is left out of the interval. One value tells nothing of the spread: its interval is NaN.
    Intervals are cut off at `possible`, what the statistic can be.

    >>> bootstrap([1.0, 1.0, 1.0], lambda means: means[:, None])
    [Estimate(value=1.0, low=1.0, high=1.0, confidence=0.95)]
    """
    check_keywords("bootstrap", keywords, IntervalKeywords)
    return bootstrapped(values, statistic, Interval.of(keywords), possible)


def bootstrapped(
    values: ArrayLike,
    statistic: Statistic,
    interval: Interval,
    possible: tuple[float, float] = (-np.inf, np.inf),
) -> list[Estimate]:
    """`bootstrap` with its interval whole."""
    return estimates(resampled(values, statistic, interval), interval.confidence, possible)


def resampled(values: ArrayLike, statistic: Statistic, interval: Interval) -> Resampled:
    """What `bootstrap` makes intervals of.

    Statistics of one call are resampled jointly, so that their differences are paired.
    """
    array = np.asarray(values, dtype=np.float64)
    n = array.shape[-1]
    # how often each prompt is drawn: means of all resamples are one matrix product
    drawn = resample(n, interval.resamples, interval.seed)
    counts = np.zeros(drawn.shape)
    np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1 / n)
    mean = array.mean(-1)
    point = statistic(mean[None])[0]
    left_out = np.full((2, len(point)), np.nan)
    if n > 1:
        # one at a time: a statistic may draw anew for each of many rows
        others = ((n * mean[..., None] - array) / (n - 1))[None]
        left_out = np.concatenate([statistic(others[..., i]) for i in range(n)])
    return Resampled(point, statistic(np.moveaxis(array @ counts.T, -1, 0)), left_out, n)


def estimates(
    found: Resampled, confidence: float = 0.95, possible: tuple[float, float] = (-np.inf, np.inf)
) -> list[Estimate]:
    """Statistics `[k]` with their expanded percentile intervals, cut off at what is possible."""
    ends = (np.clip(end, *possible) for end in percentile_interval(found, confidence))
    return [
        Estimate(float(value), float(low), float(high), confidence)
        for value, low, high in zip(found.point, *ends, strict=True)
    ]


def share(of: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The share of true values `[n]` with Wilson's interval (1927): where all n agree, resamples would tell nothing.

    >>> print(share([True] * 16))
    1.000 [0.806, 1.000]
    """
    true = np.asarray(of, dtype=bool)
    if not true.size:
        return Estimate(np.nan, np.nan, np.nan, confidence)
    found = binomtest(int(true.sum()), true.size)
    interval = found.proportion_ci(confidence, "wilson")
    return Estimate(float(found.statistic), float(interval.low), float(interval.high), confidence)

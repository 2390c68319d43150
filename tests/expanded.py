"""The slow reference for intervals: one statistic at a time, by the definition of an expanded percentile."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from scipy import stats


def expanded(spread: Sequence[float], left_out: Sequence[float], n: int, confidence: float) -> tuple[float, float]:
    """The interval of one statistic from its resamples and its jackknife values."""
    known = [value for value in spread if np.isfinite(value)]
    moved = np.array([value for value in left_out if np.isfinite(value)])
    moved = moved - moved.mean() if len(moved) else moved
    m = min(n, 3 * (moved**2).sum() ** 2 / (moved**4).sum()) if (moved != 0).any() else n
    level = (1 + confidence) / 2
    needed = stats.norm.cdf(-stats.t.ppf(level, m - 1) * sqrt(m / (m - 1)))
    least = max(2 / (len(known) + 1), n**-n / 2)
    low, middle, high = np.quantile(known, [max(needed, least), 0.5, 1 - max(needed, least)])
    further = stats.t.ppf(level, n - 1) * sqrt(n / (n - 1)) / stats.norm.ppf(1 - least)
    if further > 1:
        low, high = middle + further * (low - middle), middle + further * (high - middle)
    return float(low), float(high)

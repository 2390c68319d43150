"""The null hypotheses about circuits, as pure functions of arrays (Shi et al. 2024, arXiv:2410.13032)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import binom, binomtest

from interp import numbers
from interp.errors import InputError, choose

Array = NDArray[np.float64]
TOLERANCE = numbers.Limits(0, 0.5, open_high=True, advice="0.1 is usual")


@numbers.checked(tolerance=TOLERANCE, resolution=numbers.FROM_ZERO)
def equivalence_p_value(
    model: ArrayLike, circuit: ArrayLike, tolerance: float = 0.1, resolution: float = 0.0
) -> tuple[float, float]:
    """Sign test that circuit and model outdo each other equally often; returns the p-value and the circuit's share.

    With W the share of prompts on which the circuit scores above the model, the null is |P(W) - 1/2| <= tolerance, and
    p = P(|K/n - 1/2| >= |W - 1/2|) for K ~ Binomial(n, 1/2 + tolerance), its least favourable case. Scores that differ
    by no more than `resolution` are equal, and count half for each side. Says nothing about how far they differ.

    >>> equivalence_p_value([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    (1.0, 0.5)
    >>> round(equivalence_p_value(np.ones(8), np.zeros(8), tolerance=0.0)[0], 4)
    0.0078
    """
    a, b = _paired(model, circuit)
    n = len(a)
    wins, losses = int((b > a + resolution).sum()), int((b < a - resolution).sum())
    share = 0.5 + (wins - losses) / (2 * n)
    distance = abs(share - 0.5)
    # a margin below any step of K: the bound itself belongs to the tail
    low, high = math.floor(n * (0.5 - distance) + 1e-9), math.ceil(n * (0.5 + distance) - 1e-9)
    if low >= high:
        return 1.0, share
    tails = binom.cdf(low, n, 0.5 + tolerance) + binom.sf(high - 1, n, 0.5 + tolerance)
    return min(1.0, float(tails)), share


def hsic(x: ArrayLike, y: ArrayLike) -> float:
    """Hilbert-Schmidt independence criterion of two samples `[n]`: trace(K H L H) / n^2 (Gretton et al. 2007).

    Gaussian kernels, each as wide as the median distance. 0 where either sample is constant.

    >>> hsic([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])
    0.0
    """
    a, b = _paired(x, y)
    return float((_centred(_kernel(a)) * _centred(_kernel(b))).sum() / len(a) ** 2)


@numbers.checked(permutations=numbers.COUNT)
def independence_p_value(x: ArrayLike, y: ArrayLike, permutations: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Permutation test that two scores of the same prompts are independent; returns the p-value and HSIC.

    p = (1 + number of permutations of y whose HSIC is at least the observed one) / (1 + permutations).

    >>> independence_p_value(np.arange(20.0), np.arange(20.0), permutations=99)[0]
    0.01
    """
    a, b = _paired(x, y)
    first, second, n = _centred(_kernel(a)), _centred(_kernel(b)), len(a)
    observed = (first * second).sum()
    rng = np.random.default_rng(seed)
    # sums in another order differ in the last digits
    least = observed - 1e-9 * abs(observed) - 1e-12
    hits = 0
    for _ in range(permutations):
        order = rng.permutation(n)
        hits += (first * second[np.ix_(order, order)]).sum() >= least
    return (1 + int(hits)) / (1 + permutations), float(observed / n**2)


@numbers.checked(wins=numbers.FROM_ZERO, n=numbers.COUNT, quantile=numbers.BETWEEN)
def quantile_p_value(wins: int, n: int, quantile: float = 0.9, alternative: str = "greater") -> float:
    """Binomial test of a candidate against `n` draws of a reference distribution, of which it beats `wins`.

    `greater`: the null is that it beats at most a share `quantile` of the reference; `less`: at least that share.
    The candidate is held fixed: what is random is the reference.

    >>> round(quantile_p_value(50, 50), 4), quantile_p_value(10, 10, alternative="less")
    (0.0052, 1.0)
    """
    choose("alternative", alternative, ("greater", "less"))
    if wins > n:
        raise InputError(f"wins={wins} of n={n} must be at most n")
    return float(binomtest(wins, n, quantile, alternative=alternative).pvalue)


def _paired(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise InputError(f"scores must be two arrays [n] over at least 2 prompts; got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("scores hold NaN or infinite values, which cannot be compared")
    return a, b


def _kernel(x: Array) -> Array:
    distances = pdist(x[:, None])
    apart = distances[distances > 0]
    if not len(apart):
        return np.ones((len(x), len(x)))
    width = np.median(distances) or apart.mean()  # more than half of the values may be equal
    return np.asarray(np.exp(-(squareform(distances) ** 2) / (2 * width**2)))


def _centred(kernel: Array) -> Array:
    if np.ptp(kernel) == 0:
        return np.zeros_like(kernel)  # exactly: rounding would leave noise to be tested
    centred: Array = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    return centred

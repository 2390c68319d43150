"""Hypothesis tests on paired values and corrections for testing many: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, permutation_test

from interp import numbers
from interp.errors import InputError, choose
from interp.keeping import kept
from interp.keywords import told

CORRECTIONS = ("holm", "bh", "none")


class TestingKeywords(TypedDict, total=False):
    """The keywords of `Testing`, as public functions take them."""

    correction: str
    alpha: float
    permutations: int


@kept
@dataclass(frozen=True)
class Testing:
    """How p-values are judged.

    Attributes:
        correction: for their number: `holm`, `bh` or `none` (see `adjust`).
        alpha: level of the decisions.
        permutations: of tests that draw.
    """

    __test__ = False  # pytest collects names like this one

    correction: str = "holm"
    alpha: float = 0.05
    permutations: int = 9999

    def __post_init__(self) -> None:
        choose("correction", self.correction, CORRECTIONS)
        numbers.settle(self, alpha=numbers.BETWEEN, permutations=numbers.COUNT)

    @classmethod
    def of(cls, keywords: Mapping[str, Any], permutations: int = 9999) -> Testing:
        """From a function's keywords, with its own default of `permutations`; those of others are passed over."""
        return told(cls(permutations=permutations), keywords, TestingKeywords)


_HELD = 20_000_000  # numbers that a test holds at a time


def adjust(p_values: ArrayLike, correction: str = "holm") -> NDArray[np.float64]:
    """P-values corrected for their number; NaN stays NaN and is not counted.

    `holm` (Holm 1979) bounds the chance of any false rejection, `bh` (Benjamini and Hochberg 1995) the expected share
    of false ones among the rejections, `none` leaves them as they are. Raises `InputError` for other names and for
    values outside [0, 1].

    >>> adjust([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    choose("correction", correction, CORRECTIONS)
    given = np.asarray(p_values, dtype=np.float64)
    known = given[~np.isnan(given)]
    if ((known < 0) | (known > 1)).any():
        raise InputError(f"p_values={p_values!r} must lie between 0 and 1")
    result = given.copy()
    if correction == "bh" and len(known):
        result[~np.isnan(given)] = false_discovery_control(known, method="bh")
    elif correction == "holm":
        order = np.argsort(known, kind="stable")
        raised = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1))
        back = np.empty_like(known)
        back[order] = np.minimum(raised, 1.0)
        result[~np.isnan(given)] = back
    return result


@numbers.checked()
def paired_test(
    first: ArrayLike, second: ArrayLike, *, alternative: str = "two-sided", resamples: int = 9999, seed: int = 0
) -> float:
    """P-value of the mean difference of paired values `[n]`, by flipping signs (exact for small n).

    The null is that each difference is as likely as its negative, as where two methods that do equally well are
    exchanged. It says more than a mean of zero: where differences of mean zero are skewed (one method wins by much on
    few prompts, and loses by little on many), p falls below .05 too often: in a tenth of all cases at 8 and 16 prompts
    where they are lognormal, in .16 and .10 where a fifth of the prompts carries them (`docs/statistics.md`).

    Pairs in which either value is NaN are left out; with fewer than two pairs there is no p-value (NaN).
    `alternative` is `two-sided`, `greater` (the first is larger) or `less`. The smallest p-value that the test can
    give is 1 / (resamples + 1), or 2^-n where all 2^n sign patterns are fewer than `resamples`; two-sided, twice that.

    >>> paired_test([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0])
    0.125
    """
    choose("alternative", alternative, ("two-sided", "greater", "less"))
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"first and second must be paired values [n]; got shapes {a.shape} and {b.shape}")
    difference = (a - b)[np.isfinite(a - b)]
    if len(difference) < 2:
        return float("nan")
    if not difference.any():
        return 1.0
    found = permutation_test(
        (difference,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True,
        alternative=alternative, n_resamples=resamples, rng=np.random.default_rng(seed),
        batch=max(1, _HELD // len(difference)),
    )  # fmt: skip
    return float(found.pvalue)

"""Intervals and p-values with few prompts: what they cover, that they agree, and what degenerate data give."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metrics
from docs.scripts import coverage
from interp.interval import Interval
from metrics.percentiles import Resampled, bootstrap_p, percentile_interval
from metrics.statistics import bootstrap, resampled, share
from tests.expanded import expanded


def means_of(n: int, k: int = 200, seed: int = 0, resamples: int = 400) -> Resampled:
    """Means of k rows of n values each, resampled; skewed, with centres on either side of zero."""
    draw = np.random.default_rng(seed)
    return resampled(
        draw.gamma(2, size=(k, n)) - draw.uniform(0, 4, (k, 1)), lambda m: m, Interval(resamples=resamples)
    )


@pytest.mark.parametrize("n", [2, 3, 5, 8, 32])
def test_p_is_below_a_level_exactly_where_the_interval_leaves_out_zero(n: int) -> None:
    found = means_of(n)
    p = bootstrap_p(found)
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99):
        low, high = percentile_interval(found, confidence)
        out = (low > 0) | (high < 0)
        assert ((p < 1 - confidence) == out).all()
    assert 0 < out.sum() < len(out) or n < 8


@pytest.mark.parametrize("n", [2, 3, 6, 20])
def test_intervals_are_those_of_the_slow_reference(n: int) -> None:
    found = means_of(n, k=12)
    for confidence in (0.9, 0.999):
        ends = np.transpose(percentile_interval(found, confidence))
        for i, end in enumerate(ends):
            slow = expanded(found.spread[:, i].tolist(), found.left_out[:, i].tolist(), n, confidence)
            assert end == pytest.approx(slow, rel=1e-9, abs=1e-12)


def test_ten_prompts_by_hand() -> None:
    """Two of ten carry the mean: u is .8 twice and -.2 eight times, m = 3 (sum u^2)^2 / sum u^4 = 3 1.6^2 / .832."""
    found = resampled(np.repeat([1.0, 0.0], [2, 8]), lambda m: m[:, None], Interval(resamples=4000))
    low, high = percentile_interval(found, 0.95)
    # t(.975) at m - 1 = 8.23 degrees is 2.2945; times sqrt(m / (m - 1)) = 1.0590: tails of .00755
    assert (low[0], high[0]) == pytest.approx(tuple(np.quantile(found.spread, [0.00755, 1 - 0.00755])), abs=0.02)


def test_units_and_signs_do_not_matter() -> None:
    values = np.random.default_rng(0).gamma(1, size=9)
    (plain,), (other,) = (bootstrap(one, lambda m: m[:, None], seed=2) for one in (values, 1e6 - 1e3 * values))
    assert (other.high, other.low) == pytest.approx((1e6 - 1e3 * plain.low, 1e6 - 1e3 * plain.high), rel=1e-9)
    found = means_of(8)
    scaled = Resampled(-1e-9 * found.point, -1e-9 * found.spread, -1e-9 * found.left_out, found.n)
    assert bootstrap_p(scaled) == pytest.approx(bootstrap_p(found))


def test_one_prompt_has_no_interval_and_two_have_a_wide_one() -> None:
    assert np.isnan(percentile_interval(means_of(1), 0.95)).all()
    assert np.isnan(bootstrap_p(means_of(1))).all()
    (two,) = bootstrap([0.0, 1.0], lambda m: m[:, None])
    # Student's interval of two values is their mean and 6.35 times their distance on either side
    assert 5 < two.value - two.low < 10
    assert two.low + two.high == pytest.approx(1)
    (three,) = bootstrap([0.0, 0.5, 1.0], lambda m: m[:, None])
    assert three.low < -0.5
    assert three.high > 1.5


def test_prompts_that_agree_have_an_interval_of_no_width() -> None:
    for n in (2, 3, 40):
        (one,) = bootstrap(np.full(n, 0.3), lambda m: m[:, None])
        assert (one.low, one.high) == pytest.approx((0.3, 0.3), abs=1e-12)
    equal = resampled(np.zeros(6), lambda m: m[:, None], Interval(resamples=99))
    assert bootstrap_p(equal).tolist() == [1.0]
    apart = resampled(np.ones(6), lambda m: m[:, None], Interval(resamples=99))
    assert bootstrap_p(apart) == pytest.approx([2 / 100])
    nothing = resampled(np.full(6, np.nan), lambda m: m[:, None], Interval(resamples=9))
    assert np.isnan([*percentile_interval(nothing, 0.95), bootstrap_p(nothing)]).all()


def test_intervals_stay_inside_what_is_possible() -> None:
    table = metrics.agreement([1.0, 2.0, 4.0], {"a": [1.0, 2.5, 3.9], "b": [3.0, -1.0, 4.0]}, top=(1,), drop=(0,))
    frame = table.to_frame()
    for name, least in (("pearson", -1), ("spearman", -1), ("sign", 0), ("top_1", 0)):
        ends = frame[[f"{name}_low", f"{name}_high"]].to_numpy()
        assert (ends[np.isfinite(ends)] >= least).all()
        assert (ends[np.isfinite(ends)] <= 1).all()
    differences = table.differences()
    assert differences["pearson_low"].between(-2, 2).all()
    (few,) = bootstrap([0.9, 1.0, 0.7], lambda m: m[:, None], possible=(0, 1))
    assert 0 <= few.low < few.value < few.high == 1


def test_a_share_has_wilsons_interval() -> None:
    z, n, k = 1.959964, 20, 17
    middle, half = (k + z**2 / 2) / (n + z**2), z * math.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    found = share([True] * k + [False] * (n - k))
    assert (found.value, found.low, found.high) == pytest.approx((0.85, middle - half, middle + half), rel=1e-6)
    assert math.isnan(share([]).value)


# ---- how often they hold the truth


def test_eight_prompts_are_covered_and_equals_are_equal() -> None:
    """Plain percentiles cover .88 and reject .12 here; 1,200 experiments have a standard error of .006."""
    values = coverage.objectives("normal", 8, 1200, circuits=2, seed=0)
    one, two = (coverage.experiments(values, what, 1000) for what in (coverage.faithfulness, coverage.difference))
    assert coverage.plainly_covered(one, 0.8) < 0.91
    assert 0.925 < coverage.covered(one, 0.8) < 0.97
    assert coverage.rejected(two) < 0.075


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(16, 0.93), (32, 0.94)])
@pytest.mark.parametrize("effect", coverage.EFFECTS)
def test_intervals_hold_what_they_promise(effect: str, n: int, least: float) -> None:
    """Less two standard errors of 2,000 experiments."""
    draws = 2000
    slack = 2 * math.sqrt(least * (1 - least) / draws)
    values = coverage.objectives(effect, n, draws, circuits=2, seed=7)
    assert coverage.covered(coverage.experiments(values, coverage.faithfulness), 0.8) > least - slack
    differences = coverage.experiments(values, coverage.difference)
    assert coverage.covered(differences, 0.0) > least - slack
    assert coverage.rejected(differences) < 0.06 + slack
    assert max(coverage.curves(effect, n, draws // 4, seed=7)) < 0.06 + 2 * slack

"""The null hypotheses about circuits: by hand, against scipy, and in simulations of their level and power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from interp.errors import InputError
from metrics.circuit.battery_tests import minimality_frame
from metrics.circuit.nulls import equivalence_p_value, hsic, independence_p_value, quantile_p_value
from metrics.testing import Testing

RUNS = 400
# a test of level .05 rejects at most so often in 400 runs, but for one chance in a thousand
MOST = 35


def rejections(p_values: list[float], alpha: float = 0.05) -> int:
    return sum(p <= alpha for p in p_values)


# equivalence


@pytest.mark.parametrize(("above", "n"), [(3, 16), (8, 16), (16, 16), (30, 40)])
def test_a_sign_test_is_the_binomial_one(above: int, n: int) -> None:
    circuit = np.where(np.arange(n) < above, 1.0, -1.0)
    p, share = equivalence_p_value(np.zeros(n), circuit, tolerance=0.0)
    assert p == pytest.approx(binomtest(above, n, 0.5).pvalue)
    assert share == above / n


def test_tolerance_takes_the_least_favourable_coin() -> None:
    # 14 of 16 above: K <= 2 or K >= 14 for a coin of 0.6, summed by hand
    circuit = np.where(np.arange(16) < 14, 1.0, -1.0)
    by_hand = sum(math.comb(16, k) * 0.6**k * 0.4 ** (16 - k) for k in (0, 1, 2, 14, 15, 16))
    assert equivalence_p_value(np.zeros(16), circuit, tolerance=0.1)[0] == pytest.approx(by_hand)


def test_ties_count_half_for_each_side() -> None:
    model, circuit = np.zeros(6), np.array([1e-9, 0, 0, 0, 1.0, 1.0])
    assert equivalence_p_value(model, circuit, resolution=1e-6)[1] == pytest.approx(4 / 6)
    assert equivalence_p_value(model, model) == (1.0, 0.5)


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize("n", [15, 32, 64])
def test_equivalence_holds_its_level(tolerance: float, n: int) -> None:
    # a circuit that is as good as the model, and one at the very edge of what counts as equivalent
    rng = np.random.default_rng(n)
    for chance in (0.5, 0.5 + tolerance):
        model = rng.normal(size=(RUNS, n))
        circuit = model + np.where(rng.random((RUNS, n)) < chance, 1, -1) * rng.exponential(size=(RUNS, n))
        found = [equivalence_p_value(*pair, tolerance)[0] for pair in zip(model, circuit, strict=True)]
        assert rejections(found) <= MOST


def test_equivalence_sees_a_circuit_that_is_always_worse() -> None:
    rng = np.random.default_rng(0)
    model = rng.normal(size=(RUNS, 32))
    circuit = model - 0.5 + 0.3 * rng.normal(size=(RUNS, 32))  # worse on 95 % of prompts
    found = [equivalence_p_value(*pair)[0] for pair in zip(model, circuit, strict=True)]
    assert rejections(found) > 0.9 * RUNS


# independence


def test_hsic_is_the_trace_of_centred_kernels() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 12))

    def kernel(values: np.ndarray) -> np.ndarray:
        distances = np.abs(values[:, None] - values)
        width = np.median(distances[np.triu_indices(12, 1)])
        return np.exp(-(distances**2) / (2 * width**2))

    h = np.eye(12) - 1 / 12
    assert hsic(x, y) == pytest.approx(np.trace(kernel(x) @ h @ kernel(y) @ h) / 144)


@pytest.mark.parametrize("n", [16, 40])
def test_independence_holds_its_level(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(RUNS, n)), rng.exponential(size=(RUNS, n))
    found = [independence_p_value(a, b, permutations=99, seed=i)[0] for i, (a, b) in enumerate(zip(x, y, strict=True))]
    assert rejections(found) <= MOST
    assert rejections(found, 0.5) > 0.4 * RUNS  # and is not idle


def test_independence_sees_dependence_without_correlation() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 40))
    y = x**2 + 0.3 * rng.normal(size=(50, 40))
    found = [independence_p_value(a, b, permutations=99, seed=i)[0] for i, (a, b) in enumerate(zip(x, y, strict=True))]
    assert rejections(found) > 45


def test_a_constant_score_is_independent_of_everything() -> None:
    assert independence_p_value(np.arange(9.0), np.full(9, 2.5))[0] == 1.0


# against a reference distribution


def test_quantile_test_is_binomial() -> None:
    assert quantile_p_value(60, 60) == pytest.approx(0.9**60)
    assert quantile_p_value(0, 20, 0.9, "less") == pytest.approx(0.1**20)


def test_sufficiency_and_necessity_hold_their_level() -> None:
    # a candidate at the very quantile of the reference, and one that is itself a random circuit
    rng = np.random.default_rng(3)
    wins = rng.binomial(60, 0.9, RUNS)
    assert rejections([quantile_p_value(int(won), 60) for won in wins]) <= MOST
    distances = rng.gamma(2.0, size=(RUNS, 61))
    wins = (distances[:, :1] < distances[:, 1:]).sum(1)
    # it lies in the best tenth of its kind once in ten times, and is then sure of it less often still
    assert rejections([quantile_p_value(int(won), 60) for won in wins]) <= 0.1 * RUNS


def test_a_circuit_that_beats_nearly_all_is_found_sufficient() -> None:
    rng = np.random.default_rng(4)
    wins = rng.binomial(60, 0.995, RUNS)
    assert rejections([quantile_p_value(int(won), 60) for won in wins]) > 0.85 * RUNS


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_minimality_holds_its_level_over_all_edges(spread: float) -> None:
    # needed edges, at the very quantile of the random ones or above; one falsely flagged is one too many
    rng, quantile = np.random.default_rng(5), 0.9
    changes = np.linspace(0, spread, 25) - math.log(1 - quantile)  # of an exponential distribution
    flagged = sum(
        minimality_frame(changes, rng.exponential(size=60), quantile, Testing())["superfluous"].any()
        for _ in range(RUNS // 2)
    )
    assert flagged <= MOST / 2


def test_minimality_flags_what_does_no_more_than_random_edges() -> None:
    rng = np.random.default_rng(6)
    needed, idle = np.full(20, 8.0), rng.exponential(size=5)
    found = [
        minimality_frame(np.concatenate((needed, idle)), rng.exponential(size=60), 0.9, Testing())["superfluous"]
        for _ in range(50)
    ]
    assert not any(one[:20].any() for one in found)
    assert np.mean([one[20:].mean() for one in found]) > 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equivalence_p_value([1.0, 2.0], [1.0, 2.0], tolerance=0.5), "tolerance=0.5 must be"),
        (lambda: equivalence_p_value([1.0], [1.0]), "at least 2 prompts"),
        (lambda: equivalence_p_value([1.0, np.nan], [1.0, 2.0]), "NaN or infinite"),
        (lambda: independence_p_value([1.0, 2.0], [1.0, 2.0, 3.0]), "scores must be two arrays"),
        (lambda: independence_p_value([1.0, 2.0], [1.0, 2.0], permutations=0), "permutations=0"),
        (lambda: quantile_p_value(3, 2), "wins=3 of n=2"),
        (lambda: quantile_p_value(1, 2, quantile=1.0), "quantile=1.0 must be a number above 0 and below 1"),
        (lambda: quantile_p_value(1, 2, alternative="two-sided"), "alternative='two-sided' is unknown"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()

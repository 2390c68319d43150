"""What statistics and areas promise, on numbers that hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metrics import agreement, auroc, bootstrap, racu
from metrics.circuit.areas import areas, cmd, cpr
from metrics.statistics import share
from metrics.testing import adjust, paired_test
from tests.drawn import scored

moderate = st.floats(-100, 100, allow_subnormal=False).map(lambda x: round(x, 3))
numbers = arrays.arrays(np.float64, st.integers(2, 12), elements=moderate)
p_values = arrays.arrays(np.float64, st.integers(0, 10), elements=st.floats(0, 1) | st.just(np.nan))
corrections = pytest.mark.parametrize("correction", ["holm", "bh"])


@st.composite
def curves(draw: Any, count: int = 2) -> tuple[np.ndarray, ...]:
    """Ascending ratios from 0, and curves over them."""
    steps = draw(st.lists(st.integers(1, 100), min_size=1, max_size=8))
    ratios = np.concatenate([[0], np.cumsum(steps)]) / sum(steps)
    return ratios, *(draw(arrays.arrays(np.float64, len(ratios), elements=moderate)) for _ in range(count))


def mean(means: np.ndarray) -> np.ndarray:
    return means[:, None]


@given(values=numbers, seed=st.integers(0, 2**20))
def test_an_interval_holds_its_value_and_is_no_wider_than_what_was_measured_allows(
    values: np.ndarray, seed: int
) -> None:
    (found,) = bootstrap(values, mean, seed=seed, resamples=50)
    assert found.value == pytest.approx(values.mean(), abs=1e-9)
    assert found.low <= found.high
    (narrow,) = bootstrap(values, mean, seed=seed, resamples=50, confidence=0.5)
    assert found.low <= narrow.low + 1e-9
    assert found.high >= narrow.high - 1e-9
    (cut,) = bootstrap(values, mean, seed=seed, resamples=50, possible=(0.0, 1.0))
    assert 0 <= cut.low <= cut.high <= 1


@given(values=numbers, seed=st.integers(0, 2**20), factor=st.sampled_from([0.5, 4.0]), shift=moderate)
def test_an_interval_moves_with_its_units(values: np.ndarray, seed: int, factor: float, shift: float) -> None:
    (plain,) = bootstrap(values, mean, seed=seed, resamples=50)
    (moved,) = bootstrap(values * factor + shift, mean, seed=seed, resamples=50)
    for end in ("value", "low", "high"):
        assert getattr(moved, end) == pytest.approx(getattr(plain, end) * factor + shift, abs=1e-6)


@given(of=st.lists(st.booleans(), min_size=1, max_size=40), confidence=st.floats(0.5, 0.99))
def test_the_interval_of_a_share_is_a_share_and_that_of_the_rest_is_its_mirror(
    of: list[bool], confidence: float
) -> None:
    found, rest = share(of, confidence), share([not one for one in of], confidence)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((1 - rest.high, 1 - rest.low), abs=1e-9)


@corrections
@given(given_values=p_values, seed=st.integers(0, 99))
def test_corrected_p_values_are_larger_keep_their_order_and_know_no_order_of_the_tests(
    correction: str, given_values: np.ndarray, seed: int
) -> None:
    found = adjust(given_values, correction)
    known = ~np.isnan(given_values)
    assert (np.isnan(found) == ~known).all()
    assert (found[known] >= given_values[known] - 1e-15).all()
    assert (found[known] <= 1).all()
    assert (np.diff(found[known][np.argsort(given_values[known], kind="stable")]) >= -1e-15).all()
    order = np.random.default_rng(seed).permutation(len(found))
    np.testing.assert_allclose(adjust(given_values[order], correction), found[order])
    assert (adjust(given_values, "bh")[known] <= adjust(given_values, "holm")[known] + 1e-12).all()
    alone = adjust(given_values[known][:1], correction)
    np.testing.assert_allclose(alone, given_values[known][:1])


@given(values=numbers, seed=st.integers(0, 99))
def test_a_paired_test_is_the_same_the_other_way_round_and_in_other_units(values: np.ndarray, seed: int) -> None:
    values, other = values.round(), np.random.default_rng(seed).integers(-9, 9, len(values)).astype(float)
    p = paired_test(values, other, resamples=199)
    assert 0 < p <= 1
    assert paired_test(other, values, resamples=199) == pytest.approx(p)
    assert paired_test(4 * values, 4 * other, resamples=199) == pytest.approx(p)
    less, greater = (paired_test(values, other, alternative=one, resamples=199) for one in ("less", "greater"))
    assert less + greater >= 1 - 1e-9  # equal ones count in both
    assert p == pytest.approx(min(1.0, 2 * min(less, greater)), abs=0.02)


@given(drawn=curves(1), factor=st.sampled_from([0.5, 4.0]))
def test_areas_under_curves(drawn: Any, factor: float) -> None:
    x, f = drawn
    assert cpr(x, f * factor) == pytest.approx(float(cpr(x, f)) * factor, abs=1e-6)
    assert f.min() - 1e-9 <= cpr(x, f) <= f.max() + 1e-9
    assert cmd(x, f) >= abs(1 - cpr(x, f)) - 1e-9  # the triangle inequality
    assert cmd(x, 2 - f) == pytest.approx(float(cmd(x, f)), abs=1e-6)
    assert cmd(x, np.ones_like(f)) == 0


@given(f=arrays.arrays(np.float64, (3, 10), elements=st.floats(0, 1)))
def test_the_four_areas_of_a_ladder_are_shares_where_faithfulness_is(f: np.ndarray) -> None:
    found = areas(f)
    assert ((found >= -1e-9) & (found <= 1 + 1e-9)).all()
    # below 1 the distance is what is missing to 1
    np.testing.assert_allclose(found[:, 2] + found[:, 3], 1)
    np.testing.assert_allclose(areas(f[::-1]), found[::-1])


@given(drawn=curves(2), factor=st.sampled_from([0.5, 4.0]), shift=moderate)
def test_racu_is_within_its_range_and_forgives_the_units(drawn: Any, factor: float, shift: float) -> None:
    x, m, b = drawn
    value = racu(x, m, b, clip=True, least=0)
    assert np.isnan(value) or -1 <= value <= 1
    assume(b[0] - b[-1] > 0.01)
    assume(np.trapezoid(b - b[-1], x) > 0.01)
    plain = racu(x, m, b, least=0)
    assert racu(50 * x, factor * m + shift, factor * b + shift, least=0) == pytest.approx(plain, abs=1e-6, rel=1e-6)
    assert racu(x, b, b, least=0) == 0
    assert racu(x, np.full_like(b, b[-1]), b, least=0) == pytest.approx(1)
    assert racu(x, m - 1, b, least=0) > plain  # a lower curve is better


@given(drawn=scored(), part=st.floats(0, 1))
def test_auroc_knows_the_order_alone_and_its_mirror(drawn: Any, part: float) -> None:
    graph, scores = drawn
    edges = graph.edge_mask.flatten().nonzero().flatten()
    assume(0 < round(part * len(edges)) < len(edges))
    truth = torch.zeros(graph.edge_mask.numel(), dtype=torch.bool)
    truth[edges[torch.linspace(0, len(edges) - 1, round(part * len(edges))).long()]] = True
    truth = truth.view_as(scores)
    value = auroc(scores, truth, graph)
    assert 0 <= value <= 1
    assert auroc(2 * scores, truth, graph) == value
    assert auroc(-scores, truth, graph) == value  # by |score|
    signed = auroc(scores, truth, graph, absolute=False)
    assert auroc(-scores, truth, graph, absolute=False) == pytest.approx(1 - signed)
    assert auroc(scores, ~truth & graph.edge_mask, graph) == pytest.approx(1 - value)
    assert auroc(truth.double(), truth, graph) == 1


@given(values=arrays.arrays(np.float64, st.integers(6, 12), elements=st.integers(-9, 9).map(float)))
def test_scores_agree_with_themselves_and_their_negative_has_no_sign_of_theirs(values: np.ndarray) -> None:
    assume(np.ptp(values) > 0)
    told: dict[str, Any] = {"top": [3], "drop": [0], "resamples": 5}
    table = agreement(values, {"same": 3 * values, "negative": -values}, **told).to_frame().set_index("method")
    same, negative = table.loc["same"], table.loc["negative"]
    for name in ("pearson", "spearman"):
        assert same[name] == pytest.approx(1)
        assert negative[name] == pytest.approx(-1)
    assert (same["sign"], same["top_3"], negative["top_3"]) == pytest.approx((1, 1, 1))
    assert negative["sign"] == 0

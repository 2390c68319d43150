"""MaSF: combinations by hand, uniform p-values on null data, power on shifted data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from interp.errors import InputError
from interp.run import Run
from metrics.explanation.masf import Emergent, MaSF, fisher, lower_tail, simes, token_maxima, two_sided
from metrics.testing import adjust


def layers(seed: int, n: int, shift: float = 0.0) -> list[np.ndarray[Any, Any]]:
    """Two layers of correlated units."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 1))
    return [rng.normal(size=(n, units)) + shared + shift for units in (8, 30)]


def test_simes_and_fisher_by_hand() -> None:
    np.testing.assert_allclose(simes([[0.3, 0.02, 0.04], [0.5, 0.5, 0.5]]), [0.06, 0.5])
    np.testing.assert_allclose(fisher([[0.1, 0.5], [1.0, 1.0]]), [-2 * np.log(0.05), 0.0])


def test_tails_by_hand() -> None:
    sample = np.array([[1.0], [2.0], [3.0], [4.0]])
    np.testing.assert_allclose(lower_tail(sample, np.array([[0.0], [2.0], [9.0]]))[:, 0], [0.25, 0.75, 1.0])
    np.testing.assert_allclose(lower_tail(sample, sample, within=True)[:, 0], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(two_sided(sample, sample, within=True)[:, 0], [0.5, 1.0, 1.0, 0.5])
    np.testing.assert_allclose(two_sided(sample, np.array([[0.0], [9.0]]))[:, 0], [0.5, 0.5])


def test_maxima_leave_out_padding() -> None:
    hidden = torch.tensor([[[1.0, -5.0], [3.0, -7.0], [9.0, 9.0]]])
    np.testing.assert_array_equal(token_maxima([hidden], torch.tensor([[1, 1, 0]]))[0], [[3.0, -5.0]])


def test_p_values_are_uniform_on_null_data() -> None:
    p = Emergent.of(layers(0, 4000)).p_values(layers(1, 2000))
    assert kstest(p, "uniform").pvalue > 0.01
    assert 0.035 < (p < 0.05).mean() < 0.065


def test_shifted_data_is_found() -> None:
    known = Emergent.of(layers(0, 1000))
    for shift in (4.0, -4.0):
        assert (known.p_values(layers(1, 200, shift)) < 0.05).mean() > 0.5


def states(ids: torch.Tensor, attention: torch.Tensor) -> list[torch.Tensor]:
    """Embeddings by a fixed table; the token 9 stands far outside."""
    table = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    table[9] = 20.0
    return [table[ids], 2 * table[ids]]


def test_in_distribution_by_ratio() -> None:
    ids = torch.randint(1, 9, (900, 8), generator=torch.Generator().manual_seed(1))
    test = MaSF.fit(states, ids[:600], mask_id=0, seed=0)
    frame = test.in_distribution(ids[600:], ratios=[0.0, 0.5]).to_frame()
    assert list(frame["ratio"]) == [0.0, 0.5]
    assert frame["in_distribution"].all()
    assert (frame["outliers"] < 0.1).all()
    strange = ids[600:].clone()
    strange[:, 3] = 9
    assert (test.p_values(strange) < 0.05).all()
    scored = test.in_distribution(ids[600:], ratios=[0.5], scores=torch.rand(300, 8)).to_frame()
    assert scored["n"].tolist() == [300]


def test_verdicts_of_ratios_are_corrected_and_the_reference_is_what_was_trained_on() -> None:
    ids = torch.randint(1, 9, (900, 8), generator=torch.Generator().manual_seed(1))
    test = MaSF.fit(states, ids[:600], mask_id=9, masked=False)
    frame = test.in_distribution(ids[600:], ratios=[0.0, 0.5, 1.0]).to_frame()
    assert frame["in_distribution"].tolist() == [True, False, False]  # the token 9 was never seen
    np.testing.assert_array_equal(frame["p_adjusted"], adjust(frame["p"]))
    single = test.in_distribution(ids[600:], ratios=[0.0], correction="none").to_frame()
    assert single["p_adjusted"].tolist() == frame["p"].tolist()[:1]
    among_masked = MaSF.fit(states, ids[:600], mask_id=9).in_distribution(ids[600:], ratios=[0.5]).to_frame()
    assert among_masked["in_distribution"].all()


def test_p_of_a_ratio_by_hand() -> None:
    """Level 0.3 and four known samples: p = 1/4 alone lies below it, for what lies beyond all four."""
    known = Emergent((np.array([[1.0], [2.0], [3.0], [4.0]]),), np.array([[0.5], [1.0], [1.0], [0.5]]), np.ones(4))
    test = MaSF(hidden=states, known=known, mask_id=0, special=(), run=Run(quiet=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaSF, "p_values", lambda self, ids, attention: np.array([0.25, 1.0]))
        frame = test.in_distribution(torch.ones(2, 3, dtype=torch.long), ratios=[0.0], level=0.3).to_frame()
    # six values in random order: one at least of the two new ones is the largest of four known and itself;
    # neither is if the largest of all six is a known one, 4/6
    assert frame["p"].item() == pytest.approx(1 / 3)


def test_seeds_decide() -> None:
    ids = torch.randint(1, 9, (60, 5), generator=torch.Generator().manual_seed(1))
    one, same, other = (MaSF.fit(states, ids, mask_id=0, seed=s).known.whole for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_refused() -> None:
    ids = torch.ones(30, 4, dtype=torch.long)
    with pytest.raises(InputError, match="at least 20"):
        MaSF.fit(states, ids[:5], mask_id=0)
    with pytest.raises(InputError, match=r"must be \[30, 4, unit\]"):
        MaSF.fit(lambda ids, attention: [torch.zeros(3, 2)], ids, mask_id=0)
    test = MaSF.fit(states, ids, mask_id=0)
    with pytest.raises(InputError, match="from 0 to 1"):
        test.in_distribution(ids, ratios=[2.0])
    with pytest.raises(InputError, match="level"):
        test.in_distribution(ids, level=0.01)
    with pytest.raises(InputError, match="units by layer"):
        Emergent.of(layers(0, 30)).p_values([np.zeros((2, 8))])


def test_two_layers_by_hand() -> None:
    """Four samples, a layer of one unit and one of two: every level written out."""
    known = Emergent.of([[[1.0], [2.0], [3.0], [4.0]], [[1.0, 4.0], [2.0, 3.0], [3.0, 2.0], [4.0, 1.0]]])
    # two-sided tails are 1/2 at the ends and 1 inside; Simes of (1/2, 1/2) is 1/2, of (1, 1) is 1
    np.testing.assert_allclose(known.layers, [[0.5, 0.5], [1.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    # as its own distribution: both ends have one other as small, (1 + 1) / 4
    np.testing.assert_allclose(known.whole, -2 * np.log([0.25, 1.0, 1.0, 0.25]))
    # a sample at the end is as extreme as the two known ones; one inside is like all
    np.testing.assert_allclose(known.p_values([[[0.0], [2.0]], [[0.0, 9.0], [2.0, 3.0]]]), [0.75, 1.0])


def test_units_may_be_named_in_any_order_and_scaled() -> None:
    first, second = layers(0, 200), layers(1, 50)
    order = np.random.default_rng(0).permutation(30)
    expected = Emergent.of(first).p_values(second)
    moved = [[np.exp(part[0]), part[1][:, order]] for part in (first, second)]  # exp: monotone, so no rank changes
    np.testing.assert_array_equal(Emergent.of(moved[0]).p_values(moved[1]), expected)
    assert ((expected > 0) & (expected <= 1)).all()

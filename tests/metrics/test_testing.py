from __future__ import annotations

import numpy as np
import pytest

from interp.errors import InputError
from metrics.testing import adjust, paired_test


def test_holm_by_hand_keeps_order_and_leaves_nan_out() -> None:
    found = adjust([0.04, np.nan, 0.01, 0.9, 0.03])
    np.testing.assert_allclose(found, [0.09, np.nan, 0.04, 0.9, 0.09])


def test_benjamini_hochberg_by_hand() -> None:
    np.testing.assert_allclose(adjust([0.01, 0.02, 0.03, 0.5], "bh"), [0.04, 0.04, 0.04, 0.5])


def test_corrected_values_never_exceed_one_and_none_changes_nothing() -> None:
    assert adjust([0.9, 0.8]).max() == 1.0
    assert adjust([0.9, 0.8], "none").tolist() == [0.9, 0.8]
    assert len(adjust([])) == 0


def test_all_signs_are_tried_where_there_are_few() -> None:
    # of 2^5 sign patterns, one is as large as all positive: one-sided 1 / 32, two-sided 2 / 32
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert paired_test(values, np.zeros(5), alternative="greater") == 1 / 32
    assert paired_test(values, np.zeros(5)) == 2 / 32
    assert paired_test(np.zeros(5), values, alternative="less") == 1 / 32


def test_the_level_holds_without_a_difference() -> None:
    draw = np.random.default_rng(0)
    rejected = [paired_test(draw.normal(size=30), draw.normal(size=30), resamples=199) < 0.05 for _ in range(400)]
    assert 0.02 < np.mean(rejected) < 0.085  # three standard errors around the level of 0.05


def test_equal_and_missing_values() -> None:
    assert paired_test([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert np.isnan(paired_test([1.0, np.nan], [0.0, 1.0]))
    assert paired_test([1.0, 2.0, np.nan], [0.0, 0.0, 5.0]) == paired_test([1.0, 2.0], [0.0, 0.0])


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_unpaired_values_are_refused(first: list, second: list) -> None:
    with pytest.raises(InputError, match="paired"):
        paired_test(first, second)


def test_what_is_no_p_value_or_correction_is_refused() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        adjust([1.5])
    with pytest.raises(InputError, match="correction"):
        adjust([0.5], "bonferroni-ish")

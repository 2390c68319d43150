"""MoRF, LeRF and insertion curves against areas worked out by hand, their properties, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import InputError
from metrics.explanation.curves import counts, fraction_grid, removal_curves
from tests.predictors import additive, linear_case

ZERO = {"baseline": "zero", "quiet": True}
# p = .95 whole; most relevant first .55 .25 .05; least relevant first .75 .45 .05; put back .05 .45 .75 .95
BY_HAND = {"predict": additive([0.4, 0.3, 0.2]), "inputs": torch.ones(1, 3), "attributions": [[3.0, 2, 1]], "target": 1}


def test_curves_and_areas_by_hand():
    result = removal_curves(**BY_HAND, fractions=3, **ZERO)
    assert result.curves["morf"][0] == pytest.approx([0.95, 0.55, 0.25, 0.05])
    assert result.curves["lerf"][0] == pytest.approx([0.95, 0.75, 0.45, 0.05])
    assert result.curves["insertion"][0] == pytest.approx([0.05, 0.45, 0.75, 0.95])
    # trapezoids of width 1/3: (.75 + .40 + .15) / 3, (.85 + .60 + .25) / 3, and the latter from the other end
    areas = {"morf": 1.3 / 3, "lerf": 1.7 / 3, "between": 0.4 / 3, "insertion": 1.7 / 3}
    assert {name: values[0] for name, values in result.columns.items()} == pytest.approx(areas)


def test_accuracy_counts_where_the_target_is_the_most_likely_class():
    result = removal_curves(**BY_HAND, fractions=3, measure="accuracy", **ZERO)
    assert result.curves["morf"][0].tolist() == [1, 1, 0, 0]
    assert result["morf"].value == pytest.approx(1.5 / 3)


def test_shares_are_of_whole_elements_and_areas_follow_what_was_removed():
    # 3 elements in steps of a half: .5 * 3 = 1.5 rounds up to 2: points at 0, 2/3 and 1
    result = removal_curves(**BY_HAND, fractions=[0, 0.5, 1], **ZERO)
    assert result.curves["morf"][0] == pytest.approx([0.95, 0.25, 0.05])
    assert result["morf"].value == pytest.approx((0.95 + 0.25) / 2 * 2 / 3 + (0.25 + 0.05) / 2 / 3)
    # more steps than elements add points that are no wider than nothing
    fine = removal_curves(**BY_HAND, fractions=30, **ZERO)
    assert fine["morf"].value == pytest.approx(1.3 / 3)
    assert counts(np.array([3, 10]), np.array([0, 0.1, 0.25, 1])).tolist() == [[0, 0, 1, 3], [0, 1, 3, 10]]


def test_insertion_takes_a_replacement_of_its_own():
    result = removal_curves(**BY_HAND, insertion=lambda x, m: torch.where(m, 0.5, x), fractions=3, **ZERO)
    assert result.curves["insertion"][0] == pytest.approx([0.5, 0.7, 0.85, 0.95])
    assert result.curves["morf"][0] == pytest.approx([0.95, 0.55, 0.25, 0.05])


def test_padding_is_never_removed():
    real = [[True, True, False]]
    result = removal_curves(**{**BY_HAND, "attributions": [[1.0, 2, np.nan]]}, real=real, fractions=2, **ZERO)
    assert result.curves["morf"][0] == pytest.approx([0.95, 0.65, 0.25])


@pytest.mark.parametrize("seed", range(3))
def test_only_the_order_counts(seed):
    predict, inputs, _ = linear_case(seed, n=6)
    salience = np.random.default_rng(seed).normal(size=inputs.shape)
    plain = removal_curves(predict, inputs, salience, **ZERO)
    for rescaled in (np.exp(3 * salience), 5 * salience - 1, salience**3):
        assert removal_curves(predict, inputs, rescaled, **ZERO).to_frame().equals(plain.to_frame())
    inverted = removal_curves(predict, inputs, -salience, **ZERO)
    assert inverted.columns["between"] == pytest.approx(-plain.columns["between"])


def test_relabelling_changes_nothing():
    predict, inputs, truth = linear_case(n=6)
    order = np.random.default_rng(0).permutation(inputs.shape[1])
    back = np.argsort(order)
    plain = removal_curves(predict, inputs, truth, **ZERO)
    relabelled = removal_curves(lambda x: predict(x[:, back]), inputs[:, order], truth[:, order], **ZERO)
    assert np.allclose(relabelled.to_frame(), plain.to_frame())


def test_truth_scores_best_random_as_random_and_inverted_worst():
    predict, inputs, truth = linear_case()
    best = removal_curves(predict, inputs, truth, n_random=4, **ZERO)
    noise = removal_curves(predict, inputs, np.random.default_rng(5).normal(size=truth.shape), **ZERO)
    worst = removal_curves(predict, inputs, -truth, **ZERO)
    for name, better in best.better.items():
        sign = 1 if better == "higher" else -1
        values = [sign * result[name].value for result in (best, noise, worst)]
        assert values == sorted(values, reverse=True)
        assert (sign * (best.columns[name] - worst.columns[name]) >= -1e-12).all()  # sample by sample, too
        assert best.random[name].low < noise[name].high
        assert noise[name].low < best.random[name].high
    assert best.random["between"].low < 0 < best.random["between"].high
    assert best["between"].low > noise["between"].high > noise["between"].low > worst["between"].high


def test_equal_scores_stand_in_random_order_that_the_seed_fixes():
    predict, inputs, truth = linear_case()
    flat = np.zeros_like(truth)
    first, again, other = (removal_curves(predict, inputs, flat, seed=seed, **ZERO) for seed in (0, 0, 1))
    assert first.to_frame().equals(again.to_frame())
    assert not first.to_frame().equals(other.to_frame())
    assert first["between"].low < 0 < first["between"].high
    assert "40 of 40 samples have constant attributions: their order is random" in repr(first)


def test_batches_change_nothing():
    predict, inputs, truth = linear_case(n=5)
    runs = [removal_curves(predict, inputs, truth, baseline="noise", batch_size=b, n_random=2) for b in (1, 7, 500)]
    for run in runs[1:]:
        assert np.allclose(run.to_frame(), runs[0].to_frame(), atol=1e-12)


def test_frames_and_figure():
    predict, inputs, truth = linear_case(n=5)
    result = removal_curves(predict, inputs, truth, fractions=4, n_random=2, **ZERO)
    frame = result.curve_frame()
    assert frame.columns.tolist() == ["curve", "fraction", "value", "low", "high", "random"]
    assert len(frame) == 3 * 5
    row = frame[(frame["curve"] == "lerf") & (frame["fraction"] == 0.5)].iloc[0]
    assert row["value"] == pytest.approx(result.curves["lerf"][:, 2].mean())
    assert row["low"] <= row["value"] <= row["high"]
    assert row["random"] == pytest.approx(result.random_curves["lerf"][:, 2].mean())
    figure = result.figure()
    lines = [trace for trace in figure.data if trace.fill is None]
    assert len(lines) == 6
    assert list(lines[0].y) == pytest.approx(result.curves["morf"].mean(0))
    with pytest.raises(InputError, match="curve='lref'"):
        result.points("lref")


@pytest.mark.parametrize("fractions", [0, True, [0.1, 1], [0, 0.5], [0, 0.5, 0.5, 1], [0], 2.5])
def test_fractions_must_rise_from_0_to_1(fractions):
    with pytest.raises(InputError, match="fractions="):
        fraction_grid(fractions)


def test_unknown_measures_and_bad_salience_are_refused():
    with pytest.raises(InputError, match="measure='acuracy' is unknown; did you mean 'accuracy'"):
        removal_curves(**BY_HAND, measure="acuracy", **ZERO)
    with pytest.raises(InputError, match="attributions hold 1 values that are NaN"):
        removal_curves(**{**BY_HAND, "attributions": [[1.0, np.nan, 2]]}, **ZERO)

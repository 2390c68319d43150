"""Erasure metrics, decision flips, normalised AOPC and soft erasure: by hand, by enumeration, and on known models."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from interp.errors import InputError
from metrics.explanation.erasure import decision_flips, erasure
from metrics.explanation.normalised import normalised_aopc
from metrics.explanation.soft import soft_erasure
from tests.predictors import additive, linear_case


def tangled(d, seed):
    """Two classes; p(1) is an arbitrary number for each subset of d features that are 1."""
    table = np.random.default_rng(seed).uniform(size=2**d)

    def predict(x):
        p = table[(np.asarray(x) > 0.5) @ (1 << np.arange(d))]
        return np.stack((1 - p, p), 1)

    return predict


ZERO = {"baseline": "zero", "quiet": True}
FOUR = {
    "predict": additive([0.4, 0.1, 0.3, 0.05]),
    "inputs": torch.ones(1, 4),
    "attributions": [[4.0, 2, 3, 1]],
}  # p = .9


# ---- comprehensiveness, sufficiency, log-odds


def test_erasure_by_hand():
    result = erasure(**FOUR, shares=(0.25, 0.5), target=1, **ZERO)
    # without the top one p = .5, without the top two .2; alone they give .45 and .75
    assert result.by_share["comprehensiveness"][0] == pytest.approx([0.4, 0.7])
    assert result.by_share["sufficiency"][0] == pytest.approx([0.45, 0.15])
    assert result["comprehensiveness"].value == pytest.approx(0.55)
    assert result["sufficiency"].value == pytest.approx(0.3)
    assert result["log_odds"].value == pytest.approx((np.log(0.5 / 0.9) + np.log(0.2 / 0.9)) / 2)


def test_shares_round_up_and_take_one_element_at_least():
    # of 20 elements: 1 % and 5 % are 1, 10 % are 2, 20 % are 4, 50 % are 10; each weighs .01
    predict = additive([0.01] * 20)
    result = erasure(predict, torch.ones(1, 20), torch.arange(20.0)[None], target=1, **ZERO)
    assert result.by_share["comprehensiveness"][0] == pytest.approx([0.01, 0.01, 0.02, 0.04, 0.1])
    three = erasure(additive([0.1] * 3), torch.ones(1, 3), [[3.0, 2, 1]], shares=(0.34, 2 / 3), target=1, **ZERO)
    assert three.by_share["comprehensiveness"][0] == pytest.approx([0.2, 0.2])


def test_a_probability_of_zero_gives_a_finite_log_odds():
    result = erasure(additive([0.5, 0.5], 0.0), torch.ones(1, 2), [[2.0, 1]], shares=(1,), target=1, **ZERO)
    assert result["log_odds"].value == pytest.approx(np.log(1e-12))


def test_tokens_of_different_length():
    table = torch.tensor([0.0, 0.4, 0.1, 0.2, 0.0], dtype=torch.float64)

    def predict(ids):
        p = 0.1 + table[ids].sum(1)
        return torch.stack((1 - p, p), 1)

    ids = torch.tensor([[1, 2, 3, 2], [3, 2, 0, 0]])
    salience = [[4.0, 1, 3, 2], [2, 1, 9, 9]]
    result = erasure(predict, ids, salience, shares=(0.5,), baseline=4, real=ids > 0, target=1, quiet=True)
    assert result.columns["comprehensiveness"] == pytest.approx([0.6, 0.2])
    assert result.columns["sufficiency"] == pytest.approx([0.2, 0.1])


def test_share_frame_and_repr():
    predict, inputs, truth = linear_case(n=6)
    result = erasure(predict, inputs, truth, n_random=2, **ZERO)
    frame = result.share_frame()
    assert frame.shape == (15, 5)
    assert frame["value"][:5].mean() == pytest.approx(result["comprehensiveness"].value)
    assert {"random_comprehensiveness", "log_odds"} <= set(result.to_frame())
    assert "comprehensiveness" in repr(result)
    assert result.summary()["better"].tolist() == ["higher", "lower", "lower"]


@pytest.mark.parametrize("shares", [(), (0.0,), (1.2,), (-0.1,)])
def test_shares_outside_are_refused(shares):
    with pytest.raises(InputError, match="shares"):
        erasure(**FOUR, shares=shares, **ZERO)


# ---- decision flips


def test_flips_by_hand():
    predict = additive([0.38, 0.1, 0.3, 0.05], 0.07)
    inputs = torch.ones(2, 4)
    # order 1: .9 -> .52 -> .22: flips at the second of four. Order 2, worst first: .85 .75 .45: at the third
    result = decision_flips(predict, inputs, [[4.0, 2, 3, 1], [1, 3, 2, 4]], **ZERO)
    assert result.columns["first"].tolist() == [0, 0]
    assert result.columns["fraction"].tolist() == [2 / 4, 3 / 4]


def test_first_and_never():
    strong, inputs = additive([0.6, 0.1], 0.2), torch.ones(1, 2)
    assert decision_flips(strong, inputs, [[2.0, 1]], **ZERO).columns == {"first": [1.0], "fraction": [0.5]}
    sure = additive([0.1, 0.1], 0.7)
    assert decision_flips(sure, inputs, [[2.0, 1]], **ZERO).columns == {"first": [0.0], "fraction": [1.0]}


def test_long_inputs_go_by_even_shares_and_stop_at_the_flip():
    rows = []

    def predict(x):
        rows.append(len(x))
        p = 0.104 + 0.008 * x.double().sum(1)  # .504 with 50 ones left, .496 with 49
        return torch.stack((1 - p, p), 1)

    salience = torch.arange(100.0)[None]
    result = decision_flips(predict, torch.ones(1, 100), salience, steps=10, **ZERO)
    assert result.columns["fraction"].tolist() == [0.6]
    assert sum(rows) == 1 + 7  # the input, then 1, 10, 20, .., 60 removed
    exact = decision_flips(predict, torch.ones(1, 100), salience, **ZERO)
    assert exact.columns["fraction"].tolist() == [0.51]


# ---- normalised AOPC


def test_normalised_aopc_by_hand():
    # weights .3 .2 .1: best order .3 + .5 + .6 = 1.4, worst .1 + .3 + .6 = 1.0; order .2 .3 .1: .2 + .5 + .6 = 1.3
    predict, inputs = additive([0.3, 0.2, 0.1]), torch.ones(1, 3)
    result = normalised_aopc(predict, inputs, [[2.0, 3, 1]], target=1, **ZERO)
    assert result.columns["comprehensiveness"] == pytest.approx([0.75])
    assert result.raw["comprehensiveness"] == pytest.approx([1.3 / 3])
    # kept: .2 (.4 lost), .2 + .3 (.1 lost), all: .5 / 3; between (1.0 - .6) / 3 and (1.4 - .6) / 3: a quarter
    assert result.raw["sufficiency"] == pytest.approx([0.5 / 3])
    assert result.columns["sufficiency"] == pytest.approx([0.25])
    assert (result.low[0], result.high[0]) == pytest.approx((1.0 / 3, 1.4 / 3))
    assert result.exact.tolist() == [True]


@pytest.mark.parametrize("seed", range(3))
def test_exact_bounds_are_those_of_all_orders_written_out(seed):
    d = 5
    predict, x = tangled(d, seed), np.ones((1, d))
    clean = predict(x)[0, 1]
    totals = []
    for order in permutations(range(d)):
        removed, total = np.ones((1, d)), 0.0
        for element in order:
            removed[0, element] = 0
            total += clean - predict(removed)[0, 1]
        totals.append(total / d)
    result = normalised_aopc(predict, x, np.random.default_rng(seed).normal(size=(1, d)), target=1, **ZERO)
    assert (result.low[0], result.high[0]) == pytest.approx((min(totals), max(totals)))
    beam = normalised_aopc(predict, x, np.ones((1, d)), target=1, exact=0, beam=3, **ZERO)
    assert min(totals) - 1e-12 <= beam.low[0] < beam.high[0] <= max(totals) + 1e-12
    wide = normalised_aopc(predict, x, np.ones((1, d)), target=1, exact=0, beam=100, **ZERO)
    assert (wide.low[0], wide.high[0]) == pytest.approx((min(totals), max(totals)))  # a beam that drops nothing
    assert not wide.exact.any()


def test_a_beam_finds_the_bounds_of_an_additive_model_and_lengths_may_differ():
    weights = np.array([0.2, 0.05, 0.15, 0.1, 0.3])
    real = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]])
    salience = np.random.default_rng(0).normal(size=(2, 5))
    exact = normalised_aopc(additive(weights), torch.ones(2, 5), salience, real=real, target=1, **ZERO)
    beam = normalised_aopc(additive(weights), torch.ones(2, 5), salience, real=real, target=1, exact=3, beam=1, **ZERO)
    assert beam.exact.tolist() == [False, True]
    assert np.allclose(beam.to_frame().drop(columns="exact"), exact.to_frame().drop(columns="exact"))
    # by hand, the second sample: .2 .15 .1 best (.2 + .35 + .45) / 3
    assert exact.high[1] == pytest.approx(1.0 / 3)


def test_orders_that_all_give_the_same_have_no_normalised_value():
    result = normalised_aopc(additive([0.1, 0.1]), torch.ones(2, 2), [[2.0, 1], [1.0, 2]], target=1, **ZERO)
    assert np.isnan(result.columns["comprehensiveness"]).all()
    assert result.raw["comprehensiveness"] == pytest.approx([0.15, 0.15])


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(InputError, match=r"exact=17 would need 2\^17"):
        normalised_aopc(**FOUR, exact=17, **ZERO)
    with pytest.raises(InputError, match="beam=0"):
        normalised_aopc(**FOUR, beam=0, **ZERO)
    with pytest.raises(InputError, match="give attributions by patches"):
        normalised_aopc(additive([0.0] * 1001), torch.ones(1, 1001), torch.rand(1, 1001), **ZERO)


# ---- all of them on a model whose importances are known


@pytest.mark.parametrize("metric", [erasure, decision_flips, normalised_aopc])
def test_truth_scores_best_random_as_random_and_inverted_worst(metric):
    predict, inputs, truth = linear_case(d=7)
    best = metric(predict, inputs, truth, n_random=3, **ZERO)
    noise = metric(predict, inputs, np.random.default_rng(5).normal(size=truth.shape), **ZERO)
    worst = metric(predict, inputs, -truth, **ZERO)
    for name, better in best.better.items():
        sign = 1 if better == "higher" else -1
        values = [sign * result[name].value for result in (best, noise, worst)]
        assert values[0] > values[1] > values[2]
        assert (sign * (best.columns[name] - noise.columns[name]) >= -1e-12).all()  # sample by sample, too
        assert best.random[name].low < noise[name].high
        assert noise[name].low < best.random[name].high
    if metric is normalised_aopc:
        assert best.columns["comprehensiveness"] == pytest.approx(np.ones(40))
        assert best.columns["sufficiency"] == pytest.approx(np.zeros(40), abs=1e-9)
        assert worst.columns["comprehensiveness"] == pytest.approx(np.zeros(40), abs=1e-9)


@pytest.mark.parametrize("metric", [erasure, decision_flips, normalised_aopc])
def test_only_the_order_counts_and_labels_and_batches_do_not(metric):
    predict, inputs, _ = linear_case(n=6, d=6)
    salience = np.random.default_rng(1).normal(size=inputs.shape)
    plain = metric(predict, inputs, salience, **ZERO).to_frame().astype(float)
    assert metric(predict, inputs, np.exp(3 * salience), batch_size=5, **ZERO).to_frame().astype(float).equals(plain)
    order = np.random.default_rng(2).permutation(6)
    back = np.argsort(order)
    relabelled = metric(lambda x: predict(x[:, back]), inputs[:, order], salience[:, order], **ZERO)
    assert np.allclose(relabelled.to_frame().astype(float), plain)


@pytest.mark.parametrize("metric", [erasure, decision_flips, normalised_aopc])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributions": [[1.0, np.nan, 2, 3]]}, "NaN"),
        ({"attributions": [[1.0, 2, 3]]}, "attributions have shape"),
        ({"predict": lambda x: x[0]}, "shape"),
        ({"confidence": 1.5}, "confidence"),
    ],
)
def test_bad_input_gets_a_sentence(metric, change, message):
    with pytest.raises(InputError, match=message):
        metric(**{**FOUR, **change}, **ZERO)


def test_constant_salience_is_said():
    result = erasure(**{**FOUR, "attributions": [[1.0] * 4]}, **ZERO)
    assert "1 of 1 samples have constant attributions" in repr(result)


# ---- soft erasure


def embedded(inputs, weights=(0.5, 0.3), bias=0.1):
    """p(1) = bias + weights over tokens . mean over the embedding."""
    p = bias + torch.as_tensor(inputs).double().mean(2) @ torch.tensor(weights, dtype=torch.float64)
    return torch.stack((1 - p, p), 1)


def test_soft_by_hand_where_nothing_is_left_to_chance():
    # salience 1 and 0: the first token is kept whole, or dropped whole. p = .9, empty .1, so D_0 = .8
    result = soft_erasure(embedded, torch.ones(1, 2, 4), [[5.0, -2.0]], target=1, quiet=True)
    assert result["sufficiency"].value == pytest.approx((0.8 - 0.3) / 0.8)  # D = .3
    assert result["comprehensiveness"].value == pytest.approx(0.5 / 0.8)
    other = soft_erasure(embedded, torch.ones(1, 2, 4), [[-2.0, 5.0]], target=1, quiet=True)
    assert other["sufficiency"].value == pytest.approx((0.8 - 0.5) / 0.8)


def test_soft_drops_elements_in_proportion():
    # kept with probability a = (.9, .2): D = .5 * .1 + .3 * .8 = .29 on average, and .5 * .9 + .3 * .2 = .51
    result = soft_erasure(embedded, torch.ones(1, 2, 50), [[0.9, 0.2]], scale="none", draws=400, target=1, quiet=True)
    assert result["sufficiency"].value == pytest.approx(1 - 0.29 / 0.8, abs=0.01)
    assert result["comprehensiveness"].value == pytest.approx(0.51 / 0.8, abs=0.01)


def test_hellinger_distance_is_bounded():
    def switch(x):
        p = (torch.as_tensor(x).double().sum((1, 2)) > 0).double()
        return torch.stack((1 - p, p), 1)

    # everything dropped turns (0, 1) into (1, 0): without the factor the distance would be 1.41, and D / D_0 still 1
    result = soft_erasure(
        switch, torch.ones(1, 2, 3), [[0.0, 0.0]], scale="none", change="distribution", target=1, quiet=True
    )
    assert result.columns["sufficiency"].tolist() == [0.0]
    assert result.columns["comprehensiveness"].tolist() == [0.0]
    from metrics.explanation.soft import _distance

    ends = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert _distance(*ends, torch.tensor([1]), "distribution") == pytest.approx([1.0])
    halves = torch.tensor([[0.5, 0.5]])
    assert _distance(ends[0], halves, torch.tensor([1]), "distribution") == pytest.approx([np.sqrt(1 - np.sqrt(0.5))])


def test_soft_keeps_padding_and_gives_no_value_to_constants():
    seen = []

    def watched(x):
        seen.append(x)
        return embedded(x)

    real = [[True, False], [True, True]]
    result = soft_erasure(watched, torch.ones(2, 2, 4), [[1.0, 7], [2.0, 2]], real=real, target=1, draws=3, quiet=True)
    assert np.isnan(result.columns["sufficiency"]).all()  # one real token, and two equal ones
    assert "2 of 2 samples have no value" in repr(result)
    kept, dropped = seen[1], seen[2]  # three draws for each of the two samples
    assert (kept[:3, 1] == 1).all()
    assert (dropped[:3, 1] == 1).all()


def test_soft_is_seeded_and_batches_change_nothing():
    inputs = torch.rand(4, 2, 8, generator=torch.Generator().manual_seed(0))
    salience = np.random.default_rng(0).uniform(size=(4, 2))
    settings = {"scale": "none", "n_random": 2, "target": 1, "quiet": True}
    runs = [soft_erasure(embedded, inputs, salience, batch_size=b, **settings).to_frame() for b in (1, 7, 64)]
    assert np.allclose(runs[0], runs[1])
    assert np.allclose(runs[0], runs[2])
    assert not np.allclose(runs[0], soft_erasure(embedded, inputs, salience, seed=1, **settings).to_frame())
    as_arrays = soft_erasure(embedded, inputs.numpy(), salience, **settings).to_frame()
    assert np.allclose(runs[0], as_arrays)


def test_soft_ranks_truth_over_random_over_inverted():
    generator = np.random.default_rng(0)
    weights = torch.tensor(generator.normal(size=10))
    inputs = torch.tensor(generator.normal(size=(60, 10, 6)))

    def predict(x):
        p = torch.sigmoid(3 * x.mean(2) @ weights)
        return torch.stack((1 - p, p), 1)

    sign = 2 * predict(inputs).argmax(1) - 1
    truth = inputs.mean(2) * weights * sign[:, None]
    best, worst = (soft_erasure(predict, inputs, s, n_random=3, quiet=True) for s in (truth, -truth))
    for name in ("sufficiency", "comprehensiveness"):
        assert best[name].low > best.random[name].high
        assert worst[name].high < best.random[name].low
        assert 0 <= best.columns[name].min() <= best.columns[name].max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": torch.ones(1, 2)}, r"embeddings must be finite floats \[n, pos, d\]"),
        ({"embeddings": torch.ones(1, 2, 3, dtype=torch.long)}, "embeddings must be finite floats"),
        ({"embeddings": torch.full((1, 2, 3), torch.nan)}, "embeddings must be finite floats"),
        ({"attributions": [[1.0, 2, 3]]}, "attributions have shape"),
        ({"attributions": [[1.0, 2]], "scale": "none"}, "scale='none' needs attributions in"),
        ({"scale": "minmax"}, "did you mean 'min-max'"),
        ({"change": "targets"}, "did you mean 'target'"),
        ({"draws": 0}, "draws=0"),
        ({"n_random": 1.5}, "n_random=1.5"),
        ({"predict": lambda x: x.flatten(1)[:, :2] * 0.9, "change": "distribution"}, "sum to 1"),
        ({"predict": lambda x: x}, "shape"),
    ],
)
def test_soft_refuses_what_it_cannot_use(change, message):
    with pytest.raises(InputError, match=message):
        soft_erasure(
            **{
                "predict": embedded,
                "embeddings": torch.ones(1, 2, 3),
                "attributions": [[1.0, 0]],
                "quiet": True,
                **change,
            }
        )

"""SaCo against hand-made numbers and a slow reference, its properties, baselines, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from interp.errors import InputError
from metrics.explanation.baselines import Blur, Delete, Mean, Noise, Token, filler
from metrics.explanation.saco import saco, salience_coefficient
from tests.expanded import expanded


def additive(weights, bias=0.05):
    """Two classes; p(1) = bias + weights . x, so that what is set to zero costs exactly its weight."""
    weights = torch.as_tensor(weights, dtype=torch.float64)

    def predict(inputs):
        p = bias + inputs.double().flatten(1) @ weights.flatten()
        return torch.stack((1 - p, p), 1)

    return predict


def sigmoid(weights):
    """Two classes; p(1) = sigmoid(weights . x), for numpy inputs."""

    def predict(inputs):
        p = 1 / (1 + np.exp(-inputs.reshape(len(inputs), -1) @ weights))
        return np.stack((1 - p, p), 1)

    return predict


def linear_case(seed=0, n=40, d=12):
    """A linear model, inputs, and what each feature gives to the predicted class, beyond its replacement by zero."""
    generator = np.random.default_rng(seed)
    weights, inputs = generator.normal(size=d), generator.normal(size=(n, d))
    predict = sigmoid(weights)
    sign = 2 * predict(inputs).argmax(1) - 1
    return predict, inputs, inputs * weights * sign[:, None]


ZERO = {"baseline": "zero", "quiet": True}


# ---- the coefficient by hand

# falls .4 .1 .2 .1, salience 4 3 2 1
# the pairs (1,2) +1, (1,3) +2, (1,4) +3, (2,3) -1, (2,4) a tie of weight 2, (3,4) +1
WEIGHTS, SALIENCE = [0.4, 0.1, 0.2, 0.1], [[4.0, 3, 2, 1]]


@pytest.mark.parametrize(("ties", "value"), [("agree", 8 / 10), ("zero", 6 / 10)])
def test_by_hand_with_a_tie(ties, value):
    result = saco(additive(WEIGHTS), torch.ones(1, 4), SALIENCE, 4, target=1, ties=ties, **ZERO)
    assert result.values == pytest.approx([value], abs=1e-12)
    assert result.ties == pytest.approx([1 / 6])


def test_groups_of_unequal_size_by_hand():
    # K = 2 of 5: three and two elements. s = 5+4+3 = 12 and 3; falls .1+.1+.1 = .3 and .4: the one pair disagrees
    salience = [[1.0, 5, 3, 4, 2]]
    result = saco(additive([0.2, 0.1, 0.1, 0.1, 0.2]), torch.ones(1, 5), salience, 2, target=1, **ZERO)
    assert result.values == pytest.approx([-1.0])


def test_the_other_class_sees_every_fall_with_the_other_sign():
    settings = {"groups": 4, "ties": "zero", **ZERO}
    one = saco(additive(WEIGHTS), torch.ones(1, 4), SALIENCE, target=1, **settings)
    other = saco(additive(WEIGHTS), torch.ones(1, 4), SALIENCE, target=[0], **settings)
    assert other.values == pytest.approx(-one.values)


def test_values_of_the_salience_count_and_not_only_their_order():
    # groups of one: s = 10 3 2 1, weights 7 8 9 1 2 1, of which (2,3) disagrees and (2,4) is a tie: 26/28 for agree
    result = saco(additive(WEIGHTS), torch.ones(1, 4), [[10.0, 3, 2, 1]], 4, target=1, **ZERO)
    assert result.values == pytest.approx([26 / 28])
    assert result.values != pytest.approx([8 / 10])  # the same order as SALIENCE


def slow(drops_of, scores, groups, tolerance):
    """SaCo of one sample, written as in the paper; `drops_of(list of elements)` removes them."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    size, extra = divmod(len(order), groups)
    parts, start = [], 0
    for g in range(groups):
        stop = start + size + (g < extra)
        parts.append(order[start:stop])
        start = stop
    s, d = [sum(scores[i] for i in part) for part in parts], [drops_of(part) for part in parts]
    above = below = 0.0
    for i in range(groups):
        for j in range(i + 1, groups):
            above += (s[i] - s[j]) if d[i] >= d[j] - tolerance else -(s[i] - s[j])
            below += abs(s[i] - s[j])
    return above / below


@pytest.mark.parametrize("groups", [2, 5, 7, 16])
@pytest.mark.parametrize("patches", [False, True])
def test_images_agree_with_a_slow_reference(groups, patches):
    generator = np.random.default_rng(groups)
    images, weights = generator.normal(size=(3, 2, 8, 8)), generator.normal(size=2 * 64)
    salience = generator.normal(size=(3, 4, 4) if patches else (3, 8, 8))
    predict = sigmoid(weights)
    result = saco(predict, images, salience, groups, batch_size=5, quiet=True)
    side = 2 if patches else 1
    for n, image in enumerate(images):
        clean = predict(image[None])[0]

        def drop(elements, image=image, clean=clean, n=n):
            changed = image.copy()
            for element in elements:
                row, column = divmod(element, salience.shape[2])
                where = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
                for channel in range(2):
                    changed[channel][where] = image[channel].mean()
            return clean.max() - predict(changed[None])[0, clean.argmax()]

        assert result.values[n] == pytest.approx(slow(drop, salience[n].ravel(), groups, 1e-6), abs=1e-9)


# ---- properties


@pytest.mark.parametrize("seed", range(3))
def test_range_relabelling_and_factors(seed):
    predict, inputs, _ = linear_case(seed)
    generator = np.random.default_rng(seed + 10)
    salience, order = generator.normal(size=inputs.shape), generator.permutation(inputs.shape[1])
    plain = saco(predict, inputs, salience, 5, **ZERO)
    assert (np.abs(plain.values) <= 1).all()
    back = np.argsort(order)
    relabelled = saco(lambda x: predict(x[:, back]), inputs[:, order], salience[:, order], 5, **ZERO)
    assert relabelled.values == pytest.approx(plain.values, abs=1e-12)
    assert saco(predict, inputs, 7 * salience, 5, **ZERO).values == pytest.approx(plain.values)


def test_a_monotone_rescaling_changes_it():
    predict, inputs, _ = linear_case()
    salience = np.random.default_rng(1).normal(size=inputs.shape)
    plain, rescaled = (saco(predict, inputs, s, 5, **ZERO).values for s in (salience, np.exp(3 * salience)))
    assert np.abs(plain - rescaled).max() > 0.05


def test_a_shift_of_the_salience_changes_nothing_where_groups_are_equal():
    predict, inputs, _ = linear_case()
    salience = np.random.default_rng(1).normal(size=inputs.shape)
    plain, shifted = (saco(predict, inputs, s, 4, **ZERO).values for s in (salience, salience + 5))
    assert shifted == pytest.approx(plain, abs=1e-9)


def test_the_true_explanation_scores_one_inverted_minus_one_and_random_about_zero():
    predict, inputs, truth = linear_case()
    best = saco(predict, inputs, truth, 6, n_random=4, **ZERO)
    assert best.values == pytest.approx(np.ones(40))  # a sigmoid keeps the order of the falls
    assert saco(predict, inputs, -truth, 6, **ZERO).values == pytest.approx(-np.ones(40))
    assert best.random["saco"].low < 0 < best.random["saco"].high
    noise = saco(predict, inputs, np.random.default_rng(3).normal(size=truth.shape), 6, **ZERO)
    assert noise.mean.low < 0.1
    assert noise.mean.high > -0.1
    assert abs(noise.mean.value) < 0.25


@pytest.mark.parametrize("baseline", ["mean", "noise", Noise(scale=0.5), "zero"])
def test_batches_and_seeds(baseline):
    predict, inputs, truth = linear_case(n=7)
    runs = [
        saco(predict, inputs, truth.round(), 4, baseline=baseline, batch_size=b, seed=3, n_random=2) for b in (1, 5, 64)
    ]
    for run in runs[1:]:
        pd.testing.assert_frame_equal(run.to_frame(), runs[0].to_frame(), rtol=0, atol=1e-12)


def test_tensors_and_arrays_give_the_same_and_predict_sees_its_own_kind_without_gradients():
    kinds = []

    def predict(inputs):
        kinds.append((type(inputs), torch.is_grad_enabled()))
        p = torch.sigmoid(torch.as_tensor(inputs).sum(1))
        return torch.stack((1 - p, p), 1)

    inputs = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    salience = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    first = saco(predict, inputs, salience, 3, **ZERO)
    second = saco(predict, inputs.detach().numpy(), salience.detach().numpy(), 3, **ZERO)
    np.testing.assert_allclose(first.values, second.values, rtol=0, atol=1e-6)
    assert set(kinds) == {(torch.Tensor, False), (np.ndarray, False)}


# ---- tokens


def counting(values):
    """p(1) = .1 + the mean of a value for each token id; id 0 is padding, of which the model takes no notice."""
    table = torch.tensor(values, dtype=torch.float64)

    def predict(ids):
        there = ids != 0
        p = 0.1 + 0.8 * (table[ids] * there).sum(1) / 4
        return torch.stack((1 - p, p), 1)

    return predict


def test_tokens_are_replaced_by_an_id_or_deleted_and_padding_stays():
    ids = torch.tensor([[3, 1, 2, 2], [1, 3, 0, 0]])
    predict, seen = counting([9.0, 0.1, 0.3, 0.9, 0.0]), []

    def watched(batch):
        seen.append(batch)
        return predict(batch)

    salience = [[4.0, 1, 3, 2], [1, 2, np.nan, np.nan]]
    real = ids != 0
    result = saco(watched, ids, salience, 2, baseline=4, real=real, target=1, quiet=True)
    assert result.values == pytest.approx([1.0, 1.0])
    assert torch.cat(seen[1:]).tolist() == [[4, 1, 4, 2], [3, 4, 2, 4], [1, 4, 0, 0], [4, 3, 0, 0]]
    seen.clear()
    assert saco(watched, ids, salience, 2, baseline=Delete(0), real=real, target=1).values == pytest.approx([1, 1])
    assert torch.cat(seen[3:]).tolist() == [[1, 2, 0, 0], [3, 2, 0, 0], [1, 0, 0, 0], [3, 0, 0, 0]]


# ---- baselines


def images(seed=0):
    return torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(seed))


def test_rules_touch_what_the_mask_removes_and_nothing_else():
    inputs = images()
    mask = torch.zeros(2, 6, 4, dtype=torch.bool)
    mask[:, 2:4, 1:] = True
    samples = torch.tensor([1, 0])
    for rule in ("mean", "zero", "blur", "noise"):
        result = filler(rule, inputs, 0, False)(samples, mask)
        there = mask[:, None].expand_as(inputs)
        assert (result[~there] == inputs[samples][~there]).all()
        assert (result[there] != inputs[samples][there]).all()
        if rule == "zero":
            assert (result[there] == 0).all()
        if rule == "mean":
            assert torch.allclose(result[0, :, 2, 1], inputs[1].mean((1, 2)))


def test_blur_is_a_gaussian_and_noise_has_the_channels_scale():
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    everywhere, first = torch.ones(1, 33, 33, dtype=torch.bool), torch.tensor([0])
    blurred = filler(Blur(2.0), point, 0, False)(first, everywhere)
    assert float(blurred[0, 0, 16, 16]) == pytest.approx(1 / (2 * np.pi * 4), rel=0.01)  # density of sigma = 2 at 0
    assert float(blurred.sum()) == pytest.approx(1, rel=1e-3)
    inputs = 5 + 2 * torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    noisy = filler("noise", inputs, 0, False)(first, torch.ones(1, 100, 100, dtype=torch.bool))
    assert float(noisy.mean()) == pytest.approx(5, abs=0.1)
    assert float(noisy.std()) == pytest.approx(2, rel=0.05)
    assert abs(np.corrcoef(noisy.ravel(), inputs.ravel())[0, 1]) < 0.05


def test_features_have_the_mean_of_the_samples_and_functions_get_mask_and_inputs():
    inputs = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    mask = torch.tensor([[True, False], [False, True]])
    assert filler(None, inputs, 0, False)(torch.tensor([0, 1]), mask).tolist() == [[2.0, 2.0], [3.0, 4.0]]
    seen = []

    def minus(x, m):
        seen.append(type(x))
        return x - 10 * m

    assert filler(minus, inputs, 0, True)(torch.tensor([1, 0]), mask).tolist() == [[-7.0, 6.0], [1.0, -8.0]]
    assert seen == [np.ndarray]


@pytest.mark.parametrize(
    ("baseline", "inputs", "message"),
    [
        (None, torch.ones(1, 3, dtype=torch.long), "baseline is needed for token inputs"),
        ("mean", torch.ones(1, 3, dtype=torch.long), "no meaning for token ids"),
        ("noise", torch.ones(1, 3), "there is one sample"),
        ("mean", torch.ones(1, 3), "there is one sample"),
        ("blur", torch.ones(2, 3), "for images"),
        ("blurr", torch.ones(2, 3), "did you mean 'blur'"),
        (5, torch.ones(2, 3), "for token ids"),
        (Token(5), torch.ones(2, 3), "for token ids"),
        (Delete(0), torch.ones(2, 3), "for token ids"),
        (Mean, torch.ones(2, 3), "must be one of mean, zero"),
        (2.5, torch.ones(2, 3), "must be one of mean, zero"),
    ],
)
def test_rules_that_do_not_fit_are_refused(baseline, inputs, message):
    with pytest.raises(InputError, match=message):
        filler(baseline, inputs, 0, False)


def test_a_function_that_returns_another_shape_is_refused():
    fill = filler(lambda x, m: x[:, :1], torch.ones(2, 3), 0, False)
    with pytest.raises(InputError, match=r"must return inputs of shape \[2, 3\].*got \[2, 1\]"):
        fill(torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(InputError, match="sigma"):
        Blur(0)


# ---- no value, ties, and the result


def test_constant_salience_has_no_value_and_says_so():
    predict, inputs, truth = linear_case(n=4)
    truth[1] = 0.1
    result = saco(predict, inputs, truth, 5, n_random=1, **ZERO)  # 12 elements in 5 groups: sums differ by size alone
    assert np.isnan(result.values).tolist() == [False, True, False, False]
    assert result.mean.value == pytest.approx(1.0)
    assert "1 of 4 samples have no value: their salience is constant" in repr(result)
    assert "constant" in result._repr_html_()
    alone = saco(predict, inputs, np.ones_like(truth), 5, **ZERO)
    assert np.isnan(alone.mean.value)


def test_a_model_that_never_answers_agrees_by_the_papers_rule_and_ties_tell():
    def deaf(inputs):
        return torch.full((len(inputs), 2), 0.5)

    salience = torch.arange(12.0).reshape(2, 6)
    assert saco(deaf, torch.ones(2, 6), salience, 3, **ZERO).values.tolist() == [1.0, 1.0]
    result = saco(deaf, torch.ones(2, 6), salience, 3, ties="zero", **ZERO)
    assert result.values.tolist() == [0.0, 0.0]
    assert result.ties.tolist() == [1.0, 1.0]


def test_noise_of_float32_is_a_tie_unless_asked_otherwise():
    predict = additive([0.3, 0.3 + 1e-8])
    settings = {"groups": 2, "target": 1, "ties": "zero", **ZERO}
    assert saco(predict, torch.ones(1, 2), [[2.0, 1.0]], **settings).values == pytest.approx([0.0])
    exact = saco(predict, torch.ones(1, 2), [[2.0, 1.0]], tolerance=0, **settings)
    assert exact.values == pytest.approx([-1.0])


def test_the_mean_has_an_interval_over_samples_and_one_sample_has_none():
    predict, inputs, _ = linear_case()
    result = saco(predict, inputs, np.random.default_rng(0).normal(size=inputs.shape), 5, confidence=0.9, **ZERO)
    assert result.mean.value == pytest.approx(result.values.mean())
    draws = np.random.default_rng(0).integers(0, 40, (2000, 40))
    left_out = [np.delete(result.values, i).mean() for i in range(40)]
    ends = expanded(result.values[draws].mean(1).tolist(), left_out, 40, 0.9)
    assert (result.mean.low, result.mean.high) == pytest.approx(ends)
    assert result.mean.confidence == 0.9
    single = saco(predict, inputs[:1], inputs[:1], 5, **ZERO)
    assert np.isnan(single.mean.low)
    assert single.mean.value == single.values[0]


def test_frames_html_and_figure():
    predict, inputs, truth = linear_case(n=5)
    result = saco(predict, inputs, truth, 4, n_random=2, **ZERO)
    assert result.to_frame().columns.tolist() == ["sample", "saco", "random_saco", "ties"]
    row = result.summary().iloc[0]
    assert row["difference"] == pytest.approx(row["value"] - row["random"])
    assert row["better"] == "higher"
    assert result["saco"] == result.mean
    with pytest.raises(InputError, match="metric='sacco' is unknown"):
        result["sacco"]
    assert "saco" in result._repr_html_()
    figure = result.figure()
    boxes = [trace for trace in figure.data if trace.type == "box"]
    assert [list(box.y) for box in boxes] == [list(result.values), list(result.random_columns["saco"])]


# ---- bad input


def given(**change):
    return {
        "predict": additive([0.1] * 4),
        "inputs": torch.ones(2, 4),
        "salience": torch.arange(8.0).reshape(2, 4),
        "groups": 2,
        "baseline": "zero",
        **change,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 5}, "groups=5 is more than the 4 elements of sample 0"),
        ({"groups": 1}, "groups=1 must be a whole number of at least 2"),
        ({"groups": 2.0}, "groups=2.0"),
        ({"groups": 4, "real": [[1, 1, 1, 1], [1, 1, 1, 0]]}, "groups=4 is more than the 3 elements of sample 1"),
        ({"salience": [[1.0, 2, 3, 4], [1, 2, np.nan, np.inf]]}, "attributions hold 2 values .* the first in sample 1"),
        ({"salience": torch.ones(2, 5)}, r"attributions have shape \[2, 5\] for inputs of shape \[2, 4\]; .* \[2, 4\]"),
        ({"salience": torch.ones(3, 4)}, r"attributions have shape \[3, 4\]"),
        ({"salience": [["a"] * 4] * 2}, "attributions must be numbers"),
        ({"inputs": torch.ones(2, 1, 4, 4), "salience": torch.ones(2, 3, 4)}, "a coarser grid of patches"),
        ({"inputs": torch.ones(2, 1, 4, 4), "salience": torch.ones(2, 8, 8)}, "a coarser grid of patches"),
        ({"inputs": torch.ones(2, 4, 4)}, "inputs must be images"),
        ({"inputs": torch.ones(0, 4), "salience": torch.ones(0, 4)}, "inputs must be images"),
        ({"inputs": [[1.0]]}, "inputs must be a tensor or an array; got a list"),
        ({"inputs": np.array([["a"] * 4] * 2)}, "inputs must be numbers"),
        ({"inputs": torch.full((2, 4), torch.nan)}, "inputs holds 8 values that are NaN"),
        ({"inputs": torch.ones(2, 1, 2, 2, dtype=torch.uint8), "salience": torch.ones(2, 2, 2)}, "hand in floats"),
        ({"real": [[1, 1, 1, 1]]}, "real must be true or false for each"),
        ({"real": [[1, 1, 1, 1], [0, 0, 0, 0]]}, "real leaves no element of sample 1"),
        ({"target": 2}, "target holds 2, which is no class; predict gives classes 0 to 1"),
        ({"target": [0, -1]}, "target holds -1"),
        ({"target": [0, 1, 0]}, "one a sample"),
        ({"target": 0.5}, "one a sample"),
        ({"predict": 3}, "predict must be a function"),
        ({"predict": lambda x: x[:, :1]}, r"shape \[2, class\] with at least two classes for 2 inputs; got \[2, 1\]"),
        ({"predict": lambda x: torch.ones(7, 2)}, r"got \[7, 2\]"),
        ({"predict": lambda x: (x, x)}, "got a tuple"),
        ({"predict": lambda x: 5 * x - 2}, "values from 3 to 3, which look like logits"),
        ({"predict": lambda x: x * torch.nan}, "predict returned values that are NaN"),
        ({"ties": "agrees"}, "did you mean 'agree'"),
        ({"tolerance": -1}, "tolerance=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"n_random": -1}, "n_random=-1"),
        ({"confidence": 95}, "confidence=95"),
        ({"resamples": 0}, "resamples=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    with pytest.raises(InputError, match=message) as caught:
        saco(**given(**change))
    assert "\n" not in str(caught.value)


def test_the_formula_alone():
    assert salience_coefficient([3.0, 2, 1], [0.3, 0.2, 0.1]) == (1.0, 0.0)
    assert salience_coefficient([3.0, 2, 1], [0.1, 0.2, 0.3]) == (-1.0, 0.0)
    assert np.isnan(salience_coefficient([0.3, 0.1 + 0.2], [0.1, 0.2])[0])  # equal up to rounding


def test_a_model_that_normalises_in_place_gets_inputs_of_its_own():
    inputs = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    scores = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).numpy()
    plain = additive([0.1, 0.02, 0.03, 0.04, 0.05, 0.06])

    def in_place(x):
        return plain(x.sub_(0.1) + 0.1)

    for given, numpy in ((inputs, False), (inputs.numpy(), True)):
        before = given.copy() if numpy else given.clone()
        predict = (lambda x: in_place(torch.as_tensor(x))) if numpy else in_place
        found = saco(predict, given, scores, 3, target=1, baseline="zero")
        assert (given == before).all()
        np.testing.assert_allclose(found.values, saco(plain, inputs, scores, 3, target=1, baseline="zero").values)

"""Infidelity and max-sensitivity on models where both are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import InputError
from metrics.explanation.sensitivity import sensitivity

WEIGHTS = torch.tensor([0.2, -0.1, 0.05], dtype=torch.float64)


def linear(inputs):
    """Two classes; p(1) = .5 + weights . x."""
    p = 0.5 + torch.as_tensor(inputs).double() @ WEIGHTS
    return torch.stack((1 - p, p), 1)


def gradient(inputs, target):
    """The gradient of the target's probability."""
    inputs.requires_grad_()
    chosen = linear(inputs).gather(1, target[:, None]).sum()
    return torch.autograd.grad(chosen, inputs)[0]


INPUTS = 0.5 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_gradient_of_a_linear_model_is_perfect():
    result = sensitivity(linear, INPUTS, gradient, quiet=True)
    assert result.columns["infidelity"] == pytest.approx(np.zeros(5), abs=1e-12)
    assert result.columns["max_sensitivity"] == pytest.approx(np.zeros(5), abs=1e-12)


def test_infidelity_by_hand():
    # the linear model's fall is I . w for class 1, so infidelity is the mean of (I . (a - w))^2, I = .1 normal draws
    wrong = torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64)
    result = sensitivity(linear, INPUTS, lambda x, t: wrong.expand_as(x), target=1, draws=4, seed=7, quiet=True)
    for i, value in enumerate(result.columns["infidelity"]):
        noise = 0.1 * np.random.default_rng((7, i)).standard_normal((4, 3))
        assert value == pytest.approx(((noise @ (wrong - WEIGHTS).numpy()) ** 2).mean())
    # in expectation .01 |a - w|^2 = .01 (.01 + .01 + .0025)
    many = sensitivity(linear, INPUTS, lambda x, t: wrong.expand_as(x), target=1, draws=2000, quiet=True)
    assert many["infidelity"].value == pytest.approx(0.01 * 0.0225, rel=0.1)


def test_max_sensitivity_by_hand():
    # an explanation equal to the input moves by r: the largest |r| / |x|
    result = sensitivity(linear, INPUTS, lambda x, t: x, draws=6, radius=0.05, seed=7, quiet=True)
    for i, value in enumerate(result.columns["max_sensitivity"]):
        generator = np.random.default_rng((7, i))
        generator.standard_normal((6, 3))  # the noise of infidelity is drawn first
        shifts = 0.05 * generator.uniform(-1, 1, (6, 3))
        size = np.linalg.norm(shifts, axis=1).max() / np.linalg.norm(INPUTS[i])
        assert value == pytest.approx(size)


def test_normalising_forgives_a_factor():
    tripled = sensitivity(linear, INPUTS, lambda x, t: 3 * gradient(x, t), quiet=True)
    assert tripled["infidelity"].value > 1e-4
    forgiven = sensitivity(linear, INPUTS, lambda x, t: 3 * gradient(x, t), normalise=True, quiet=True)
    assert forgiven["infidelity"].value == pytest.approx(0, abs=1e-12)


def test_truth_scores_best_random_worse_and_inverted_worst():
    noise = torch.randn(3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = noise * WEIGHTS.norm() / noise.norm()
    best, random, worst = (
        sensitivity(linear, INPUTS, explain, target=1, draws=50, quiet=True)["infidelity"].value
        for explain in (gradient, lambda x, t: noise.expand_as(x), lambda x, t: -gradient(x, t))
    )
    assert best < random < worst


def test_batches_change_nothing_and_seeds_do():
    def explain(x, t):
        return x * (1 + t[:, None])

    runs = [sensitivity(linear, INPUTS, explain, batch_size=b, quiet=True).to_frame() for b in (1, 20, 500)]
    assert np.allclose(runs[0], runs[1])
    assert np.allclose(runs[0], runs[2])
    other = sensitivity(linear, INPUTS, explain, seed=1, quiet=True).to_frame()
    assert not np.allclose(runs[0]["infidelity"], other["infidelity"])
    first = sensitivity(linear, INPUTS[:2], explain, quiet=True).to_frame()
    assert np.allclose(first, runs[0][:2])


def test_explain_gets_targets_gradients_and_images_and_predict_arrays_if_so():
    seen = []

    def explain(x, t):
        seen.append((tuple(x.shape), t.tolist(), torch.is_grad_enabled()))
        return torch.ones_like(x)

    def predict(x):
        assert isinstance(x, np.ndarray)
        p = 1 / (1 + np.exp(-x.mean((1, 2, 3))))
        return np.stack((1 - p, p), 1)

    result = sensitivity(predict, np.ones((2, 1, 4, 4), np.float32), explain, target=[1, 0], draws=3, quiet=True)
    assert seen[-1] == ((6, 1, 4, 4), [1, 1, 1, 0, 0, 0], True)
    assert set(result.columns) == {"infidelity", "max_sensitivity"}
    assert result.summary()["better"].tolist() == ["lower", "lower"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.ones(2, 3, dtype=torch.long)}, "for tokens hand in their embeddings"),
        ({"inputs": torch.full((2, 3), torch.nan)}, "inputs must be finite floats"),
        ({"explain": lambda x, t: x[:, :1]}, r"inputs' shape \[5, 3\]; got \[5, 1\]"),
        ({"explain": lambda x, t: x * torch.nan}, "explain returned values that are NaN"),
        ({"predict": lambda x: x[:, :1]}, "predict must return probabilities"),
        ({"draws": 0}, "draws=0"),
        ({"noise": 0}, "noise=0 must be a number above 0"),
        ({"radius": -1}, "radius=-1 must be a number above 0"),
        ({"target": 5}, "target holds 5"),
        ({"confidence": 0}, "confidence=0"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    with pytest.raises(InputError, match=message):
        sensitivity(**{"predict": linear, "inputs": INPUTS, "explain": gradient, "quiet": True, **change})

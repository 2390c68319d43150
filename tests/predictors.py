"""Models whose explanations are known: what they give, and what each feature contributes."""

from __future__ import annotations

import numpy as np
import torch


def additive(weights, bias=0.05):
    """Two classes; p(1) = bias + weights . x."""
    weights = torch.as_tensor(weights, dtype=torch.float64)

    def predict(inputs):
        p = bias + inputs.double() @ weights
        return torch.stack((1 - p, p), 1)

    return predict


def linear_case(seed=0, n=40, d=12):
    """A sigmoid of a linear sum, inputs, and what each feature gives to the predicted class beyond zero."""
    generator = np.random.default_rng(seed)
    weights, inputs = generator.normal(size=d), generator.normal(size=(n, d))

    def predict(x):
        p = 1 / (1 + np.exp(-x @ weights))
        return np.stack((1 - p, p), 1)

    sign = 2 * predict(inputs).argmax(1) - 1
    return predict, inputs, inputs * weights * sign[:, None]

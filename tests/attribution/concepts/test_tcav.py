"""Captum's TCAV beside gradients by hand, where it can only be 0 or 1, and controls."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attribution.concepts import TCAVScores, tcav, train_heads
from interp import Result
from interp.concepts import read_concepts
from tests.planted_concepts import NAMES, draw, images, network, true_heads

QUIET: dict[str, Any] = {"quiet": True}


def test_behind_a_linear_rest_all_shares_are_0_or_1() -> None:
    found = tcav(network(), "2", images(), epochs=10, **QUIET)
    heads = train_heads(network(), "2", images(), epochs=10, **QUIET)
    gradient = network()[3].weight  # of each logit in the features, whatever the image
    by_hand = gradient @ heads.weights.T  # type: ignore[operator]
    there = found.counts > 0
    assert found.counts.sum() == len(images())
    assert torch.equal(found.shares[there], (by_hand[there] > 0).double())
    torch.testing.assert_close(found.slopes[there], by_hand[there].double(), rtol=1e-4, atol=1e-4)


def test_behind_a_bend_shares_are_those_of_gradients_by_hand() -> None:
    mixing, last = nn.Conv2d(8, 6, 1, dtype=torch.float64), nn.Linear(6, 3, dtype=torch.float64)
    with torch.no_grad():
        mixing.weight.copy_(draw(6, 8, 1, 1, seed=1))
        last.weight.copy_(draw(3, 6, seed=2))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), mixing, nn.Tanh(), nn.Flatten(), last)
    found = tcav(model, "0", images(), epochs=10, **QUIET)
    heads = train_heads(model, "0", images(), epochs=10, **QUIET)
    pooled = images().images.mean((2, 3))[:, :, None, None].requires_grad_()
    logits = model[1:](pooled)
    for c in logits.argmax(1).unique().tolist():
        rows = logits.argmax(1) == c
        (slopes,) = torch.autograd.grad(logits[rows, c].sum(), pooled, retain_graph=True)
        by_hand = slopes[rows].flatten(1) @ heads.weights.T
        torch.testing.assert_close(found.shares[c], (by_hand > 0).double().mean(0), atol=0.04, rtol=0)
        torch.testing.assert_close(found.slopes[c], by_hand.mean(0), atol=1e-4, rtol=1e-3)
    assert ((found.shares > 0) & (found.shares < 1)).any()


def test_a_result_is_read_as_it_was_written_and_tells_of_chance(tmp_path: Any) -> None:
    few = images().only(NAMES[:2])
    found = tcav(network(), "2", few, epochs=2, seed=3, **QUIET)
    read = Result.load(found.save(tmp_path / "found.json"))
    assert isinstance(read, TCAVScores)
    assert torch.equal(read.random, found.random)
    assert "100% of the shares are 0 or 1" in found.headline()
    assert len(found.to_frame()) == 5 * 2
    assert list(found.figure().data[0].x) == ["c0", "c1"]
    assert found.size == 2


def test_its_salience_is_the_slope_of_the_decision() -> None:
    found = tcav(network(), "2", images(), epochs=2, **QUIET)
    reading = read_concepts(network(), true_heads(), images(), **QUIET)
    assert torch.equal(found.salience(reading)[5], found.slopes[reading.decisions[5]])
    assert found.predict(reading) is None

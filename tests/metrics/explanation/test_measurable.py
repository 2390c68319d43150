"""Erasure without retraining: by hand, and on a classifier that reads one token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.known import TokenSum as Sum
from benchmarks.known import stories
from benchmarks.known import true_tokens as true
from interp.errors import InputError
from metrics.explanation.masked import masked_finetune
from metrics.explanation.measurable import erasure_curve


def inverted(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
    return -true(model, ids, labels, seed)


def chance(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
    return torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed))


def test_true_beats_random_beats_inverted() -> None:
    model = Sum()
    masked_finetune(
        model, stories(300, 0), stories(100, 1), mask_id=0, epochs=6,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    )  # fmt: skip
    settings = {"mask": 0, "performance": "probability", "resamples": 300}
    explain = {"true": true, "chance": chance, "inverted": inverted}
    found = erasure_curve(model, stories(200, 2), explain, **settings)
    assert found.racu["true"].low > 0.5
    assert abs(found.racu["chance"].value) < 0.15
    assert found.racu["inverted"].high < -0.5
    assert found.to_frame()["faithful"].tolist()[::2] == [True, False]
    again = erasure_curve(model, stories(200, 2), explain, **settings)
    for name, values in found.values.items():
        np.testing.assert_array_equal(values, again.values[name])
    assert "RACU" in repr(found)
    assert len(found.figure().data) == 4


def first(model: Any, ids: Tensor) -> Tensor:
    """Class 1 while the first two tokens are not both masked."""
    seen = (ids[:, :2] != 0).any(1).double()
    return torch.stack((1 - seen, seen), 1)


def front(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
    """What stands first among the tokens not masked."""
    return (ids != 0) * torch.arange(ids.shape[1], 0, -1).double()


def test_curve_by_hand() -> None:
    ids, labels = torch.ones(6, 4, dtype=torch.long), torch.ones(6, dtype=torch.long)
    found = erasure_curve(None, (ids, labels), front, mask=0, ratios=[1, 2, 3, 4], predict=first)
    assert [point.value for point in found.points["front"]] == [1, 1, 0, 0, 0]
    assert found.ratios == (0, 1, 2, 3, 4)
    chance = found.values["random"].mean(1)
    assert found.racu["front"].value == pytest.approx((np.trapezoid(chance) - 1.5) / np.trapezoid(chance))


def test_recursive_explains_what_is_masked_already() -> None:
    ids, labels = stories(5, 0)
    seen: list[int] = []

    def watch(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
        seen.append(int((inputs == 0).sum(1)[0]))
        return chance(model, inputs, labels, seed)

    erasure_curve(Sum().eval(), (ids, labels), watch, mask=0, ratios=[2, 4, 6])
    assert seen == [0, 2, 4]
    seen.clear()
    erasure_curve(Sum().eval(), (ids, labels), watch, mask=0, ratios=[2, 4, 6], recursive=False)
    assert seen == [0]


def test_refused() -> None:
    data = stories(5, 0)
    for scores, message in (
        (torch.full((5, 8), torch.nan), "gives 40 scores that are NaN or infinite"),
        (torch.ones(5, 8), "the same score: there is no order"),
        (torch.rand(5, 7), r"scores of shape \(5, 8\), one for each element; got \(5, 7\)"),
    ):
        with pytest.raises(InputError, match=message):
            erasure_curve(Sum().eval(), data, lambda *a, given=scores: given, mask=0)
    with pytest.raises(InputError, match=r"an array of class scores .* got a tuple"):
        erasure_curve(Sum().eval(), data, true, mask=0, predict=lambda model, ids: (ids, ids))
    with pytest.raises(InputError, match="finite logits"):
        erasure_curve(Sum().eval(), data, true, mask=0, predict=lambda model, ids: torch.zeros(3))
    with pytest.raises(InputError, match="performance='f1'"):
        erasure_curve(Sum().eval(), data, true, mask=0, performance="f1")


def test_an_explainer_that_writes_into_what_it_gets_changes_no_curve() -> None:
    def writes(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
        found = chance(model, ids, labels, seed)
        ids.zero_()
        labels.zero_()
        return found

    model, (ids, labels) = Sum(), stories(20, 2)
    before = ids.clone(), labels.clone()
    found = erasure_curve(model, (ids, labels), writes, mask=0, recursive=False, quiet=True)
    assert torch.equal(ids, before[0])
    assert torch.equal(labels, before[1])
    expected = erasure_curve(model, (ids, labels), {"writes": chance}, mask=0, recursive=False, quiet=True)
    for one, other in zip(found.values.values(), expected.values.values(), strict=True):
        np.testing.assert_array_equal(one, other)

"""Features that two dictionaries share by construction, and all assignments tried by hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import metrics
from interp import InputError
from interp.dictionaries import Dictionary
from metrics import SharedFeatures


def of(rows: Tensor) -> Dictionary:
    return Dictionary.from_tensors(0, "residual", rows, None, rows, None)


def test_planted_features_are_shared_and_others_are_not(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64)).Q
    first = basis[:20]
    second = torch.cat((3 * first[:15].flip(0), basis[20:25]))
    found = metrics.shared_features(of(first), of(second))
    assert found.ratio.value == found.nearest.value == 0.75
    assert found.ratio.low < 0.75 < found.ratio.high
    frame = found.to_frame()
    assert (frame["first"] + frame["second"])[:15].tolist() == [14] * 15
    assert frame["cosine"][:15].tolist() == pytest.approx([1] * 15)
    again = SharedFeatures.load(found.save(tmp_path / "shared.json"))
    assert (again.pairs == found.pairs).all()
    assert "20 pairs" in repr(again)
    assert len(found.figure().data) == 1


def test_the_match_is_the_best_of_all_and_the_nearest_may_be_one() -> None:
    """Two features near one of the other's: by nearest neighbour both are shared, one to one only one is."""
    first = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1]])
    second = torch.tensor([[1.0, 0.05, 0], [0, 1, 0], [0, 0.2, 1]])
    found = metrics.shared_features(of(first), of(second))
    cosines = torch.nn.functional.normalize(first, dim=1) @ torch.nn.functional.normalize(second, dim=1).T
    best = max(itertools.permutations(range(3)), key=lambda order: sum(cosines[i, j] for i, j in enumerate(order)))
    assert found.pairs[:, 1].tolist() == list(best)
    assert (found.ratio.value, found.nearest.value) == (pytest.approx(2 / 3), 1)
    wider = metrics.shared_features(of(first), of(torch.cat((second, first))), threshold=0.99)
    assert wider.ratio.value == 1
    assert len(wider.pairs) == 3


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(InputError, match="second is a Tensor"):
        metrics.shared_features(of(torch.eye(3)), torch.eye(3))
    with pytest.raises(InputError, match="first writes 3 numbers and second 4"):
        metrics.shared_features(of(torch.eye(3)), of(torch.eye(4)))
    with pytest.raises(InputError, match="threshold=2"):
        metrics.shared_features(of(torch.eye(3)), of(torch.eye(3)), 2)

"""The pieces of the benchmark of a faithfulness-measurable model over MiniLM, with tiny settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import measurable_minilm as benchmark
from benchmarks.models import minilm

SIZES = {"train": 32, "validation": 8, "reference": 24, "test": 8}


@pytest.fixture(scope="module")
def sets() -> benchmark.Data:
    return benchmark.data(SIZES)


@pytest.fixture(scope="module")
def tuned(sets: benchmark.Data) -> Any:
    return benchmark.masked(sets, 0, epochs=1)[0]


def test_special_tokens_are_those_that_are_not_maskable(sets: benchmark.Data) -> None:
    for ids, _, maskable in sets.values():
        assert torch.equal(maskable, ~torch.isin(ids, torch.tensor(benchmark.SPECIAL)))


def test_masked_finetuning_leaves_the_frozen_part(tuned: Any) -> None:
    start, _ = minilm.load(0)
    assert torch.equal(tuned.bert.embeddings.word_embeddings.weight, start.bert.embeddings.word_embeddings.weight)
    for layer, (ours, theirs) in enumerate(zip(tuned.bert.encoder.layer, start.bert.encoder.layer, strict=True)):
        same = torch.equal(ours.output.dense.weight, theirs.output.dense.weight)
        assert same == (layer < benchmark.FROZEN)
    assert not tuned.training
    assert not any(weight.requires_grad for weight in tuned.parameters())


def test_accuracy_of_one_model_twice_is_the_same(tuned: Any, sets: benchmark.Data) -> None:
    frame = benchmark.accuracy({"plain": tuned, "masked": tuned}, sets, 0, (0.0, 1.0))
    assert list(frame) == ["ratio", "plain", "masked", "difference"]
    assert [one.value for one in frame["difference"]] == [0.0, 0.0]
    ids, labels, _ = sets["test"]
    assert frame["plain"][0].value == (minilm.logits(tuned, ids).argmax(1) == labels).double().mean()


def test_masks_are_strange_to_what_never_saw_them(tuned: Any, sets: benchmark.Data) -> None:
    frame = benchmark.outliers(benchmark.learned(tuned, sets, 0, masked=False), sets, 0, ratios=(0.0, 1.0))
    assert frame["outliers"].tolist()[1] > 0.9
    assert frame["in_distribution"].tolist() == [True, False]
    known = benchmark.learned(tuned, sets, 0, masked=True)
    assert benchmark.outliers(known, sets, 0, ratios=(0.5,))["in_distribution"].all()
    assert float(benchmark.calibration(known, sets, 0).split()[0]) <= 0.25


def test_occlusion_is_the_fall_without_the_word(tuned: Any, sets: benchmark.Data) -> None:
    ids, labels, maskable = (part[:3] for part in sets["test"])
    ids = ids.clone()
    ids[0, 1] = minilm.MASK
    falls = benchmark.occlusion(tuned, ids, labels, 0)
    clean, target = minilm.logits(tuned, ids).softmax(1).max(1)
    without = ids.clone()
    without[:, 2] = minilm.MASK
    expected = clean - minilm.logits(tuned, without).softmax(1)[torch.arange(3), target]
    torch.testing.assert_close(falls[:, 2], expected, atol=1e-6, rtol=1e-4)
    assert falls[0, 1] == 0
    assert not falls[~maskable].any()
    torch.testing.assert_close(benchmark.EXPLAINERS["inverted occlusion"](tuned, ids, labels, 0), -falls)
    hidden = torch.where(maskable, minilm.MASK, ids)
    assert not benchmark.occlusion(tuned, hidden, labels, 0).any()


def test_curves_of_all_explanations(tuned: Any, sets: benchmark.Data) -> None:
    found = benchmark.erasure(tuned, sets, 0, n=4, ratios=(0.5, 1.0))
    assert set(found.racu) == set(benchmark.EXPLAINERS)
    ends = {points[-1].value for points in found.points.values()}
    assert len(ends) == 1  # all masked: no order is left

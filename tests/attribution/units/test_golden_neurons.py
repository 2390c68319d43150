"""The real SmolLM2-135M against figures of the paper authors' code (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

from attribution import neurons

pytestmark = pytest.mark.real

CASES = ("ioi", "capital")


@pytest.fixture(scope="module", params=CASES)
def case(request, golden):
    """The golden figures of one prompt."""
    tensors, _ = golden("neurons_smollm2")
    prefix = f"{request.param}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def found(case, smollm2):
    """What the default gives for it, in one call."""
    return neurons(smollm2, case["tokens"][None], target=case["target"].tolist(), quiet=True)


def at(values, index):
    return values[0][tuple(index.long().T)]


def test_scores_are_the_references(found, case):
    largest = float(case["top2000.score"].abs().max())
    assert found.values.shape == (1, 30, len(case["tokens"]), 1536)
    assert (at(found.values, case["top2000.index"]) - case["top2000.score"]).abs().max() < 2e-5 * largest
    assert torch.allclose(
        at(found.activations, case["top2000.index"]), case["top2000.activation"], rtol=1e-6, atol=1e-3
    )
    # all others are smaller, and add up to theirs
    assert (found.values.abs() > case["top2000.score"][-1].abs() + 2e-5 * largest).sum() <= 2000
    assert torch.allclose(found.values[0].sum((1, 2)), case["sum_scores_by_layer"], atol=1e-3)
    assert torch.allclose(found.values[0].sum((0, 2)), case["sum_scores_by_position"], atol=1e-3)


def test_the_largest_are_the_references_as_a_set(found, case, smollm2):
    theirs = set(map(tuple, case["top2000.index"][:200].tolist()))
    kept = neurons(smollm2, case["tokens"][None], target=case["target"].tolist(), keep=200, quiet=True)
    for scores in (found, kept):
        top = scores.top(200)
        assert top.columns.tolist() == ["prompt", "layer", "position", "neuron", "activation", "score"]
        assert set(map(tuple, top[["layer", "position", "neuron"]].values.tolist())) == theirs


def test_scores_of_embeddings_are_the_references_and_sum_to_the_logit(found, case):
    largest = float(case["top2000.score"].abs().max())
    assert (found.embedding[0] - case["embed_scores"]).abs().max() < 2e-5 * largest
    assert float(found.embedding.sum()) == pytest.approx(float(case["logit"]), abs=1e-4)
    assert found.biases.empty  # this architecture has none
    assert found.conservation()["ratio"].tolist() == pytest.approx([1.0], abs=1e-5)


def test_the_published_code_does_not_hold_the_pattern(case, smollm2):
    # with the pattern's own gradient embeddings no longer sum to the logit: 24.7 for a logit of 9.2
    found = neurons(smollm2, case["tokens"][None], target=case["target"].tolist(), rules="relp", quiet=True)
    theirs = case["released.top2000.score"]
    assert (at(found.values, case["released.top2000.index"]) - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert (found.embedding[0] - case["released.embed_scores"]).abs().max() < 1e-4 * theirs.abs().max()

"""The real SmolLM2-135M against figures of the method authors' own implementation (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

import metrics
from attribution import attribute
from interp import ComputationalGraph, Task

pytestmark = pytest.mark.real

NAME = "eap_smollm2_ioi16"


@pytest.fixture(scope="module")
def reference(golden):
    """Tensors and metadata of the golden file."""
    return golden(NAME)


@pytest.fixture(scope="module")
def task(reference):
    """The 16 prompts of the golden file."""
    tensors, metadata = reference
    return Task.from_tokens(
        "ioi16",
        tensors["clean_tokens"],
        tensors["corrupted_tokens"],
        metadata["correct"],
        metadata["incorrect"],
    )


@pytest.mark.parametrize(
    ("key", "method", "settings"),
    [
        ("eap", "eap", {}),
        ("eap_ig_inputs_5", "eap-ig", {"steps": 5}),
        ("clean_corrupted", "clean-corrupted", {}),
    ],
)
def test_scores_are_the_references_to_a_ten_thousandth_of_the_largest(smollm2, reference, task, key, method, settings):
    expected = reference[0][key]
    scores = attribute(smollm2, task, method, quiet=True, **settings)
    assert scores.values.dtype == torch.float32
    assert scores.values.shape == expected.shape == (301, 841)
    assert (scores.values - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.fixture(scope="module")
def curve(smollm2, reference, task):
    """Our own selection from the reference's scores, and its evaluation."""
    return metrics.faithfulness_curve(smollm2, task, reference[0]["eap_ig_inputs_5"], quiet=True)


def test_objectives_of_all_ten_circuits_are_the_references_to_a_thousandth(curve, reference):
    tensors, metadata = reference
    assert list(curve.sizes) == metadata["sizes"]
    assert list(curve.edges) == [int(tensors[f"circuit_{size}_mask"].sum()) for size in curve.sizes]
    expected = torch.stack([tensors[f"circuit_{size}_objective"] for size in curve.sizes])
    assert (curve.values.circuits - expected).abs().max() < 1e-3
    assert (curve.values.clean - tensors["clean_objective"]).abs().max() < 1e-3
    assert (curve.values.empty - tensors["corrupted_objective"]).abs().max() < 1e-3


def test_areas_are_the_references(curve, reference):
    metadata = reference[1]
    assert list(curve.faithfulness) == pytest.approx(metadata["faithfulness"], abs=2e-4)
    assert curve.cpr == pytest.approx(metadata["cpr"], abs=2e-4)
    assert curve.cmd == pytest.approx(metadata["cmd"], abs=2e-4)
    assert (round(curve.cpr, 3), round(curve.cmd, 3)) == (0.961, 0.041)


def test_the_graph_is_the_references(smollm2, reference):
    assert ComputationalGraph.of(smollm2).edge_mask.equal(reference[0]["edge_mask"])

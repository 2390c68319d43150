"""The real SmolLM2-135M against figures of the method authors' own implementation (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

import metrics
from attribution import attribute
from interp import ComputationalGraph, Task
from interp.inspection import anatomy_of
from interp.kernels.ablation import Ablator
from interp.kernels.evaluate import circuit_values
from interp.objectives import get_objective
from interp.selection import LADDER_FRACTIONS, ladder, top_n

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


def test_objectives_of_all_ten_circuits_are_the_references_to_a_thousandth(smollm2, reference, task):
    tensors, metadata = reference
    sizes = metadata["sizes"]
    assert len(sizes) == 10
    masks = torch.stack([tensors[f"circuit_{size}_mask"] for size in sizes])
    expected = torch.stack([tensors[f"circuit_{size}_objective"] for size in sizes])
    anatomy, prompts = anatomy_of(smollm2), task.prompts(smollm2)
    graph = ComputationalGraph.of(smollm2)
    ablator = Ablator.of(anatomy, "patch", prompts)
    values = circuit_values(anatomy, graph, prompts, masks, ablator, get_objective("logit-difference"))
    assert (values.circuits - expected).abs().max() < 1e-3
    assert (values.clean - tensors["clean_objective"]).abs().max() < 1e-3
    assert (values.empty - tensors["corrupted_objective"]).abs().max() < 1e-3


def test_areas_are_the_references_by_our_own_selection_and_evaluation(smollm2, reference, task):
    tensors, metadata = reference
    graph = ComputationalGraph.of(smollm2)
    masks = torch.stack([top_n(tensors["eap_ig_inputs_5"], graph, size) for size in ladder(graph)])
    values = metrics.evaluate(smollm2, task, masks, quiet=True).mean(1)
    clean, corrupted = tensors["clean_objective"].mean(), tensors["corrupted_objective"].mean()
    faithfulness = ((values - corrupted) / (clean - corrupted)).tolist()
    assert faithfulness == pytest.approx(metadata["faithfulness"], abs=1e-3)
    assert float(metrics.cpr(LADDER_FRACTIONS, faithfulness)) == pytest.approx(metadata["cpr"], abs=5e-4)
    assert float(metrics.cmd(LADDER_FRACTIONS, faithfulness)) == pytest.approx(metadata["cmd"], abs=5e-4)


def test_the_graph_is_the_references(smollm2, reference):
    assert ComputationalGraph.of(smollm2).edge_mask.equal(reference[0]["edge_mask"])

"""Position-aware edge attribution patching across positions, by the authors' own code (tests/golden/README.md)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import attention_edges
from interp import Task, load_model

THEIR_PORTS = ("v", "k", "q")
AGGREGATIONS = {"mean": 0, "sum": 1, "absolute": 2}
PROMPTS = 4


@pytest.fixture(scope="module")
def peap(golden) -> tuple[Any, dict[str, Tensor]]:
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors, metadata = golden("peap_tiny")
    config = AutoConfig.for_model("gpt2", **metadata["config"])
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    missing = module.load_state_dict({k[3:]: v for k, v in tensors.items() if k.startswith("hf.")}, strict=False)
    assert missing.missing_keys == ["lm_head.weight"]
    assert not missing.unexpected_keys
    return load_model(module), tensors


def task_of(tensors: dict[str, Tensor], rows: list[int]) -> Task:
    answers = tensors["answer_ids"][rows]
    clean, corrupted = (tensors[f"{name}_tokens"][rows] for name in ("clean", "counterfactual"))
    return Task.from_tokens("peap", clean, corrupted, answers[:, :1].tolist(), answers[:, 1:].tolist())


def spans_of(tensors: dict[str, Tensor], rows: list[int]) -> dict[str, list[tuple[int, int]]]:
    bounds = tensors["span_bounds"][rows].tolist()
    return {f"s{i}": [(row[i], row[i + 1]) for row in bounds] for i in range(3)}


@pytest.mark.parametrize("pooled", AGGREGATIONS)
def test_finite_crossing_edges_are_the_authors(peap: tuple[Any, dict[str, Tensor]], pooled: str) -> None:
    model, tensors = peap
    index = tensors["crossing_index"].tolist()
    sign = 1 if pooled == "absolute" else -1
    for rows in ([0], [1], list(range(PROMPTS))):
        ours = attention_edges(model, task_of(tensors, rows), spans_of(tensors, rows), "peap", pooled=pooled)
        theirs = tensors["crossing_scores"][:, AGGREGATIONS[pooled], rows].mean(1)
        got = torch.stack(
            [
                ours.values[ours.ports.index(THEIR_PORTS[port]), layer, head, source, target]
                for layer, head, port, source, target in index
            ]
        )
        assert theirs.abs().max() > 0.1
        assert (got - sign * theirs).abs().max() < 2e-5
        assert len(ours.spans) == (3 if rows == [0] else 4)  # position 0 of some prompts lies in no span


def test_linear_and_finite_forms_agree_through_values_alone(peap: tuple[Any, dict[str, Tensor]]) -> None:
    model, tensors = peap
    rows = list(range(PROMPTS))
    linear, finite = (
        attention_edges(model, task_of(tensors, rows), spans_of(tensors, rows), form).values
        for form in ("linear", "peap")
    )
    assert torch.equal(linear[2], finite[2])
    assert (linear[:2] - finite[:2]).abs().max() > 1e-3

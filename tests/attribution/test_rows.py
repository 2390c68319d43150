"""Answers of several tokens, a row of tokens each: neurons, features and what crosses positions, row by row."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution import attention_edges, attribute, features, neurons
from circuits import find_circuit
from interp import Task
from interp.errors import InputError
from tests.dictionaries import random_dictionary
from tests.tiny import D_MODEL, LAYERS, shared

CORRECT, INCORRECT = [[[7, 8]], [[9]]], [[[3]], [[4, 5, 6]]]


@functools.cache
def task_of(side: str = "") -> Task:
    """Two prompts of unequal length with one answer a side, or with the answers of one side alone."""
    clean = torch.tensor([[10, 11, 12, 13, 14], [20, 21, 22, 23, 0]])
    corrupted = torch.tensor([[10, 31, 12, 33, 14], [20, 21, 42, 23, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    right, wrong = {"": (CORRECT, INCORRECT), "right": (CORRECT, None), "wrong": (INCORRECT, None)}[side]
    objective = "log-probability" if side else "logit-difference"
    return Task.from_tokens("rows", clean, corrupted, right, wrong, attention_mask=mask, objective=objective)


def by_hand(values: list[torch.Tensor]) -> torch.Tensor:
    """Right less wrong, prompt by prompt, as rows in the order that tasks have: an objective that adds up."""
    right, wrong = values
    width = max(right.shape[2], wrong.shape[2])
    rows = [side * one for pair in zip(right, wrong, strict=True) for side, one in zip((1, -1), pair, strict=True)]
    return torch.stack([torch.nn.functional.pad(one, (0, 0, 0, width - one.shape[1])) for one in rows])


@pytest.mark.parametrize("ablation", ["patch", "zero"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_rows_of_neurons_are_those_of_each_answer_alone(name: str, ablation: str) -> None:
    model, told = shared(name), {"method": "eap", "ablation": ablation, "quiet": True}
    found = neurons(model, task_of(), **told)
    alone = [neurons(model, task_of(side), **told) for side in ("right", "wrong")]
    torch.testing.assert_close(found.values, by_hand([one.values for one in alone]), rtol=1e-10, atol=1e-13)
    assert found.values.abs().max() > 1e-3
    assert [len(row) for row in found.tokens] == [6, 5, 4, 6]
    assert found.target_tokens[3].startswith("logit-difference, '")
    assert found.explained[0] == found.explained[1] != found.explained[2] == found.explained[3]
    # summed over rows and neurons, an MLP's score
    whole = attribute(model, task_of(), "eap", level="node", ablation=ablation, quiet=True)
    mlps = [whole.graph.mlp_source(layer) for layer in range(LAYERS)]
    biases = found.biases.groupby("layer")["score"].sum().reindex(range(LAYERS), fill_value=0.0)
    summed = found.values.sum((0, 2, 3)) + torch.tensor(biases.to_numpy())
    torch.testing.assert_close(summed / 2, whole.values[mlps], rtol=1e-10, atol=1e-13)
    batched = neurons(model, task_of(), batch_size=1, summed="prompt", **told)
    torch.testing.assert_close(batched.values, found.values.sum(0), rtol=1e-10, atol=1e-13)


def test_rows_of_features_are_those_of_each_answer_alone() -> None:
    model, one = shared("llama"), random_dictionary("mlp", D_MODEL)
    told = {"steps": 2, "quiet": True}
    found = features(model, task_of(), one, **told)
    alone = [features(model, task_of(side), one, **told) for side in ("right", "wrong")]
    torch.testing.assert_close(found.values, by_hand([one.values for one in alone]), rtol=1e-10, atol=1e-13)
    assert found.values.abs().max() > 1e-3
    torch.testing.assert_close(
        found.errors[..., None], by_hand([one.errors[..., None] for one in alone]), rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("form", ["linear", "peap"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_what_crosses_positions_is_summed_over_rows(name: str, form: str) -> None:
    model = shared(name)
    found = attention_edges(model, task_of(), form=form, quiet=True)
    assert found.spans == ["1", "2", "3", "4", "5", "rest"]
    right, wrong = (attention_edges(model, task_of(s), [1, 2, 3, 4, 5], form, quiet=True) for s in ("right", "wrong"))
    assert right.spans == found.spans
    torch.testing.assert_close(found.values, right.values - wrong.values, rtol=1e-10, atol=1e-13)


def test_edges_between_spans_of_a_prompt_are_those_of_all_its_rows() -> None:
    model = shared("llama")
    named = attention_edges(model, task_of(), {"end": -1, "second": (1, 3)}, batch_size=1, quiet=True)
    assert named.spans == ["end", "second", "rest"]
    each = attention_edges(model, task_of(), quiet=True)
    assert float(named.values.sum()) == pytest.approx(float(each.values.sum()), abs=1e-12)


def test_circuits_of_neurons_are_found_by_gradients_over_rows() -> None:
    clean = torch.randint(2, 50, (4, 5), generator=torch.Generator().manual_seed(0))
    task = Task.from_tokens("four", clean, clean.roll(1, 0), 2 * CORRECT, 2 * INCORRECT)
    told = {"method": "eap", "quiet": True}
    circuit = find_circuit(shared("llama"), task, level="neuron", nodes=5, **told)
    by_row = neurons(shared("llama"), task.split(0.5, 0)[0], **told).values
    assert circuit.n_nodes == 5
    torch.testing.assert_close(circuit.scores.values, by_row.sum((0, 2)) / 2, rtol=1e-10, atol=1e-13)


def test_patching_one_neuron_at_a_time_wants_one_row() -> None:
    with pytest.raises(InputError, match="scores of patched neurons are told by prompt and position"):
        neurons(shared("llama"), task_of(), method="exact", only=[(0, 1)])

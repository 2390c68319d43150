"""Agreement of whole output distributions, and faithfulness prompt by prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attribution import attribute
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.answers import answer_logits
from interp.setting import Setting
from interp.tasks.task import Task
from metrics import PromptFaithfulness, evaluate, measure, output_agreement, prompt_faithfulness
from tests.tiny import behaving, shared


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("gpt2")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return behaving(model, 12)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of(model)


@pytest.fixture(scope="module")
def circuit(model: Any, task: Task) -> torch.Tensor:
    return attribute(model, task, "eap", quiet=True).mask(80, selection="greedy")


def test_several_objectives_are_those_of_one_at_a_time(model: Any, task: Task, circuit: torch.Tensor) -> None:
    names = (None, "kl", "accuracy")
    for name, values in zip(names, Setting(model, task).measure_all(circuit[None], names), strict=True):
        alone = measure(model, task, circuit[None], objective=name, quiet=True)
        for part in ("clean", "empty", "circuits"):
            torch.testing.assert_close(getattr(values, part), getattr(alone, part))


def test_empty_circuit_has_the_kl_and_top_tokens_of_the_corrupted_prompts(
    model: Any, task: Task, circuit: torch.Tensor
) -> None:
    found = output_agreement(model, task, circuit, quiet=True)
    prompts = task.prompts(model)
    clean, corrupted = (answer_logits(model, one) for one in (prompts, prompts.turned()))
    p, q = clean.softmax(1), corrupted.softmax(1)
    assert found.kl_empty.value == pytest.approx(float((p * (p / q).log()).sum(1).mean()))
    assert found.same_empty.value == pytest.approx(float((clean.argmax(1) == corrupted.argmax(1)).float().mean()))
    assert found.kl_values == pytest.approx(-evaluate(model, task, circuit, objective="kl", quiet=True).numpy())
    assert 0 < found.kl.value < found.kl_empty.value
    assert found.kl.low <= found.kl.value <= found.kl.high


def test_the_whole_model_agrees_with_itself(model: Any, task: Task, graph: ComputationalGraph) -> None:
    found = output_agreement(model, task, graph.edge_mask, n_random=0, quiet=True)
    assert found.kl.value == pytest.approx(0, abs=1e-9)
    assert found.same.value == 1
    assert found.kl_random is None
    assert found.to_frame()["of"].tolist() == ["circuit", "empty"]
    assert "equal top tokens" in repr(found)
    assert "<table" in found._repr_html_()
    with pytest.raises(InputError, match="n_random=-1"):
        output_agreement(model, task, graph.edge_mask, n_random=-1, quiet=True)


def test_a_mean_of_one_made_of_zero_and_two_is_seen() -> None:
    found = PromptFaithfulness.of(np.ones(40), np.zeros(40), np.tile([0.0, 2.0], 20))
    assert found.mean.value == 1
    assert found.within.value == 0
    assert found.spread == 1
    assert (found.quantiles[0.25].value, found.quantiles[0.75].value) == (0, 2)
    even = PromptFaithfulness.of(np.ones(40), np.zeros(40), np.tile([0.9, 1.1], 20))
    assert even.mean.value == pytest.approx(1)
    assert even.within.value == 1
    # Wilson: the lower end is n / (n + z^2) where all agree, 40 / 43.84
    assert "100% [91%, 100%] within 20% of the model" in str(even)


def test_prompts_without_a_gap_of_their_own_are_left_out_and_counted() -> None:
    found = PromptFaithfulness.of([4.0, 0.1, 2.0], [0.0, 0.0, 0.0], [4.0, 5.0, 1.0])
    assert found.left_out == 1
    assert found.values[[0, 2]].tolist() == [1.0, 0.5]
    assert np.isnan(found.values[1])
    assert found.to_frame()["prompt"].tolist() == [2, 0, 1]
    assert "1 without a gap left out" in repr(found)
    nothing = PromptFaithfulness.of([1.0, 1.0], [1.0, 1.0], [0.0, 2.0])
    assert nothing.left_out == 2
    assert np.isnan(nothing.within.value)


def test_values_are_those_of_evaluate(model: Any, task: Task, graph: ComputationalGraph, circuit: torch.Tensor) -> None:
    masks = torch.stack((graph.edge_mask, torch.zeros_like(circuit), circuit))
    clean, empty, alone = evaluate(model, task, masks, quiet=True).numpy()
    found = prompt_faithfulness(model, task, circuit, quiet=True)
    usable = np.isfinite(found.values)
    assert found.values[usable] == pytest.approx(((alone - empty) / (clean - empty))[usable])
    assert found.mean.value == pytest.approx((alone.mean() - empty.mean()) / (clean.mean() - empty.mean()))
    assert found.summary()["q50"] == pytest.approx(np.median(found.values[usable]))
    assert found.quantiles[0.5].low <= found.quantiles[0.5].value <= found.quantiles[0.5].high
    assert len(found.figure().data[-1].x) == usable.sum()
    assert "PromptFaithfulness" in found._repr_html_()


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        (([1.0], [0.0], [1.0, 2.0]), {}, "must hold one value a prompt"),
        (([], [], []), {}, "must hold one value a prompt"),
        (([1.0], [0.0], [1.0]), {"margin": 0.0}, "margin=0.0 must be a number above 0"),
    ],
)
def test_bad_arrays_are_refused(arrays: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptFaithfulness.of(*arrays, **settings)

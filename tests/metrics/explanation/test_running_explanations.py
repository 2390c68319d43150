"""Metrics of explanations: a model's training mode and torch's inference mode change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metrics
from interp.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(12, 6, generator=GENERATOR)
LABELS = torch.arange(12) % 3


def network() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3), nn.Softmax(-1)).eval()


def salience(model: Any, inputs: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    inputs = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs).gather(1, labels[:, None]).sum(), inputs)
    return (gradient * inputs).detach()


SALIENCE = salience(network(), INPUTS, LABELS)


def train(sets: Any, validation: Any, seed: int) -> Any:
    model = network()
    steps = torch.optim.SGD(model.parameters(), 0.1)
    nn.functional.nll_loss(model(sets[0]).log(), sets[1]).backward()
    steps.step()
    return model


def finetuned(model: Any) -> Any:
    ids = torch.arange(48).view(12, 4) % 7

    def forward(ids: Tensor, attention: Tensor) -> Tensor:
        return model(nn.functional.one_hot(ids, 9)[..., :6].float().mean(1))

    return metrics.masked_finetune(
        model, (ids, LABELS), (ids, LABELS), mask_id=8, forward=forward, epochs=1, quiet=True
    )


METRICS: dict[str, Callable[[Any], Any]] = {
    "curves": lambda model: metrics.removal_curves(
        model, INPUTS, SALIENCE, fractions=3, baseline="zero", quiet=True
    ),
    "sensitivity": lambda model: metrics.sensitivity(
        model, INPUTS, lambda x, y: salience(model, x, y), draws=3, quiet=True
    ),
    "randomisation": lambda model: metrics.randomisation(
        model, INPUTS, salience, target=LABELS, draws=1, mode="cascading", quiet=True
    ),
    "comparison": lambda model: metrics.compare_explanations(
        model, INPUTS, {"gradient": lambda x, y: salience(model, x, y)}, settings={"saco": {"groups": 2}}, quiet=True
    ),
    "without retraining": lambda model: metrics.erasure_curve(
        model, (INPUTS, LABELS), salience, mask="mean", ratios=[0.5], n_random=1, quiet=True
    ),
    "retraining": lambda model: metrics.recursive_roar(
        train, dict.fromkeys(("train", "validation", "test"), (INPUTS, LABELS)), salience,
        ratios=[0.5], seeds=[0, 1], quiet=True,
    ),
    "fine-tuning": finetuned,
}  # fmt: skip
TRAIN = ("retraining", "fine-tuning")  # in a mode of their own


def numbers_of(name: str, model: Any) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        table = METRICS[name](model)
    return torch.tensor(table.to_frame().select_dtypes("number").to_numpy(float))


@pytest.mark.parametrize("name", METRICS)
def test_inference_mode_changes_nothing(name: str) -> None:
    right = numbers_of(name, network())
    model = network()
    with torch.inference_mode():
        found = numbers_of(name, model)
    torch.testing.assert_close(found, right, equal_nan=True)


def test_a_model_made_in_inference_mode_is_not_trained() -> None:
    with torch.inference_mode():
        model = network()
    with pytest.raises(InputError, match=r"made inside torch\.inference_mode"):
        finetuned(model)


@pytest.mark.parametrize("part", [False, True], ids=["all", "a part"])
@pytest.mark.parametrize("name", [name for name in METRICS if name not in TRAIN])
def test_training_mode_changes_nothing_and_stays(name: str, part: bool) -> None:
    model = network()
    right = numbers_of(name, model)
    (model[2] if part else model).train()
    modes = [one.training for one in model.modules()]
    torch.testing.assert_close(numbers_of(name, model), right, equal_nan=True)
    assert [one.training for one in model.modules()] == modes

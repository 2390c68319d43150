"""Objectives against values worked out by hand, their gradients, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import attribute
from interp.errors import InputError
from interp.objectives import Objective, get_objective, names
from interp.setting import Setting
from interp.tasks.prompts import Prompts
from tests.tiny import tiny, tiny_task

DIFFERENTIABLE = ["logit-difference", "probability-difference", "log-probability", "kl"]


def prompts(correct: list[list[int]], incorrect: list[list[int]]) -> Prompts:
    n = len(correct)
    return Prompts.from_lists([[1, 2]] * n, [[1, 3]] * n, correct, incorrect)


# softmax of the first row: 1/8, 2/8, 4/8, 1/8; of the second: 1/4 each
LOGITS = torch.tensor([[0.0, math.log(2), math.log(4), 0.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
PROMPTS = prompts([[1, 2], [0]], [[0], [1, 3]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("logit-difference", [(math.log(2) + math.log(4)) / 2, 0.0]),
        ("probability-difference", [6 / 8 - 1 / 8, 1 / 4 - 2 / 4]),
        ("log-probability", [math.log(6 / 8), math.log(1 / 4)]),
        ("accuracy", [1.0, 0.0]),
    ],
)
def test_values_worked_out_by_hand(name: str, expected: list[float]) -> None:
    values = get_objective(name)(LOGITS, PROMPTS)
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_kl_is_minus_the_sum_over_the_vocabulary() -> None:
    clean = torch.tensor([[0.0, math.log(2), math.log(4), 0.0]], dtype=torch.float64)
    run = torch.zeros(1, 4, dtype=torch.float64)
    expected = -sum(p * math.log(p / 0.25) for p in (1 / 8, 2 / 8, 4 / 8, 1 / 8))
    value = get_objective("kl")(run, prompts([[0]], [[]]), clean)
    torch.testing.assert_close(value, torch.tensor([expected], dtype=torch.float64))
    assert value < 0


def test_kl_is_zero_and_flat_at_the_clean_run() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    value = get_objective("kl")(logits, PROMPTS, logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.abs().max() < 1e-15
    assert gradient.abs().max() < 1e-15
    assert get_objective("kl").flat_at_clean


def test_kl_ignores_tokens_that_are_ruled_out() -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf, 0.0]], dtype=torch.float64, requires_grad=True)
    value = get_objective("kl")(logits, prompts([[0]], [[]]), torch.tensor([[1.0, 1.0, -math.inf, 0.0]]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_equal_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    clean = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    objective = get_objective(name)
    assert objective.differentiable
    assert torch.autograd.gradcheck(lambda x: objective(x, PROMPTS, clean), (logits,))


def test_only_kl_is_flat_and_only_accuracy_has_no_gradient() -> None:
    assert [name for name in names() if get_objective(name).flat_at_clean] == ["kl"]
    assert [name for name in names() if not get_objective(name).differentiable] == ["accuracy"]
    assert [name for name in names() if get_objective(name).needs_clean] == ["kl"]


@pytest.mark.parametrize("name", ["probability-difference", "log-probability", "accuracy"])
def test_incorrect_ids_may_be_missing(name: str) -> None:
    expected = {
        "probability-difference": [1 / 2, 1 / 4],
        "log-probability": [math.log(1 / 2), math.log(1 / 4)],
        # without incorrect ids: is the best of all tokens among the correct ones?
        "accuracy": [1.0, 1.0],
    }
    values = get_objective(name)(LOGITS, prompts([[2], [0]], [[], []]))
    torch.testing.assert_close(values, torch.tensor(expected[name], dtype=torch.float64))


def test_accuracy_where_only_some_prompts_have_incorrect_ids() -> None:
    logits = torch.tensor([[3.0, 2.0, 9.0], [3.0, 2.0, 9.0], [3.0, 2.0, 9.0]])
    values = get_objective("accuracy")(logits, prompts([[0], [0], [2]], [[1], [], []]))
    assert values.tolist() == [1.0, 0.0, 1.0]


def test_half_precision_is_computed_in_float32() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        values = get_objective("log-probability")(LOGITS.to(dtype), PROMPTS)
        assert values.dtype == torch.float32


def test_a_function_is_wrapped() -> None:
    def first_logit(logits: torch.Tensor, prompts: Prompts, clean: torch.Tensor | None) -> torch.Tensor:
        return logits[:, 0]

    objective = get_objective(first_logit)
    assert (objective.name, str(objective), objective.needs_clean) == ("first_logit", "first_logit", True)
    assert objective(LOGITS, PROMPTS, LOGITS).tolist() == [0.0, 5.0]
    assert get_objective(objective) is objective


def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'logit-difference'"):
        get_objective("logit-diff")
    with pytest.raises(InputError, match="objective=7 is unknown"):
        get_objective(7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shape \[3, 4\]; the objective 'accuracy' needs \[n, vocab\] with n=2"):
        get_objective("accuracy")(torch.zeros(3, 4), PROMPTS)
    with pytest.raises(InputError, match="pass clean_logits"):
        get_objective("kl")(LOGITS, PROMPTS)
    with pytest.raises(InputError, match=r"clean_logits has the shape \[1, 4\]"):
        get_objective("kl")(LOGITS, PROMPTS, LOGITS[:1])
    mean = Objective("mean", lambda logits, prompts, clean: logits.mean())
    with pytest.raises(InputError, match=r"'mean' returned \[\]; it must return a tensor of shape \[2\]"):
        mean(LOGITS, PROMPTS)
    number = Objective("number", lambda logits, prompts, clean: 1.0)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="'number' returned float"):
        number(LOGITS, PROMPTS)


def test_a_function_that_writes_into_what_it_gets_leaves_the_others_alone() -> None:
    def first(logits: Tensor, prompts: Prompts, clean: Tensor | None) -> Tensor:
        assert clean is not None
        found = logits[:, 0].clone()
        for tensor in (logits, clean, prompts.correct, prompts.lengths):
            tensor.zero_()
        return found

    model = tiny("llama")
    task = tiny_task(model, 4)
    masks = Setting(model, task).graph.edge_mask[None]
    own, *found = Setting(model, task).measure_all(masks, [first, "logit-difference", "kl"])
    expected = Setting(model, task).measure_all(masks, ["logit-difference", "kl"])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.circuits, other.circuits)
        torch.testing.assert_close(one.clean, other.clean)
    torch.testing.assert_close(own.circuits[0], own.clean)
    torch.testing.assert_close(
        attribute(model, task, "eap", objective=first, quiet=True).values,
        attribute(model, task, "eap", objective=lambda logits, prompts, clean: logits[:, 0], quiet=True).values,
    )


# ---- somebody's own, which would make figures depend on the batch


def less_the_mean(logits: Tensor, prompts: Prompts, clean: Tensor | None) -> Tensor:
    values = logits[:, 0]
    return values - values.mean()


def own_rows(logits: Tensor, prompts: Prompts, clean: Tensor | None) -> Tensor:
    return logits.log_softmax(1).gather(1, prompts.correct[:, :1])[:, 0]


def of_a_whole_batch(logits: Tensor, prompts: Prompts, clean: Tensor | None) -> Tensor:
    return logits[:, 0] @ torch.eye(4, dtype=logits.dtype)


@pytest.mark.parametrize("measure", [
    lambda model, task, own: attribute(model, task, "eap", objective=own, quiet=True),
    lambda model, task, own: attribute(model, task, "exact", objective=own, quiet=True, sample=5),
    lambda model, task, own: Setting(model, task, objective=own).measure(torch.zeros(0)),
])  # fmt: skip
def test_an_objective_that_mixes_prompts_is_refused(measure: Any) -> None:
    model = tiny("llama")
    task = tiny_task(model, 4)
    with pytest.raises(InputError, match=r"'less_the_mean' mixes prompts: it gives prompt 0 \S+ among 4, and 0 alone"):
        measure(model, task, less_the_mean)
    with pytest.raises(InputError, match="'of_a_whole_batch' cannot be computed for one prompt alone"):
        measure(model, task, of_a_whole_batch)
    measure(model, task, own_rows)


def test_it_is_asked_once() -> None:
    calls = []
    counted = Objective("counted", lambda logits, prompts, clean: (calls.append(len(prompts)), logits[:, 0])[1])
    for _ in range(3):
        counted(LOGITS, PROMPTS)
    assert calls == [2, 1, 1, 2, 2]


def test_complex_values_are_refused() -> None:
    unreal = Objective("unreal", lambda logits, prompts, clean: logits[:, 0] + 1j)
    with pytest.raises(InputError, match=r"'unreal' returned complex numbers of shape \[2\]; .* one real value"):
        unreal(LOGITS, PROMPTS)

"""Task.check: figures worked out by hand, and when it warns."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from interp.errors import InputError
from interp.tasks import Prompts, Task, TaskCheck
from interp.tasks.check import lower_bound
from tests.interp.tasks.test_tasks_support import model_of

MODEL = model_of(None, d_vocab=10)


def check(monkeypatch: pytest.MonkeyPatch, clean: list[float], corrupted: list[float], **settings: Any) -> TaskCheck:
    """A check whose model gives these logit differences; id 3 is correct, id 4 incorrect."""
    n = len(clean)
    task = Task.from_tokens("t", [[i, 1] for i in range(n)], [[i, 2] for i in range(n)], [3] * n, [4] * n, **settings)

    def answer_logits(model: Any, prompts: Prompts) -> torch.Tensor:
        assert model is MODEL
        assert prompts.lengths.tolist() == [2] * n
        logits = torch.zeros(n, 10)
        logits[:, 3] = torch.tensor(clean if (prompts.clean[:, 1] == 1).all() else corrupted)
        return logits

    monkeypatch.setattr("interp.tasks.check.answer_logits", answer_logits)
    return task.check(MODEL)


def test_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = check(monkeypatch, [2.0, 3.0, 1.0, -1.0], [-2.0, -1.0, 0.5, -4.0])
    assert result.ok
    assert (result.n, result.objective) == (4, "logit-difference")
    assert (result.clean, result.corrupted) == (1.25, -1.625)
    assert (result.accuracy_clean, result.accuracy_corrupted) == (0.75, 0.25)
    assert result.n_higher_clean == 4
    # differences 4, 4, 0.5, 3: mean 2.875, deviation 1.6520, Student's 95 % point with 3 degrees of freedom 2.3534
    assert math.isclose(result.difference_low, 2.875 - 2.35336 * 1.65202 / 2, rel_tol=1e-4)


def test_a_model_that_answers_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="'t' shows no behaviour to explain in this model: only 50% of the clean"):
        result = check(monkeypatch, [2.0, 2.1, -0.1, -0.2], [-2.0, -2.0, -2.0, -2.0])
    assert not result.ok
    assert len(result.problems) == 1


def test_a_corruption_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"clean prompts \(2.000\) is not clearly above") as seen:
        result = check(monkeypatch, [1.0, 3.0, 2.0], [1.5, 2.0, 2.5])
    assert not result.ok
    assert seen[0].filename == __file__ or seen[0].filename.endswith("test_tasks_check.py")


def test_other_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    result = check(monkeypatch, [2.0, 2.1, 1.9], [-2.0, -2.1, -1.9], objective="kl")
    assert result.clean == pytest.approx(0)
    assert result.corrupted < -0.1
    assert result.ok


def test_a_single_prompt_is_judged_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, [2.0], [1.0]).ok
    with pytest.warns(UserWarning, match="not clearly above"):
        assert not check(monkeypatch, [1.0], [2.0]).ok


def test_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="the objective 'logit-difference' of the corrupted prompt 1 is nan"):
        check(monkeypatch, [1.0, 2.0], [0.0, math.nan])


def test_reprs(monkeypatch: pytest.MonkeyPatch) -> None:
    result = check(monkeypatch, [2.0, 3.0], [-2.0, -1.5])
    assert "clean 2.500, corrupted -1.750" in repr(result)
    assert "2 of 2 prompts" in repr(result)
    assert "<td>clean 100%, corrupted 0%</td>" in result._repr_html_()


def test_lower_bound_without_spread() -> None:
    assert lower_bound(torch.tensor([2.0, 2.0, 2.0])) == 2.0
    assert lower_bound(torch.tensor([2.0])) == 2.0

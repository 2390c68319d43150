"""Every task on SmolLM2-135M: a tokenizer that splits digits, and a model that does all tasks but one."""

from __future__ import annotations

from typing import Any

import pytest

from interp import tasks
from interp.errors import InputError
from interp.kernels.answers import answer_logits
from interp.objectives import get_objective
from interp.tasks import Task
from interp.tasks.encoding import Encoder

pytestmark = pytest.mark.real

DONE = [name for name in tasks.names() if name != "multiple_choice"]


@pytest.fixture
def model(smollm2: Any) -> Any:
    return smollm2


@pytest.mark.parametrize("name", tasks.names())
def test_prompts_suit_the_tokenizer(name: str, model: Any) -> None:
    task = tasks.get(name, n=64, model=model)
    prompts = task.prompts(model)
    assert len(prompts) == 64
    assert (prompts.clean[:, 0] == model.tokenizer.bos_token_id).all()
    assert (prompts.clean[:, 1] != model.tokenizer.bos_token_id).all()
    differing = (prompts.clean != prompts.corrupted).sum(1)
    allowed = {"ioi": 1, "greater_than": 1, "agreement": 1, "pronoun": 1, "induction": 1, "arithmetic": 1}
    assert (differing <= allowed.get(name, 4)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", DONE)
def test_the_model_does_the_task(name: str, model: Any) -> None:
    check = tasks.get(name, n=16, model=model).check(model)
    assert check.ok
    assert check.accuracy_clean >= 0.8
    assert check.accuracy_corrupted <= 0.2
    assert check.n_higher_clean >= 14


@pytest.mark.slow
def test_the_model_does_not_do_multiple_choice(model: Any) -> None:
    with pytest.warns(UserWarning, match="no behaviour to explain"):
        tasks.multiple_choice(n=16, model=model).check(model)


def test_years_and_sums_are_worded_for_digits(model: Any) -> None:
    assert tasks.greater_than(n=4, model=model).parameters == {"pieces": [1, 1, 1, 1]}
    assert str(tasks.arithmetic(n=1, model=model).examples[0].clean).endswith("= ")


def test_a_chat_is_answered_behind_what_the_template_makes(model: Any) -> None:
    asked = [[{"role": "user", "content": f"What is the capital of {name}? One word."}] for name in ("France", "Italy")]
    task = Task.from_pairs("chat", [(*asked, "Paris", "Rome")])
    clean = task.shown(model)["clean"][0]
    assert clean.count("<|im_start|>") == 3
    assert "".join(clean).endswith("One word.<|im_end|>\n<|im_start|>assistant\n")
    check = task.check(model)
    assert check.ok
    assert (check.accuracy_clean, check.accuracy_corrupted) == (1, 0)


def test_answers_of_several_tokens(model: Any) -> None:
    spaced = Task.from_pairs("t", [("3 + 4 =", "3 + 5 =", " 7", " 8")]).prompts(model)
    assert spaced.answers is not None
    assert spaced.answers.tokens.shape == (2, 2)
    with pytest.raises(InputError, match="'7' is one, if the space goes to the end of the prompts"):
        Encoder(model).single(" 7", 0, "target")


def test_the_model_completes_facts_and_takes_no_notice_of_not(model: Any) -> None:
    def right(*kinds: str) -> float:
        task = tasks.truth(16, model=model, kinds=kinds)
        prompts = task.prompts(model)
        return float(get_objective("accuracy")(answer_logits(model, prompts), prompts).mean())

    assert right("capitals", "opposites") > 0.9
    assert right("negations") < 0.2

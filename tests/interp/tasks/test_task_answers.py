"""What tasks make of answers of several tokens, unequal lengths, messages and texts, before any model runs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import torch

from interp import Task
from interp.errors import InputError
from interp.tasks.notes import notes
from interp.tasks.resampled import resampled
from tests.interp.tasks.test_tasks_support import BOS, every_word, model_of

CITIES = (
    ("The Tower is in", "The Apple is called", " Paris", " New York City"),
    ("A bridge is in", "A tower is in the", [" New York", " Rome"], " San Jose"),
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }} says {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant says{% endif %}"
)
CHAT = [{"role": "user", "content": "The Tower is in"}]


@pytest.fixture(scope="module")
def model() -> Any:
    texts = [text for row in CITIES for part in row for text in ([part] if isinstance(part, str) else part)]
    tokens = every_word(*texts, "system says user assistant London the")
    tokens.chat_template = TEMPLATE
    return model_of(tokens)


def test_every_answer_stands_behind_its_prompt(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        task = Task.from_pairs("cities", CITIES)
        shown = task.shown(model)
    assert shown.columns.tolist() == ["prompt", "answer", "clean", "corrupted", "positions", "predicted"]
    assert shown["prompt"].tolist() == [0, 0, 1, 1, 1]
    assert shown["answer"].tolist() == ["correct", "incorrect", "correct", "correct", "incorrect"]
    assert shown["clean"][1] == [BOS, "The", " Tower", " is", " in", " New", " York"]
    assert shown["corrupted"][1] == [BOS, "The", " Apple", " is", " called", " New", " York"]
    assert shown["positions"][1] == [4, 5, 6]
    assert shown["predicted"].tolist() == [
        [" Paris"], [" New", " York", " City"], [" New", " York"], [" Rome"], [" San", " Jose"],
    ]  # fmt: skip
    assert shown["corrupted"][3] == [BOS, "A", " tower", " is", " in", " the"]
    told = notes(task.prompts(model))
    assert [note.partition(":")[0] for note in told] == [
        "1 to 3 tokens are scored in each row (teacher-forced)",
        "answers to one prompt differ in their number of tokens, and longer ones have lower sums",
        "1 of 2 corrupted prompts are of another length than the clean one, by up to 1 token",
    ]
    assert [record.message for record in caplog.records] == [f"task cities: {note}" for note in told]


def test_prompts_of_answers_of_one_token_are_what_they_were(model: Any) -> None:
    task = Task.from_pairs("t", [("The Tower is in", "The Apple is in", " Paris", " Rome")])
    prompts = task.prompts(model)
    assert (prompts.answers, prompts.corrupted_lengths, prompts.n_rows, notes(prompts)) == (None, None, 1, ())
    assert task.shown(model)["predicted"].tolist() == [[" Paris"], [" Rome"]]
    assert prompts.answer.tolist() == prompts.correct.tolist()


def test_what_is_selected_keeps_its_rows(model: Any) -> None:
    task = Task.from_pairs("t", [*CITIES, ("The Tower is in", "A Tower is in", [" Paris", " Rome"], " London")])
    prompts = task.prompts(model)
    assert prompts.answers is not None
    assert prompts.answers.tokens.shape == (8, 3)
    some = (prompts.select([2]), prompts.select(torch.tensor([False, False, True])))
    for made in (task.select([2]).prompts(model), *some):
        assert made.answers is not None
        assert made.answers.correct.tolist() == [True, True, False]
        assert made.clean.shape == (3, 5)
        assert made.reads.position.tolist() == [4, 4, 4]
    turned = prompts.select([1, 0])
    assert turned.answers is not None
    assert turned.answers.prompt.tolist() == [0, 0, 0, 1, 1]
    assert len(turned) == 2
    assert repr(turned) == "Prompts(n=2, rows=5, tokens=5-7, device=cpu)"


def test_corrupted_prompts_in_the_place_of_the_clean_ones(model: Any) -> None:
    turned = Task.from_pairs("t", CITIES).prompts(model).turned()
    assert turned.answers is not None
    assert turned.reads.position.tolist() == [4, 4, 5, 6, 5, 6, 5, 5, 6]
    assert turned.first_difference.tolist() == [2, 2, 1, 1, 1]
    until = turned.until_answer()
    assert until.lengths.tolist() == [5, 6]
    assert until.corrupted_lengths is not None
    assert until.corrupted_lengths.tolist() == [5, 5]
    kept = turned.copy()
    assert turned.answers.tokens is not kept.answers.tokens  # type: ignore[union-attr]
    turned.answers.tokens[0, 0] = 3
    assert turned.restore(kept)
    assert torch.equal(turned.answers.tokens, kept.answers.tokens)  # type: ignore[union-attr]


def test_answers_of_several_token_ids() -> None:
    bare = model_of(None, d_vocab=20)
    task = Task.from_tokens("t", [[1, 2], [3, 4]], [[1, 5], [3, 5]], [[[6, 7]], [8]], [[[6, 9], 10], [[11, 12, 13]]])
    prompts = task.prompts(bare)
    assert prompts.answers is not None
    assert prompts.answers.tokens.tolist() == [[6, 7, -1], [6, 9, -1], [10, -1, -1], [8, -1, -1], [11, 12, 13]]
    assert prompts.correct.tolist() == [[6], [8]]
    assert prompts.until_answer().incorrect.tolist() == [[-1, 10], [11, -1]]
    with pytest.raises(
        InputError, match=r"prompt 0 has the answer \(6, 7\) among the correct and among the incorrect ones"
    ):
        Task.from_pairs("t", [([1], [2], [(6, 7)], [[7, 8], (6, 7)])]).prompts(bare)


def test_tables_hold_what_tasks_hold(model: Any) -> None:
    tasks = (
        Task.from_pairs(
            "t", [*CITIES, (CHAT, "The Apple", " Paris", " San Jose"), ([1, 2], [1, 3, 4], [[5, 6]], [7, [8, 9]])]
        ),
        Task.from_pairs("t", [("The Tower", None, " Paris", " Rome")]),
        Task.from_texts("t", ["The Tower is in Paris", "A bridge is in Rome"], positions=slice(1, None)),
    )
    for task in tasks:
        again = Task.from_frame(task.to_frame(), "t", objective=task.objective)
        assert again.examples == task.examples
        assert again.to_dict()["sha256"] == task.to_dict()["sha256"]
        assert json.loads(json.dumps([example.record() for example in task.examples]))


def test_messages_become_what_the_template_makes_of_them(model: Any) -> None:
    other = [{"role": "user", "content": "The Apple is in"}]
    task = Task.from_pairs("chat", [(CHAT, other, " Paris", " New York City")])
    shown = task.shown(model)
    assert shown["clean"][0] == [BOS, "user", " says", " The", " Tower", " is", " in", "\n", "assistant", " says"]
    assert shown["positions"].tolist() == [[9], [9, 10, 11]]
    assert task.prompts(model).first_difference.tolist() == [4, 4]
    goes_on = Task.from_pairs("chat", [([*CHAT, {"role": "assistant", "content": "Paris is"}], CHAT, " the", " in")])
    assert goes_on.shown(model)["clean"][0][-3:] == [" says", " Paris", " is"]
    system = Task.from_pairs("chat", [([{"role": "system", "content": "A"}, *CHAT], CHAT, " the", " in")])
    assert system.shown(model)["clean"][0][:3] == [BOS, "system", " says"]


def test_messages_that_cannot_be_read_are_refused(model: Any) -> None:
    with pytest.raises(InputError, match=r"clean of prompt 0 holds the message .*'content'"):
        Task.from_pairs("chat", [([{"role": "user"}], "b", " c", " d")])
    task = Task.from_pairs("chat", [(CHAT, "The Apple", " Paris", " Rome")])
    with pytest.raises(InputError, match="the prompts are messages, and the model has no tokenizer"):
        task.prompts(model_of(None, d_vocab=9))
    with pytest.raises(InputError, match="the model's tokenizer has no chat template"):
        task.prompts(model_of(every_word("The Tower is in Paris")))
    with pytest.raises(InputError, match="correct of prompt 0 is the int 7 beside a string prompt"):
        Task.from_pairs("chat", [(CHAT, "The Apple", 7, " Rome")])


def test_texts(model: Any) -> None:
    task = Task.from_texts("t", ["The Tower is in Paris", ("A bridge is in", " New York")])
    assert task.objective == "log-probability-per-token"
    shown = task.shown(model)
    assert shown["predicted"].tolist() == [["The", " Tower", " is", " in", " Paris"], [" New", " York"]]
    assert shown["corrupted"].tolist() == [None, None]
    assert notes(task.prompts(model))[-1].startswith("there are no corrupted prompts")
    at = Task.from_texts("t", ["The Tower is in Paris"], ["A Tower is in Rome"], positions=-3)
    assert at.shown(model)["predicted"].tolist() == [[" in"]]
    with pytest.raises(InputError, match="corrupted has 1 entries for 2 texts"):
        Task.from_texts("t", ["a", "b"], ["c"])
    with pytest.raises(InputError, match=r"positions=2 with text 0 as \(context, continuation\)"):
        Task.from_texts("t", [("a", "b")], positions=2)
    with pytest.raises(
        InputError, match=r"positions=1\.5; it must be one position, a slice without a step, the name of"
    ):
        Task.from_texts("t", ["a"], positions=1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="texts is a str"):
        Task.from_texts("t", "The Tower")
    with pytest.raises(InputError, match="contrasts correct with incorrect answers"):
        Task.from_texts("t", ["a b"], objective="logit-difference")


def test_texts_are_read_at_a_span(model: Any) -> None:
    texts = ["The Tower is in Paris", "A bridge is in New York"]
    task = Task.from_texts("t", texts, positions="what", spans=r"\w+ (?P<what>\w+ is)")
    assert task.shown(model)["predicted"].tolist() == [[" is", " in"], [" is", " in"]]
    again = Task.from_frame(task.to_frame(), objective=task.objective)
    assert again.examples == task.examples
    moved = Task.from_texts("t", texts, positions="what", spans=r"\w+ \w+ (?P<what>is)")
    assert moved.to_dict()["sha256"] != task.to_dict()["sha256"] == again.to_dict()["sha256"]
    with pytest.raises(InputError, match="positions='where' is no span of text 0, whose spans are 'what'"):
        Task.from_texts("t", texts, positions="where", spans=r"(?P<what>is)").prompts(model)


def test_corrupted_prompts_are_exchanged_with_their_answers_kept(model: Any) -> None:
    task = Task.from_pairs("t", [*CITIES, ("The bridge is in", "The bridge is called", " San Jose", " Paris")])
    other = resampled(task, model)
    assert sorted(map(str, (one.corrupted for one in other.examples))) == sorted(
        str(tuple(row[:n])) for row, n in _corrupted(task.prompts(model))
    )
    before, after = task.prompts(model), other.prompts(model)
    assert before.answers is not None
    assert after.answers is not None
    assert torch.equal(before.answers.tokens, after.answers.tokens)
    with pytest.raises(InputError, match="has no corrupted prompts to exchange"):
        resampled(Task.from_texts("t", ["The Tower is in"]), model)


def _corrupted(prompts: Any) -> list[tuple[list[int], int]]:
    """Of each prompt the corrupted tokens in front of its first answer."""
    rows = prompts.answers.first
    lengths = prompts.answers.positions[rows, 0] + 1 + (prompts.corrupted_lengths - prompts.lengths)[rows]
    return list(zip(prompts.corrupted[rows].tolist(), lengths.tolist(), strict=True))

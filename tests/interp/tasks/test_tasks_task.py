"""Task: construction from what users have, copies, provenance."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.errors import InputError
from interp.objectives import get_objective
from interp.tasks import Task
from interp.tasks.prompts import Prompts
from tests.interp.tasks.test_tasks_support import every_word, model_of

PAIRS = [
    ("the keys of it", "the key of it", [" are", " were"], [" is", " was"]),
    ("the cat", "the cats", " is", " are"),
    ("a dog runs now", "a fish runs now", " he", " it"),
]


def numbered(n: int) -> Task:
    return Task.from_tokens("n", [[i, 1] for i in range(n)], [[i, 2] for i in range(n)], [[3]] * n, [[4]] * n)


def firsts(task: Task) -> list[int]:
    return [int(example.clean[0]) for example in task.examples]


def test_pairs_take_one_answer_or_several() -> None:
    task = Task.from_pairs("mine", PAIRS, description="d")
    assert len(task) == 3
    assert task.examples[0].correct == (" are", " were")
    assert task.examples[1].incorrect == (" are",)
    assert (task.objective, task.seed, task.dropped) == ("logit-difference", None, 0)


def test_tokens_without_masks() -> None:
    task = Task.from_tokens("t", torch.tensor([[1, 2], [3, 4]]), np.array([[1, 5], [6, 4]]), [[7], [8, 9]], [[9], [7]])
    prompts = task.prompts(model_of(None, d_vocab=10))
    assert prompts.clean.tolist() == [[1, 2], [3, 4]]
    assert prompts.correct.tolist() == [[7, -1], [8, 9]]
    one_each = Task.from_tokens("t", [[1, 2], [3, 4]], [[1, 5], [6, 4]], torch.tensor([7, 8]), np.array([9, 7]))
    assert one_each.examples[1].correct == (8,)
    padded = Task.from_tokens(
        "t", [[1, 2], [3, 4]], [[1, 5], [6, 4]], torch.tensor([[7, -1], [8, 9]]), torch.tensor([[9], [7]])
    )
    assert [example.correct for example in padded.examples] == [(7,), (8, 9)]
    ragged = Task.from_tokens("t", [[1, 2, 3], [4]], [[1, 2, 9], [5]], [[7], [8]], [[9], [7]])
    assert ragged.prompts(model_of(None, d_vocab=10)).lengths.tolist() == [3, 1]


X = 9  # what stands at masked positions
LAYOUTS = {
    "right": ([[1, 2, 3, X], [4, 5, X, X]], [[1, 1, 1, 0], [1, 1, 0, 0]]),
    "left": ([[X, 1, 2, 3], [X, X, 4, 5]], [[0, 1, 1, 1], [0, 0, 1, 1]]),
    "holes": ([[1, X, 2, 3], [4, X, X, 5]], [[1, 0, 1, 1], [1, 0, 0, 1]]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_padding_anywhere_gives_the_same_prompts(layout: str, kind: torch.dtype) -> None:
    tokens, mask = (torch.tensor(rows) for rows in LAYOUTS[layout])
    corrupted = torch.where(tokens == 3, 7, torch.where(tokens == 5, 8, tokens))
    task = Task.from_tokens("t", tokens, corrupted, [[1], [2]], [[3], [4]], attention_mask=mask.to(kind))
    prompts = task.prompts(model_of(None, d_vocab=10))
    assert prompts.clean.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert prompts.corrupted.tolist() == [[1, 2, 7], [4, 8, 0]]
    assert prompts.lengths.tolist() == [3, 2]
    assert prompts.first_difference.tolist() == [2, 1]


def test_the_corrupted_prompts_may_have_a_mask_of_their_own() -> None:
    task = Task.from_tokens(
        "t", [[1, 2, X]], [[X, X, 1, 3]], [[1]], [[2]], [[1, 1, 0]], corrupted_attention_mask=[[0, 0, 1, 1]]
    )
    assert task.examples[0].corrupted == (1, 3)


def test_frames_csv_and_json_agree(tmp_path: Path) -> None:
    task = Task.from_pairs("mine", PAIRS)
    frame = task.to_frame()
    assert frame.columns.tolist() == ["clean", "corrupted", "correct", "incorrect"]
    frame.to_csv(tmp_path / "mine.csv", index=False)
    frame.to_json(tmp_path / "mine.json", orient="records")
    for other in (
        Task.from_frame(frame, name="mine"),
        Task.from_csv(tmp_path / "mine.csv"),
        Task.from_json(str(tmp_path / "mine.json")),
    ):
        assert other.examples == task.examples
        assert other.to_dict() == task.to_dict()
    renamed = Task.from_csv(tmp_path / "mine.csv", name="other", objective="log-probability")
    assert (renamed.name, renamed.objective) == ("other", "log-probability")


def test_token_tasks_survive_a_frame() -> None:
    task = numbered(3)
    assert Task.from_frame(task.to_frame()).examples == task.examples


def test_csv_cells_are_not_interpreted(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text('clean,corrupted,correct,incorrect\n1 + 1 =,1 + 2 =, NA,7\na,b,"["," null"\n')
    examples = Task.from_csv(path).examples
    assert (examples[0].correct, examples[0].incorrect) == ((" NA",), ("7",))
    assert (examples[1].correct, examples[1].incorrect) == (("[",), (" null",))


def test_columns_of_token_ids() -> None:
    frame = pd.DataFrame(
        {"clean": ["a", "b"], "corrupted": ["c", "d"], "correct_idx": [5, "[6, 7]"], "incorrect_idx": ["8", [9]]}
    )
    assert [(example.correct, example.incorrect) for example in Task.from_frame(frame).examples] == [
        ((5,), (8,)),
        ((6, 7), (9,)),
    ]
    with pytest.raises(InputError, match="correct_idx of prompt 0 is 'x'; it must be a token id"):
        Task.from_frame(frame.assign(correct_idx=["x", "y"]))


def test_incorrect_answers_may_be_left_out_where_the_objective_allows() -> None:
    frame = pd.DataFrame({"clean": ["a"], "corrupted": ["b"], "correct": [" c"]})
    assert Task.from_frame(frame, objective="log-probability").examples[0].incorrect == ()
    assert Task.from_pairs("t", [("a", "b", " c", None)], objective="kl").objective == "kl"
    with pytest.raises(InputError, match="prompt 0 has no incorrect one; give it one, or choose objective="):
        Task.from_frame(frame)
    with pytest.raises(InputError, match="prompt 0 has no incorrect one"):
        Task.from_frame(frame, objective="kl").with_objective("logit-difference")


def call(pairs: list[Any]) -> Task:
    return Task.from_pairs("mine", pairs)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "the task 'mine' has no prompts; at least one is needed"),
        ([("a", "b", "c")], r"pairs\[0\] is .* it must hold four things"),
        (["abcd"], r"pairs\[0\] is 'abcd'; it must hold four things"),
        ([PAIRS[0], ("a", "a", " c", " d")], r"prompt 1 has a corrupted version equal to the clean one \('a'\)"),
        ([("a", "b", [], " d")], "prompt 0 has no correct answer"),
        ([("a", "b", "", " d")], "correct of prompt 0 is empty"),
        ([("", "b", " c", " d")], "clean of prompt 0 is empty"),
        ([("a", 3.5, " c", " d")], "corrupted of prompt 0 is 3.5, a float; it must be a string, token ids or messages"),
        ([PAIRS[0], ("a", None, " c", " d")], "prompt 1 has no corrupted version and others do"),
        ([("a", "b", 7, " d")], "correct of prompt 0 is the int 7 beside a string prompt; write it as a string"),
        ([("a", "b", " c", [" c"])], "prompt 0 has the answer ' c' among the correct and among the incorrect"),
    ],
)
def test_bad_pairs(pairs: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(pairs)


def from_tokens(**changes: Any) -> Task:
    good = {"clean": [[1, 2, 3], [4, 5, 6]], "corrupted": [[1, 2, 7], [4, 8, 6]], "correct": [[1], [2]]}
    return Task.from_tokens("t", **(good | {"incorrect": [[3], [4]]} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": torch.zeros(2, 3)}, r"clean is float32 of shape \[2, 3\]; it must hold token ids"),
        ({"clean": [1, 2]}, r"clean is int64 of shape \[2\]"),
        ({"clean": [[1, 2, 3]]}, "correct has 2 entries for 1 prompts"),
        ({"corrupted": [[1, 2, 7]]}, "clean has 2 prompts and corrupted 1"),
        ({"correct": [[1]]}, "correct has 1 entries for 2 prompts"),
        ({"correct": [[1], []]}, "prompt 1 has no correct answer"),
        ({"correct": [[1], [-2]]}, "correct of prompt 1 holds -2; a token id is a number from 0 up"),
        ({"correct": [[1], [0.5]]}, "correct of prompt 1 holds 0.5, a float"),
        ({"clean": [[1, 2, -3], [4, 5, 6]]}, "clean of prompt 0 holds -3"),
        ({"attention_mask": [[1, 1, 1]]}, r"attention_mask has the shape \[1, 3\], clean \[2, 3\]"),
        ({"attention_mask": [[1, 1, 2], [1, 1, 1]]}, "attention_mask must hold only 0"),
        ({"attention_mask": [[1, 1, 1], [0, 0, 0]]}, "attention_mask leaves no token of prompt 1"),
        ({"corrupted": [[1, 2, 7], [4, 5, 6]]}, "prompt 1 has a corrupted version equal to the clean one"),
        ({"clean": [[1, 2], [3]], "attention_mask": [[1, 1]]}, "clean has rows of different length"),
    ],
)
def test_bad_tokens(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_tokens(**changes)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the table lacks the columns corrupted, correct, incorrect; it has clean, x"):
        Task.from_frame(pd.DataFrame({"clean": ["a"], "x": ["b"]}))
    with pytest.raises(InputError, match="there is no such file"):
        Task.from_csv(tmp_path / "none.csv")
    path = tmp_path / "bad"
    path.write_text("")
    with pytest.raises(InputError, match="cannot be read as CSV: No columns"):
        Task.from_csv(path)
    with pytest.raises(InputError, match="cannot be read as JSON: Expecting value"):
        Task.from_json(path)
    path.write_text('{"clean": "a"}')
    with pytest.raises(InputError, match="must hold a list of objects with the keys clean, corrupted"):
        Task.from_json(path)
    path.write_text('[{"clean": "a", "corrupted": "b", "correct": " c", "incorrect": " d"}, {"clean": "a"}]')
    with pytest.raises(InputError, match=r"object 1 of .* lacks corrupted, correct"):
        Task.from_json(path)
    path.write_text("clean,corrupted,correct,incorrect\n")
    with pytest.raises(InputError, match="the task 'bad' has no prompts"):
        Task.from_csv(path)


def test_split_is_disjoint_shuffled_and_repeatable() -> None:
    task = numbered(10)
    first, second = task.split(0.3, seed=1)
    assert (len(first), len(second)) == (3, 7)
    assert sorted(firsts(first) + firsts(second)) == list(range(10))
    assert [firsts(part) for part in task.split(0.3, seed=1)] == [firsts(first), firsts(second)]
    assert firsts(task.split(0.3, seed=2)[0]) != firsts(first)
    assert firsts(second) != sorted(firsts(second))
    assert [len(part) for part in numbered(2).split(0.01)] == [1, 1]
    with pytest.raises(InputError, match="fraction=1 must be a number above 0 and below 1"):
        task.split(1)
    with pytest.raises(InputError, match="has one prompt; splitting needs at least two"):
        numbered(1).split()


def test_select() -> None:
    task = numbered(4)
    assert firsts(task.select([2, 0])) == [2, 0]
    assert firsts(task.select(torch.tensor([-1]))) == [3]
    assert firsts(task.select(torch.tensor([True, False, False, True]))) == [0, 3]
    assert firsts(task.select(range(2))) == [0, 1]
    with pytest.raises(InputError, match="indices holds 4, but the task 'n' has 4 prompts"):
        task.select([4])
    with pytest.raises(InputError, match="no prompts"):
        task.select([])
    with pytest.raises(InputError, match="a mask of 2 entries for 4 prompts"):
        task.select([True, False])


def test_copies_keep_what_the_task_knows() -> None:
    examples = Task.from_pairs("t", PAIRS).examples
    task = Task("t", examples, description="d", prepend_bos=False, seed=3, dropped=2, parameters={"a": 1})
    for copy in (task.select([0]), task.with_objective("kl"), task.split()[1]):
        assert (copy.name, copy.description, copy.prepend_bos) == ("t", "d", False)
        assert (copy.seed, copy.dropped, copy.parameters) == (3, 2, {"a": 1})
    assert task.objective == "logit-difference"


def test_an_objective_may_be_a_function() -> None:
    def margin(logits: torch.Tensor, prompts: Prompts, clean: torch.Tensor | None) -> torch.Tensor:
        return logits[:, 0]

    task = Task.from_pairs("t", PAIRS, objective=margin)
    assert get_objective(task.objective).name == "margin"
    assert task.to_dict()["objective"] == "margin"
    with pytest.raises(InputError, match="objective='margins' is unknown"):
        task.with_objective("margins")


def test_provenance_tells_contents_apart() -> None:
    task = Task("t", Task.from_pairs("t", PAIRS).examples, seed=3, parameters={"length": 4})
    told = task.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert {key: told[key] for key in ("name", "n", "seed", "objective", "parameters")} == {
        "name": "t",
        "n": 3,
        "seed": 3,
        "objective": "logit-difference",
        "parameters": {"length": 4},
    }
    digests = {
        other.to_dict()["sha256"]
        for other in (task, task.select([0, 1]), task.select([1, 0, 2]), numbered(3), Task.from_pairs("u", PAIRS))
    }
    assert len(digests) == 4
    assert all(len(digest) == 64 for digest in digests)


def test_reprs_escape_what_they_show() -> None:
    task = Task.from_pairs("<b>", [("<i>a", "<i>b", " c", " d")] * 7, description="<u>")
    assert repr(task) == "Task('<b>', n=7, objective='logit-difference')"
    page = task._repr_html_()
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<u>" not in page
    assert "and 2 more" in page


def test_pickling_leaves_the_tokenizer_behind() -> None:
    task = Task.from_pairs("t", PAIRS)
    model = model_of(every_word("the keys key of it a cat cats dog fish runs now are were is was he"))
    task.prompts(model)
    copy = pickle.loads(pickle.dumps(task))
    assert copy.examples == task.examples
    assert copy.prompts(model).clean.tolist() == task.prompts(model).clean.tolist()
    assert len(pickle.dumps(task)) < 2000

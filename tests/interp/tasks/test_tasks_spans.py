"""Spans of tasks: slices and named groups become positions, with BOS and padding counted as the prompts have them."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from interp import tasks
from interp.errors import InputError
from interp.spans import SpanOrder, place
from interp.tasks.resampled import resampled
from interp.tasks.task import Task

PAIRS = [
    ("the king saw the queen", "the queen saw the queen", "a", "b"),
    ("then the queen saw king", "then the king saw king", "a", "b"),
]


def _model(bos: str | None = "<bos>"):
    words = ["<unk>", "<bos>", *["the", "then", "king", "queen", "saw", "a", "b"]]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token=bos)
    return SimpleNamespace(tokenizer=tokenizer, cfg=SimpleNamespace(d_vocab=len(tokenizer), default_prepend_bos=True))


def _tokens(task, model):
    """The tokens of each span of each prompt."""
    prompts, found = task.prompts(model), task.spans(model)
    return [
        {slot.name: model.tokenizer.decode(row[slot.start : slot.stop]).strip() for slot in slots}
        for row, slots in zip(prompts.clean, found.of, strict=True)
    ]


@pytest.fixture(scope="module")
def model():
    return _model()


def test_slices_are_of_the_prompts_own_tokens(model):
    spans = [{"who": (1, 2), "end": (-1, None)}, {"who": (2, 3), "rest of it": (3, -1)}]
    task = Task.from_pairs("t", PAIRS, spans=spans)
    assert _tokens(task, model) == [{"who": "king", "end": "queen"}, {"who": "queen", "rest of it": "saw"}]
    assert task.spans(model).names == ("who", "end", "rest of it")


@pytest.mark.parametrize("fast", [True, False])
def test_groups_are_found_in_the_text(model, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(type(model.tokenizer), "is_fast", False)
    task = Task.from_pairs("t", PAIRS, spans=r"the (?P<subject>\w+) (?P<verb>saw)(?P<missing> never)?")
    assert _tokens(task, model) == [{"subject": "king", "verb": "saw"}, {"subject": "queen", "verb": "saw"}]


def test_without_bos():
    model = _model(None)
    task = Task.from_pairs("t", PAIRS, spans={"second": (1, 2)})
    assert _tokens(task, model) == [{"second": "king"}, {"second": "the"}]
    assert [slots[0].start for slots in task.spans(model).of] == [1, 1]


def test_selected_and_filed(tmp_path, model):
    task = Task.from_pairs("t", PAIRS, spans=[{"who": (1, 2)}, r"(?P<verb>saw)"])
    assert task.select([1]).spans(model).names == ("verb",)
    assert {len(part.spans(model).names) for part in task.split()} == {1}
    assert task.with_objective("kl").spans(model) == task.spans(model)
    assert Task.from_frame(task.to_frame()).spans(model) == task.spans(model)
    task.to_frame().to_csv(tmp_path / "t.csv", index=False)
    assert Task.from_csv(tmp_path / "t.csv").spans(model) == task.spans(model)
    task.to_frame().to_json(tmp_path / "t.json", orient="records")
    assert Task.from_json(tmp_path / "t.json").spans(model) == task.spans(model)
    # what the prompts are does not depend on what their parts are called
    assert task.to_dict()["sha256"] == Task.from_pairs("t", PAIRS).to_dict()["sha256"]
    assert "spans" not in Task.from_pairs("t", PAIRS).to_frame()


def test_tokens_with_padding():
    model = SimpleNamespace(tokenizer=None, cfg=SimpleNamespace(d_vocab=20))
    clean, corrupted = [[0, 5, 6, 7], [1, 5, 6, 7]], [[0, 5, 8, 7], [1, 5, 8, 7]]
    told = {"attention_mask": [[0, 1, 1, 1], [1, 1, 1, 1]]}
    spans = {"changed": (2, 3), "last": (-1, None)}
    task = Task.from_tokens("t", clean, corrupted, [[1], [1]], [[2], [2]], spans=spans, **told)
    found = [{slot.name: slot.start for slot in slots} for slots in task.spans(model).of]
    assert found == [{"changed": 1, "last": 2}, {"changed": 2, "last": 3}]


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        (7, "spans is a int; give a mapping"),
        ([{"a": (0, 1)}], "spans is 1 entries"),
        ([{"a": (0, 1)}, 3], "spans of prompt 1 is 3"),
        ({"a": 3}, "the span 'a' of prompt 0 is 3; it must be"),
        ({"a": (0, "x")}, "a slice of its tokens"),
        ({"rest": (0, 1)}, "is called 'rest'"),
        ({"": (0, 1)}, "is called ''"),
        ({"a": (3, 9)}, "the span 'a' of prompt 0, tokens 3 to 9, is out of the prompt, which has 5 tokens"),
        ({"a": (2, 2)}, "or holds none"),
        ({"a": (0, 3), "b": (2, 4)}, "the spans 'a' and 'b' of prompt 0 share its token 3"),
        ("(?P<a>the", "no regular expression"),
        ("the", "no named group"),
        ("(?P<a>never)", "is not found in prompt 0"),
    ],
)
def test_refused(model, spans, words):
    with pytest.raises(InputError) as raised:
        Task.from_pairs("t", PAIRS, spans=spans).spans(model)
    assert words in str(raised.value)


def test_refused_of_tokens_and_tables():
    with pytest.raises(InputError, match="regular expression, and the prompt is token ids"):
        Task.from_tokens("t", [[1, 2]], [[1, 3]], [[1]], [[2]], spans="(?P<a>x)")
    table = pd.DataFrame({"clean": ["a"], "corrupted": ["b"], "correct": ["c"], "incorrect": ["d"], "spans": ["[1"]})
    with pytest.raises(InputError, match="the spans of prompt 0 are"):
        Task.from_frame(table)


def test_built_in_tasks_name_theirs():
    builds = (tasks.ioi, tasks.greater_than, tasks.agreement, tasks.capitals, tasks.pronoun, tasks.arithmetic)
    for build in (*builds, tasks.multiple_choice):
        for example in build(n=12).examples:
            for slot in example.spans:
                text = example.clean[slot.start : slot.stop]
                assert text == text.strip() != "", (example.clean, slot)
    one = tasks.ioi(n=1).examples[0]
    words = {slot.name: one.clean[slot.start : slot.stop] for slot in one.spans if slot.characters}
    assert words.keys() == {"IO", "S1", "S2", "place", "thing", "verb"}
    assert (f" {words['IO']}", f" {words['S1']}") == (one.correct[0], one.incorrect[0])
    assert words["S1"] == words["S2"] != words["IO"]
    assert f"{words['S2']} {words['verb']} " in one.clean


@pytest.mark.parametrize("shots", [0, 2])
def test_multiple_choice_names_what_is_exchanged(shots):
    for example in tasks.multiple_choice(n=8, shots=shots).examples:
        words = {slot.name: example.clean[slot.start : slot.stop] for slot in example.spans if slot.characters}
        assert list(words).count("question") == 1
        assert set(words) == {"question", "right letter", "right", "wrong letter", "wrong"}
        assert (f" {words['right letter']}", f" {words['wrong letter']}") == (example.correct[0], example.incorrect[0])
        asked = example.clean.rsplit("Question: ", 1)[1]
        assert asked.startswith(f"{words['question']}\nA. ")
        assert f"{words['right letter']}. {words['right']}\n" in asked
        exchanged = {slot.name: example.corrupted[slot.start :].split("\n")[0] for slot in example.spans}
        first = min(("right", "wrong"), key=lambda name: next(s.start for s in example.spans if s.name == name))
        assert exchanged[first] == words["wrong" if first == "right" else "right"]
        assert example.spans[-1].name == "end"


def test_resampled_prompts_keep_their_spans(model):
    pairs = [*PAIRS, ("the queen saw the king", "the king saw the king", "a", "b")]
    by_text = Task.from_pairs("t", pairs, spans=r"the (?P<subject>\w+) (?P<verb>saw)")
    slices = Task.from_pairs("t", pairs, spans=[{"who": (1, 2), "last": (-1, None)}] * 3)
    for task in (by_text, slices):
        found = resampled(task, model)
        assert found.prompts(model).corrupted.tolist() != task.prompts(model).corrupted.tolist()
        assert found.prompts(model).clean.equal(task.prompts(model).clean)
        assert found.spans(model) == task.spans(model)


def test_resampled_counterparts_keep_their_own_spans(model):
    pairs = [
        ("the king saw the queen", "then the queen saw the queen", "a", "b"),
        ("the queen saw the king", "the king saw king", "a", "b"),
    ]
    task = Task.from_pairs("t", pairs, spans=r"(?P<subject>king|queen) saw").aligned(r"(?P<subject>king|queen) saw")
    found = resampled(task, model)
    assert _tokens(found, model) == [{"subject": "king"}, {"subject": "queen"}]
    turned = [row.tolist() for row in found.prompts(model).corrupted]
    words = [turned[i][example.corrupted_spans[0].start] for i, example in enumerate(found.examples)]
    assert model.tokenizer.convert_ids_to_tokens(words) == ["king", "queen"]


def test_what_sees_what(model):
    task = Task.from_pairs("t", PAIRS, spans=[{"a": (0, 1), "b": (1, 2)}, {"b": (0, 1), "c": (4, 5)}])
    placed = place(("a", "b", "c"), task.prompts(model), task.spans(model))
    order = placed.order()
    # a stands before b in the first prompt and in no other; c is the last of the second
    assert order.sees.int().tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert order.ends.tolist() == [False, False, True]
    again = SpanOrder.of(placed.spans, order.to_dict())
    assert again.sees.equal(order.sees)
    assert again.ends.equal(order.ends)
    positions = SpanOrder.of((3, 5, "rest"))
    assert positions.sees.int().tolist() == [[1, 1, 1], [0, 1, 1], [1, 1, 1]]
    assert positions.ends.tolist() == [False, True, True]

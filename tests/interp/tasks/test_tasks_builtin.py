"""Built-in tasks: what each prompt is, determinism, balance, what is dropped, what is refused."""

from __future__ import annotations

import inspect
import logging
import random
import re
from collections import Counter
from string import ascii_letters
from typing import Any

import pytest

from interp import tasks
from interp.errors import InputError
from interp.tasks import Task
from interp.tasks.builtin import capitals as capitals_module
from interp.tasks.builtin.words import MEN, WOMEN
from interp.tasks.prompts import Prompts
from tests.interp.tasks.test_tasks_support import DIGITS, every_word, model_of, tokenizer

NAMES = tasks.names()
STRINGS = [name for name in NAMES if name != "induction"]


def texts_of(task: Task) -> list[str]:
    return [text for example in task.examples for text in (str(example.clean), str(example.corrupted))]


@pytest.fixture(scope="module")
def model() -> Any:
    """A model whose tokenizer knows every word of every task."""
    texts: list[str] = [" ".join(WOMEN + MEN), " ".join(capitals_module.CAPITALS.values())]
    for name in STRINGS:
        for seed in range(4):
            task = tasks.get(name, n=100, seed=seed)
            texts += texts_of(task)
            texts += [str(answer) for example in task.examples for answer in (*example.correct, *example.incorrect)]
    return model_of(every_word(*texts))


def test_the_table_of_tasks() -> None:
    table = tasks.describe()
    assert table.name.tolist() == NAMES
    assert len(NAMES) == 8
    assert table.description.str.len().gt(10).all()
    for name in NAMES:
        parameters = list(inspect.signature(getattr(tasks, name)).parameters)
        assert parameters[:3] == ["n", "seed", "model"]


def test_get_takes_both_spellings_and_knows_near_names() -> None:
    assert tasks.get("greater-than", n=3).examples == tasks.greater_than(n=3).examples
    with pytest.raises(InputError, match="task='oio' is unknown; did you mean 'ioi'"):
        tasks.get("oio")


@pytest.mark.parametrize("name", NAMES)
def test_every_task_makes_prompts(name: str, model: Any) -> None:
    task = tasks.get(name, n=24, seed=5, model=model)
    prompts = task.prompts(model)
    assert isinstance(prompts, Prompts)
    assert (len(task), task.name, task.seed) == (24, name, 5)
    assert len({example.clean for example in task.examples}) == 24
    assert (prompts.clean[:, 0] == 1).all(), "BOS comes first"
    assert prompts.incorrect_mask.any(1).all()
    row = tasks.describe().set_index("name").loc[name]
    assert (task.description, task.objective) == (row.description, row.objective)
    assert set(task.to_dict()["parameters"]) <= set(inspect.signature(getattr(tasks, name)).parameters) | {"pieces"}


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_and_nothing_else(name: str, model: Any) -> None:
    random.seed(1)
    first = tasks.get(name, n=8, seed=3, model=model)
    state = random.getstate()
    assert tasks.get(name, n=8, seed=3, model=model).examples == first.examples
    assert random.getstate() == state, "the global generator was used"
    assert tasks.get(name, n=8, seed=4, model=model).examples != first.examples
    assert tasks.get(name, n=12, seed=3, model=model).examples[:8] == first.examples


@pytest.mark.parametrize("name", NAMES)
def test_sizes_below_one_are_refused(name: str, model: Any) -> None:
    with pytest.raises(InputError, match="n=0 must be a whole number of at least 1"):
        tasks.get(name, n=0, model=model)


def names_in(text: str) -> list[str]:
    return [word for word in re.findall("[A-Z][a-z]+", text) if word in WOMEN + MEN]


def test_ioi_orders_are_balanced() -> None:
    orders = Counter()
    for example in tasks.ioi(n=40).examples:
        first, second, giver = names_in(str(example.clean))
        recipient = str(example.correct[0]).strip()
        assert {first, second} == {giver, recipient}
        assert example.incorrect == (f" {giver}",)
        orders["A B B A" if first == recipient else "A B A B"] += 1
    assert orders == {"A B B A": 20, "A B A B": 20}


def test_ioi_corruptions() -> None:
    for corruption in ("second-subject", "third-name", "all-names"):
        for example in tasks.ioi(n=30, corruption=corruption).examples:  # type: ignore[arg-type]
            clean, other = names_in(str(example.clean)), names_in(str(example.corrupted))
            recipient = str(example.correct[0]).strip()
            if corruption == "second-subject":
                assert other == [*clean[:2], recipient]
            elif corruption == "third-name":
                assert other[:2] == clean[:2]
                assert other[2] not in clean
            else:
                assert len(set(other)) == 3
                assert not set(other) & set(clean)
            # nothing but names is changed
            bare = {re.sub("|".join(clean + other), "X", str(text)) for text in (example.clean, example.corrupted)}
            assert len(bare) == 1


def test_ioi_uses_several_templates_or_the_ones_given() -> None:
    openings = {str(example.clean).split()[0] for example in tasks.ioi(n=60).examples}
    assert len(openings) >= 6
    wording = "Both {first} and {second} smiled, and {subject} waved at"
    task = tasks.ioi(n=10, templates=[wording])
    assert all(str(example.clean).startswith("Both ") for example in task.examples)
    assert task.parameters == {"corruption": "second-subject", "templates": [wording]}
    for bad in ("{first} and {second}", "{first} {second} {subject} {who}", "{first} {second} {subject} {"):
        with pytest.raises(InputError, match="a template needs the fields"):
            tasks.ioi(templates=[bad])
    with pytest.raises(InputError, match="templates is empty"):
        tasks.ioi(templates=[])
    with pytest.raises(InputError, match="corruption='names' is unknown; did you mean 'all-names'"):
        tasks.ioi(corruption="names")  # type: ignore[arg-type]


def test_greater_than_with_two_digit_tokens(model: Any) -> None:
    pairs = model_of(every_word(*texts_of(tasks.greater_than(n=200)), numbers=r" ?\d\d"))
    pairs.tokenizer.add_tokens([f" {century}" for century in range(11, 19)])
    task = tasks.greater_than(n=20, model=pairs)
    for example in (*task.examples, *tasks.greater_than(n=20).examples):
        start, end = re.findall(r"\d+", str(example.clean))
        assert end == start[:2]
        assert [int(answer) for answer in example.correct] == list(range(int(start[2:]) + 1, 100))
        assert [int(answer) for answer in example.incorrect] == list(range(int(start[2:]) + 1))
        assert re.findall(r"\d+", str(example.corrupted)) == [f"{start[:2]}01", end]
    assert task.parameters == {"pieces": [2, 2]}
    assert task.objective == "probability-difference"


def test_greater_than_with_single_digits(model: Any) -> None:
    task = tasks.greater_than(n=30, model=model)
    for example in task.examples:
        start, end = re.findall(r"\d+", str(example.clean))
        assert end == start[:2]
        tens = int(start[2])
        assert 2 <= tens <= 7
        assert [int(answer) for answer in example.correct] == list(range(tens + 1, 10))
        assert [int(answer) for answer in example.incorrect] == list(range(tens))
        assert re.findall(r"\d+", str(example.corrupted)) == [f"{start[:2]}0{start[3]}", end]
    assert task.parameters == {"pieces": [1, 1, 1, 1]}


def test_greater_than_with_three_digit_tokens() -> None:
    threes = model_of(every_word(*texts_of(tasks.greater_than(n=200)), numbers=r"\d{1,3}"))
    for example in tasks.greater_than(n=30, model=threes).examples:
        start, end = re.findall(r"\d+", str(example.clean))
        assert end == start[:3]
        assert [int(answer) for answer in example.correct] == list(range(int(start[3]) + 1, 10))
        assert [int(answer) for answer in example.incorrect] == list(range(int(start[3])))
        assert re.findall(r"\d+", str(example.corrupted)) == [f"{end}0", end]


def test_greater_than_refuses_other_tokenizers() -> None:
    whole = model_of(every_word(*texts_of(tasks.greater_than(n=9)), numbers=r"\d+"))
    with pytest.raises(InputError, match="the tokenizer cuts the year 1754 into pieces of"):
        tasks.greater_than(model=whole)


def test_agreement_changes_the_number_of_the_subject_only() -> None:
    forms = {" is": 0, " was": 0, " has": 0, " are": 1, " were": 1, " have": 1}
    numbers = Counter()
    for example in tasks.agreement(n=40).examples:
        clean, other = str(example.clean).split(), str(example.corrupted).split()
        (changed,) = [(a, b) for a, b in zip(clean, other, strict=True) if a != b]
        plural = forms[str(example.correct[0])]
        assert forms[str(example.incorrect[0])] == 1 - plural
        assert (len(changed[0]) > len(changed[1])) == bool(plural)
        assert clean[-1].endswith("s") != bool(plural), "the distractor is of the other number"
        numbers[plural] += 1
    assert numbers == {0: 20, 1: 20}
    same = tasks.agreement(n=20, distractor="same")
    assert all(str(e.clean).endswith("s") == bool(forms[str(e.correct[0])]) for e in same.examples)
    with pytest.raises(InputError, match="distractor='other' is unknown"):
        tasks.agreement(distractor="other")  # type: ignore[arg-type]


def test_pronouns_follow_names() -> None:
    answers = Counter()
    for example in tasks.pronoun(n=20).examples:
        (name,), (other,) = names_in(str(example.clean)), names_in(str(example.corrupted))
        assert example.correct == ((" she",) if name in WOMEN else (" he",))
        assert example.incorrect == ((" she",) if other in WOMEN else (" he",))
        assert example.correct != example.incorrect
        answers[example.correct[0]] += 1
    assert answers == {" she": 10, " he": 10}
    assert not set(WOMEN) & set(MEN)


def test_capitals_are_those_of_the_countries() -> None:
    countries = capitals_module.CAPITALS
    for example in tasks.capitals(n=40).examples:
        (clean,) = [country for country in countries if country in str(example.clean)]
        (other,) = [country for country in countries if country in str(example.corrupted)]
        assert (example.correct, example.incorrect) == ((f" {countries[clean]}",), (f" {countries[other]}",))


def test_capitals_of_several_tokens_are_dropped_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    places = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo"}
    words = [f" {word}" for pair in places.items() for word in pair]
    # whatever is not one of these words is spelled
    spelled = model_of(tokenizer(*words, *ascii_letters, " ", letters="|".join([*words, "[A-Za-z]"])))
    with caplog.at_level(logging.INFO, logger="interp"):
        task = tasks.capitals(n=8, model=spelled)
    assert {str(answer).strip() for example in task.examples for answer in example.correct} <= set(places.values())
    assert task.dropped > 0
    assert f"task capitals: dropped {task.dropped} candidates" in caplog.text
    assert "a word is not a single token" in caplog.text
    assert f"dropped={task.dropped}" in repr(task)
    with pytest.raises(InputError, match=r"n=500 prompts of 'capitals' were asked for, but only \d+ could be made"):
        tasks.capitals(n=500, model=spelled)


def test_names_of_several_tokens_are_dropped(model: Any) -> None:
    few = [*WOMEN[::2], *MEN[::2]]
    texts = texts_of(tasks.ioi(n=200))
    known = every_word(*(re.sub("|".join(WOMEN + MEN), "", text) for text in texts), " ".join(few))
    task = tasks.ioi(n=10, model=model_of(known), corruption="all-names")
    assert {name for text in texts_of(task) for name in names_in(text)} <= set(few)
    assert task.dropped > 0


def test_induction_repeats_a_random_sequence(model: Any) -> None:
    task = tasks.induction(n=20, model=model, length=5)
    for example in task.examples:
        bos, *clean = example.clean
        corrupted = example.corrupted[1:]
        assert bos == 1
        assert clean[:4] == clean[5:]
        assert example.correct == (clean[4],)
        assert example.incorrect == (corrupted[4],)
        assert (*clean[:4], *clean[5:]) == (*corrupted[:4], *corrupted[5:])
        assert len({*clean, corrupted[4]}) == 6
        assert not {*clean, corrupted[4]} & {0, 1}, "special tokens are left out"
    bare = tasks.induction(n=3, model=model_of(None, d_vocab=30), length=5)
    assert len(bare.examples[0].clean) == 9
    with pytest.raises(InputError, match="pass model="):
        tasks.induction()
    with pytest.raises(InputError, match="length=1 must be a whole number of at least 2"):
        tasks.induction(model=model, length=1)
    with pytest.raises(InputError, match="length=30 is too long: the vocabulary has 30 ordinary tokens"):
        tasks.induction(model=model_of(None, d_vocab=30), length=30)


def results(text: str) -> list[int]:
    problems = re.findall(r"(\d+) ([+-]) (\d+)", text)
    return [int(a) + int(b) if sign == "+" else int(a) - int(b) for a, sign, b in problems]


@pytest.mark.parametrize("operation", ["addition", "subtraction", "both"])
def test_arithmetic_is_right(operation: Any) -> None:
    for example in tasks.arithmetic(n=40, operation=operation, shots=3).examples:
        clean, corrupted = str(example.clean), str(example.corrupted)
        assert [int(number) for number in re.findall(r"= (\d+)", clean)] == results(clean)[:3]
        assert example.correct == (f" {results(clean)[-1]}",)
        assert example.incorrect == (f" {results(corrupted)[-1]}",)
        assert 0 <= min(results(clean)) <= max(results(clean)) <= 9
        asked = re.split(", ", clean)[-1].split()
        changed = re.split(", ", corrupted)[-1].split()
        assert sum(a != b for a, b in zip(asked, changed, strict=True)) == 1
        assert clean.count(" ".join(asked)) == 1, "the calculation is not solved in front"


def test_arithmetic_minds_where_the_tokenizer_puts_the_space(model: Any) -> None:
    # here digits never take the space before them
    split = tasks.arithmetic(n=10, model=model)
    assert all(str(example.clean).endswith("= ") for example in split.examples)
    assert all(str(example.correct[0]).isdigit() for example in split.examples)
    spaced = model_of(tokenizer(*[f" {digit}" for digit in DIGITS], *DIGITS, *"+-=,", " ", numbers=r" ?\d"))
    joined = tasks.arithmetic(n=10, model=spaced)
    assert all(str(example.clean).endswith(" =") for example in joined.examples)


def test_arithmetic_with_digits_stays_below_ten(model: Any) -> None:
    task = tasks.arithmetic(n=10, model=model, maximum=20)
    assert task.dropped > 0
    assert all(len(str(example.correct[0])) == 1 for example in task.examples)


def test_arithmetic_refuses_what_leaves_nothing() -> None:
    with pytest.raises(InputError, match="maximum=2 must be a whole number of at least 3"):
        tasks.arithmetic(maximum=2)
    with pytest.raises(InputError, match="shots=-1 must be a whole number of at least 0"):
        tasks.arithmetic(shots=-1)
    with pytest.raises(InputError, match="shots=2 is too large: maximum=3 leaves 1 other calculations"):
        tasks.arithmetic(maximum=3, operation="addition")
    with pytest.raises(InputError, match="operation='times' is unknown"):
        tasks.arithmetic(operation="times")  # type: ignore[arg-type]


def test_multiple_choice_letters_take_turns() -> None:
    letters = Counter()
    for example in tasks.multiple_choice(n=40, shots=1).examples:
        clean, corrupted = str(example.clean), str(example.corrupted)
        assert clean.count("Question:") == 2

        def options(text: str) -> dict[str, str]:
            return dict(re.findall(r"([A-D])\. (\w+)", text.rpartition("Question:")[2]))

        before, after = options(clean), options(corrupted)
        right, wrong = str(example.correct[0]).strip(), str(example.incorrect[0]).strip()
        assert (before[right], before[wrong]) == (after[wrong], after[right])
        assert {key: before[key] for key in before if key not in (right, wrong)} == {
            key: after[key] for key in after if key not in (right, wrong)
        }
        letters[right] += 1
    assert letters == dict.fromkeys("ABCD", 10)
    with pytest.raises(InputError, match="shots=9 must be a whole number from 0 to 8"):
        tasks.multiple_choice(shots=9)

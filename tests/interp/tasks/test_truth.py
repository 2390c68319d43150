"""Questions and statements of facts: true, and balanced so that nothing but truth tells the two kinds apart."""

from __future__ import annotations

from collections import Counter

import pytest

from interp import tasks
from interp.errors import InputError
from interp.tasks.builtin.capitals import CAPITALS
from interp.tasks.facts.pairs import KINDS, facts
from interp.tasks.facts.words import CATEGORIES, NUMBERS, OPPOSITES
from interp.tasks.task import Task

SIDES = (True, False)


def words(texts):
    return Counter(word for text in texts for word in text.replace(".", "").split())


# ---- statements


@pytest.mark.parametrize("seed", [0, 1])
def test_no_word_and_no_length_tells_true_statements_from_false_ones(seed):
    found = tasks.statements(400, seed)
    true, false = ([one.text for one in found if one.true is side] for side in SIDES)
    assert len(true) == len(false) == 200
    assert words(true) == words(false)
    assert sum(map(len, true)) == sum(map(len, false))
    assert Counter(text.split()[-1] for text in true) == Counter(text.split()[-1] for text in false)
    assert len({one.text for one in found}) == 400
    assert Counter(one.kind for one in found) == dict.fromkeys(KINDS, 80)


def test_every_statement_says_what_its_facts_say():
    opposite = {x: y for pair in OPPOSITES for x, y in (pair, pair[::-1])}
    kind_of = {x: y for y, members in CATEGORIES.items() for x in members.split(", ")}
    for one in tasks.statements(400, seed=3):
        text = one.text[:-1].replace(" is not", " is")
        if one.kind == "arithmetic":
            a, sign, b, _, result = text.lower().split()
            value = NUMBERS.index(a) + NUMBERS.index(b) * (1 if sign == "plus" else -1)
            holds = value == NUMBERS.index(result)
        elif "capital" in text:
            country, answer = text.removeprefix("The capital of ").split(" is ")
            holds = CAPITALS[country] == answer
        elif "opposite" in text:
            word, answer = text.removeprefix("The opposite of ").split(" is ")
            holds = opposite[word] == answer
        else:
            thing, answer = text.split(" is a kind of ")
            holds = kind_of.get(thing, kind_of.get(thing[0].lower() + thing[1:])) == answer
        assert one.true is (holds is (one.kind != "negations")), one


def test_words_have_one_opposite_and_things_are_of_one_kind():
    both = [word for pair in OPPOSITES for word in pair]
    things = [thing for members in CATEGORIES.values() for thing in members.split(", ")]
    assert len(set(both)) == len(both)
    assert len(set(things)) == len(things)
    assert not {thing.split()[-1] for thing in things} & CATEGORIES.keys()
    assert all(" " not in fact.answer for kind in KINDS for fact in facts(kind))


# ---- questions


@pytest.mark.parametrize("form", ["completion", "choice", "judgement"])
def test_questions_are_balanced_whatever_their_form(form):
    task = tasks.truth(320, seed=2, form=form)
    assert len(task) == len({one.clean for one in task.examples}) == 320
    correct, incorrect = (Counter(getattr(one, side) for one in task.examples) for side in ("correct", "incorrect"))
    assert correct == incorrect  # each answer is as often the true as the false one
    assert all(one.clean != one.corrupted for one in task.examples)
    assert task.parameters == {"form": form, "kinds": list(KINDS)}


def test_completions_of_a_pair_exchange_their_answers():
    examples = tasks.truth(200, seed=1).examples
    for one, other in zip(examples[::2], examples[1::2], strict=True):
        assert (one.correct, one.incorrect) == (other.incorrect, other.correct)
        assert (one.clean, one.corrupted) == (other.corrupted, other.clean)
        assert not set(one.clean.lower().split()) & {one.correct[0].strip(), one.incorrect[0].strip()}


def test_each_word_is_as_often_true_as_false_in_each_place_of_a_choice():
    places = {side: Counter() for side in SIDES}
    for example in tasks.truth(320, seed=4, form="choice").examples:
        _, first, second, _ = example.clean.split("\n")
        (letter,) = example.correct
        for line in (first, second):
            places[line[0] == letter.strip()][line] += 1
        assert example.corrupted.split("\n")[1:3] == [f"A{second[1:]}", f"B{first[1:]}"]
    assert places[True] == places[False]
    assert sum(count for line, count in places[True].items() if line.startswith("A")) == 160


def test_judgements_name_either_word_first_equally_often_on_both_sides():
    examples = tasks.truth(400, seed=5, form="judgement").examples
    counts = Counter((one.correct[0], "true or false" in one.clean) for one in examples)
    assert counts == {(answer, order): 100 for answer in (" true", " false") for order in SIDES}
    assert words(one.clean for one in examples if one.correct == (" true",)) == words(
        one.clean for one in examples if one.correct == (" false",)
    )


def test_a_seed_gives_the_same_questions_and_fewer_are_the_first_of_more():
    assert tasks.truth(40, seed=7).examples == tasks.truth(40, seed=7).examples == tasks.truth(80, seed=7).examples[:40]
    assert tasks.truth(40, seed=7).examples != tasks.truth(40, seed=8).examples
    assert tasks.statements(40) == tasks.statements(80)[:40]


def test_kinds_take_turns_and_may_be_chosen():
    task = tasks.truth(40, kinds=["arithmetic", "opposites"])
    assert all(("opposite" in one.clean) is (number // 2 % 2 == 1) for number, one in enumerate(task.examples))
    assert all("capital" in one.text for one in tasks.statements(40, kinds="capitals"))


def test_both_answers_of_a_question_are_equally_many_tokens():
    class Letters:  # a token a letter
        bos_token_id = unk_token_id = unk_token = None

        def __call__(self, texts, add_special_tokens=True):
            return {"input_ids": [list(map(ord, text)) for text in texts]}

    class Model:
        tokenizer = Letters()

        class cfg:
            d_vocab = 256

    task = tasks.truth(60, model=Model())
    assert isinstance(task, Task)
    assert all(len(one.correct[0]) == len(one.incorrect[0]) for one in task.examples)


# ---- what cannot be


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"n": 7}, "n=7 questions of form='completion' cannot be balanced; give a multiple of 2, such as 8"),
        ({"n": 6, "form": "judgement"}, "give a multiple of 4, such as 8"),
        ({"form": "essay"}, "form='essay' is unknown"),
        ({"kinds": ["capital"]}, "kinds='capital' is unknown; did you mean 'capitals'"),
        ({"kinds": []}, "kinds=[] must name at least one kind"),
        ({"n": 4000, "kinds": ["opposites"]}, "opposites have no further pair of facts after"),
        ({"n": 0}, "n=0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(InputError) as caught:
        tasks.truth(**given)
    assert sentence in str(caught.value)


def test_statements_come_in_fours():
    with pytest.raises(InputError, match="give a multiple of 4, such as 404"):
        tasks.statements(402)

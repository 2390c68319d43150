"""Multiple choice: the letter of the right option."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from interp import numbers
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build
from interp.tasks.spans import Slots, field_spans, with_end
from interp.tasks.task import Task

ABOUT = About("multiple_choice", "the letter of the right option")

LETTERS = "ABCD"
LAYOUT = "\n".join(["Question: {question}", *(f"{{letter{i}}}. {{option{i}}}" for i in range(4)), "Answer:"])

# question, right answer, wrong answers
QUESTIONS = (
    ("What do bees make?", "honey", "paper glass milk"),
    ("Which of these animals barks?", "dog", "cow fish bird"),
    ("Which season comes after winter?", "spring", "summer fall night"),
    ("Which of these is a fruit?", "apple", "chair stone train"),
    ("What do people drink?", "water", "sand wood iron"),
    ("What shines in the sky by day?", "sun", "river lamp tree"),
    ("What is frozen water called?", "ice", "steam rain sand"),
    ("Which of these can fly?", "bird", "horse fish dog"),
    ("What do you use to cut bread?", "knife", "book shoe pen"),
    ("Which of these is a color?", "red", "table seven loud"),
    ("What is the opposite of hot?", "cold", "warm big fast"),
    ("Which of these is a number?", "seven", "green house song"),
    ("Which of these grows leaves?", "tree", "stone car ship"),
    ("Where do fish live?", "water", "trees houses fire"),
    ("What do cows give?", "milk", "honey oil silk"),
    ("What do you wear on your feet?", "shoes", "hats rings books"),
    ("Which day comes after Monday?", "Tuesday", "Sunday Friday Saturday"),
    ("Which month comes first in the year?", "January", "June March October"),
    ("Who works in a hospital?", "doctor", "farmer pilot judge"),
    ("Which of these is a metal?", "iron", "wool paper glass"),
    ("What do you read?", "book", "spoon bed cup"),
    ("What is the opposite of up?", "down", "left round open"),
    ("Which of these is a planet?", "Mars", "London bread paper"),
    ("What do you hear with?", "ears", "eyes hands feet"),
    ("What falls from clouds?", "rain", "sand gold wood"),
    ("Which of these is a meal?", "breakfast", "window garden morning"),
)


@numbers.checked(n=numbers.COUNT, shots=numbers.Limits(0, 8))
def multiple_choice(n: int = 64, seed: int = 0, model: Any = None, *, shots: int = 2) -> Task:
    """Multiple choice: a question and four options behind A to D are continued by the letter of the right one.

    The corrupted prompt exchanges the right option with another, so that the letter changes; its letter is the
    incorrect answer. The four letters take turns. Models of a few hundred million parameters mostly guess: expect
    `Task.check` to say so (SmolLM2-135M does not do this task). Spans: question; right letter, right, wrong letter and
    wrong, of the two options that the corrupted prompt exchanges; end.

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose tokenizer they must suit: every option one token.
        shots: number of answered questions in front, at most 8.

    Raises `InputError` for `shots` out of range, and where the tokenizer does not allow `n` prompts.

    >>> example = multiple_choice(n=1, shots=0).examples[0]
    >>> example.correct, example.clean.splitlines()[-1]
    ((' A',), 'Answer:')
    """

    def draw(rng: random.Random, number: int) -> Candidate:
        asked, *answered = rng.sample(QUESTIONS, shots + 1)
        front = ""
        for question in answered:
            letter = rng.randrange(4)
            front += f"{LAYOUT.format(**_fields(question[0], _options(rng, question, letter)))} {LETTERS[letter]}\n\n"
        right = number % 4
        wrong = rng.choice([letter for letter in range(4) if letter != right])
        options = _options(rng, asked, right)
        exchanged = list(options)
        exchanged[right], exchanged[wrong] = options[wrong], options[right]
        clean = front + LAYOUT.format(**_fields(asked[0], options))
        example = Example(
            clean=clean,
            corrupted=front + LAYOUT.format(**_fields(asked[0], exchanged)),
            correct=(f" {LETTERS[right]}",),
            incorrect=(f" {LETTERS[wrong]}",),
            spans=with_end(_spans(len(front), _fields(asked[0], options), right, wrong), clean),
        )
        return Candidate(example, single=tuple(f" {option}" for option in options))

    return build(ABOUT, draw, n, seed, model, parameters={"shots": shots})


def _options(rng: random.Random, question: tuple[str, str, str], right: int) -> list[str]:
    """The four options in random order, the right one at place `right`."""
    options = question[2].split()
    rng.shuffle(options)
    options.insert(right, question[1])
    return options


def _fields(question: str, options: list[str]) -> dict[str, str]:
    """What stands in the layout."""
    letters = {f"letter{i}": letter for i, letter in enumerate(LETTERS)}
    return {"question": question, **letters, **{f"option{i}": option for i, option in enumerate(options)}}


def _spans(front: int, fields: dict[str, str], right: int, wrong: int) -> Slots:
    """Those of the question that is asked, behind so many characters."""
    names = {"question": "question"}
    for place, name in ((right, "right"), (wrong, "wrong")):
        names |= {f"letter{place}": f"{name} letter", f"option{place}": name}
    found = field_spans(LAYOUT, fields, names)
    return tuple(replace(one, start=one.start + front, stop=one.stop and one.stop + front) for one in found)

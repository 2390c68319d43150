"""Facts in mirrored pairs: two of one kind whose answers differ, each true of one and false of the other.

Whatever a word, its length or its place might say of truth by itself, it says as often of falsehood.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from interp.errors import InputError
from interp.tasks.builtin.capitals import CAPITALS
from interp.tasks.facts.words import ALSO, CATEGORIES, NUMBERS, OPPOSITES

KINDS = ("capitals", "arithmetic", "categories", "opposites", "negations")


@dataclass(frozen=True)
class Fact:
    """A fact as a question and as the beginning of a sentence that `answer`, one word, makes true."""

    kind: str
    subject: str
    question: str
    stem: str
    answer: str

    def negated(self) -> Fact:
        """The same about what does not hold: `answer` makes the sentence false."""
        asked = self.question.replace("What is", "What is not", 1)
        if asked == self.question:
            asked = f"{self.question[:-1]} not?"
        return Fact("negations", self.subject, asked, self.stem.replace(" is", " is not", 1), self.answer)


@dataclass(frozen=True)
class Pair:
    """Two facts of one kind with different answers."""

    first: Fact
    second: Fact

    @property
    def kind(self) -> str:
        """What both are about."""
        return self.first.kind

    def asked(self) -> Iterator[tuple[Fact, str, str]]:
        """Each fact with the true and the false answer: of a negation the other fact's answer is the true one."""
        for one, other in ((self.first, self.second), (self.second, self.first)):
            answers = (one.answer, other.answer) if self.kind != "negations" else (other.answer, one.answer)
            yield one, *answers


@functools.cache
def facts(kind: str) -> tuple[Fact, ...]:
    """All facts of a kind; of negations those of capitals, categories and opposites."""
    if kind == "capitals":
        rows = [(x, f"What is the capital of {x}?", f"The capital of {x} is", y) for x, y in CAPITALS.items()]
    elif kind == "arithmetic":
        rows = [(f"{x} {sign} {y}", f"What is {x} {sign} {y}?", f"{x.capitalize()} {sign} {y} is", result)
                for x, sign, y, result in _sums()]  # fmt: skip
    elif kind == "categories":
        rows = [
            (x, f"What kind of thing is {x}?", f"{x[0].upper()}{x[1:]} is a kind of", y)
            for y, members in CATEGORIES.items()
            for x in members.split(", ")
        ]
    elif kind == "opposites":
        both = [pair for one in OPPOSITES for pair in (one, one[::-1])]
        rows = [(x, f"What is the opposite of {x}?", f"The opposite of {x} is", y) for x, y in both]
    else:
        return tuple(fact for one in ("capitals", "categories", "opposites") for fact in facts(one))
    return tuple(Fact(kind, *row) for row in rows)


def _sums() -> Iterator[tuple[str, str, str, str]]:
    for a in range(1, 11):
        for b in range(1, 11):
            yield NUMBERS[a], "plus", NUMBERS[b], NUMBERS[a + b]
            if a >= b:
                yield NUMBERS[a], "minus", NUMBERS[b], NUMBERS[a - b]


def draw_pairs(n: int, seed: int, kinds: tuple[str, ...], fit: Callable[[str, str], bool]) -> list[Pair]:
    """`n` pairs, the kinds taking turns, no fact in two of them; `fit` says of two answers whether they may be a pair.

    Fewer pairs are the first of more. Raises `InputError` where there are not so many.
    """
    streams = {kind: _pairs(kind, random.Random(f"{seed} {kind}"), fit) for kind in kinds}
    found: list[Pair] = []
    for number in range(n):
        kind = kinds[number % len(kinds)]
        pair = next(streams[kind], None)
        if pair is None:
            raise InputError(f"n is too large: {kind} have no further pair of facts after {number} pairs; ask for less")
        found.append(pair)
    return found


def _pairs(kind: str, rng: random.Random, fit: Callable[[str, str], bool]) -> Iterator[Pair]:
    """Pairs of facts in random order, until no two are left that go together."""
    left = rng.sample(facts(kind), len(facts(kind)))
    while left:
        first = left.pop()
        for place in reversed(range(len(left))):
            pair = Pair(first, left[place])
            if _apart(pair) and fit(first.answer, left[place].answer):
                del left[place]
                yield pair if kind != "negations" else Pair(pair.first.negated(), pair.second.negated())
                break


def _apart(pair: Pair) -> bool:
    """Whether both are of one kind, each answer is false of the other fact, and is no word of what is asked about."""
    answers, subjects = {pair.first.answer, pair.second.answer}, {pair.first.subject, pair.second.subject}
    words = {word for subject in subjects for word in subject.split()}
    if pair.first.kind != pair.second.kind:
        return False
    return len(answers) == len(subjects) == 2 and not answers & words and answers not in ALSO

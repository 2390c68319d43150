"""Stories of people, places and moves, as in bAbI, from a generator of our own: "where is X?" has one answer.

A story of the kind `one` asks where a person is: its one supporting fact is the person's last move. A story of the
kind `two` asks where a thing is: its supporting facts are who took it and where that person went last. Everything
else distracts: moves of others, earlier moves, things that others took. The words of the supporting facts
without which nobody can answer are known, so that an explanation can be compared with the truth.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor

from interp.errors import InputError, choose

KINDS = ("one", "two")
PEOPLE = ("mary", "john", "anna", "paul", "lucy", "omar")
PLACES = ("kitchen", "garden", "office", "cellar", "attic", "hall")
THINGS = ("lamp", "book", "apple", "coat")
MOVES = ("went to", "walked to", "ran to", "hurried to")
TAKES = ("took", "picked up", "grabbed")
QUESTIONS = {"one": "where is {} ?", "two": "where is the {} ?"}

PAD, MASK = 0, 1
_WORDS = sorted(
    {w for part in (PEOPLE, PLACES, THINGS, MOVES, TAKES) for phrase in part for w in phrase.split()}
    | {"the", "where", "is", "?", "."}
)
VOCABULARY = ("<pad>", "<mask>", *_WORDS)
IDS = {word: i for i, word in enumerate(VOCABULARY)}
LONGEST = 6  # words of a sentence; a question has up to five


class Story(NamedTuple):
    """Words, and for each the sentence it stands in (the question is the last one); which words must be known."""

    words: list[str]
    sentence: list[int]
    facts: list[bool]  # does the word belong to a supporting fact
    needed: list[bool]  # is it a name, thing or place of a supporting fact
    answer: str


class Stories(NamedTuple):
    """Many stories [n, pos], padded in front, so that the question always ends at the last place.

    `maskable`: words of the story, not those of the question. `facts`: words of the supporting facts; `needed`: those
    without which there is no answer. `kinds` [n]: index into `KINDS`.
    """

    ids: Tensor
    labels: Tensor
    maskable: Tensor
    facts: Tensor
    needed: Tensor
    kinds: Tensor


def story(kind: str, draw: random.Random, sentences: int = 5) -> Story:
    """One story of so many sentences (three at least), drawn anew.

    The last move of the person asked for stands at each place of the story equally often, and others' moves lead to
    all places equally often: without the question no place of the story gives the answer away.
    """
    choose("kind", kind, KINDS)
    if not 3 <= sentences <= 6:
        raise InputError(f"sentences={sentences} must be from 3 to 6")
    asked, *others = draw.sample(PEOPLE, 3)
    thing, *things = draw.sample(THINGS, 3)
    answer, *elsewhere = draw.sample(PLACES, len(PLACES))
    told: list[tuple[str, tuple[str, ...], bool]] = []  # sentence, its words that matter, is it a supporting fact

    def move(person: str, place: str, supports: bool = False) -> None:
        told.append((f"{person} {draw.choice(MOVES)} the {place} .", (person, place), supports))

    def take(person: str, what: str, supports: bool = False) -> None:
        told.append((f"{person} {draw.choice(TAKES)} the {what} .", (person, what), supports))

    moved, taken = draw.randrange(sentences), None
    if kind == "two":
        taken = draw.choice([i for i in range(sentences) if i != moved])
    for number in range(sentences):
        if number == moved:
            move(asked, answer, True)
        elif number == taken:
            take(asked, thing, True)
        elif kind == "two" and things and draw.random() < 0.25:
            take(draw.choice(others), things.pop())
        elif number < moved and draw.random() < 0.25:
            move(asked, draw.choice(elsewhere))
        else:
            move(draw.choice(others), draw.choice(PLACES))
    question = QUESTIONS[kind].format(asked if kind == "one" else thing)
    words, sentence, facts, needed = [], [], [], []
    for number, (text, keys, supports) in enumerate([*told, (question, (), False)]):
        for word in text.split():
            words.append(word)
            sentence.append(number)
            facts.append(supports)
            needed.append(supports and word in keys)
    return Story(words, sentence, facts, needed, answer)


def stories(n: int, seed: int, kinds: tuple[str, ...] = KINDS, sentences: int = 5) -> Stories:
    """`n` stories, the kinds in turn. The same seed gives the same stories."""
    draw = random.Random(f"stories {seed}")
    told = [story(kinds[i % len(kinds)], draw, sentences) for i in range(n)]
    length = LONGEST * sentences + 5

    def padded(rows: list[list[int]]) -> Tensor:
        return torch.tensor([[PAD] * (length - len(row)) + row for row in rows])

    return Stories(
        ids=padded([[IDS[word] for word in one.words] for one in told]),
        labels=torch.tensor([PLACES.index(one.answer) for one in told]),
        maskable=padded([[number < sentences for number in one.sentence] for one in told]).bool(),
        facts=padded([list(map(int, one.facts)) for one in told]).bool(),
        needed=padded([list(map(int, one.needed)) for one in told]).bool(),
        kinds=torch.tensor([KINDS.index(kinds[i % len(kinds)]) for i in range(n)]),
    )


def text(ids: Tensor) -> str:
    """Ids [pos] as words."""
    return " ".join(VOCABULARY[i] for i in ids.tolist() if i != PAD)


SHORT_CUTS = ("the last place", "the first place", "the place told most often")


def short_cuts(drawn: Stories) -> dict[str, float]:
    """How many stories are answered rightly by who reads no question: by the name of the short cut."""
    right = dict.fromkeys(SHORT_CUTS, 0)
    for ids, label in zip(drawn.ids, drawn.labels.tolist(), strict=True):
        told = [word for word in text(ids).split() if word in PLACES]
        guesses = (told[-1], told[0], max(told[::-1], key=told.count))  # of several the latest
        for name, guess in zip(SHORT_CUTS, guesses, strict=True):
            right[name] += PLACES.index(guess) == label
    return {name: count / len(drawn.labels) for name, count in right.items()}


def main() -> None:
    """Print some stories with their answers, words that are needed in capitals, and how far short cuts lead."""
    drawn = stories(6, seed=0)
    for ids, label, needed in zip(drawn.ids, drawn.labels, drawn.needed, strict=True):
        words = [VOCABULARY[i].upper() if n else VOCABULARY[i] for i, n in zip(ids, needed, strict=True) if i != PAD]
        print(f"{' '.join(words)}  ->  {PLACES[label]}")
    for kind in KINDS:
        found = short_cuts(stories(2000, 1, (kind,)))
        print(f"{kind}: " + ", ".join(f"{name} {share:.3f}" for name, share in found.items()))


if __name__ == "__main__":
    main()

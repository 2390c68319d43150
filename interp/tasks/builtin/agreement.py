"""Subject-verb agreement across a distractor noun."""

from __future__ import annotations

import random
from typing import Any, Literal

from interp import numbers
from interp.errors import choose
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build
from interp.tasks.spans import field_spans
from interp.tasks.task import Task

ABOUT = About("agreement", "the verb that agrees with the subject across another noun")

Distractor = Literal["opposite", "same", "both"]

SUBJECTS = (
    ("key", "keys"), ("book", "books"), ("letter", "letters"), ("picture", "pictures"), ("house", "houses"),
    ("car", "cars"), ("table", "tables"), ("teacher", "teachers"), ("student", "students"), ("doctor", "doctors"),
    ("bird", "birds"), ("tree", "trees"), ("road", "roads"), ("box", "boxes"), ("song", "songs"), ("game", "games"),
    ("plant", "plants"), ("painting", "paintings"), ("friend", "friends"), ("machine", "machines"),
)  # fmt: skip
DISTRACTORS = (
    ("cabinet", "cabinets"), ("window", "windows"), ("door", "doors"), ("wall", "walls"), ("garden", "gardens"),
    ("building", "buildings"), ("bridge", "bridges"), ("farmer", "farmers"), ("river", "rivers"),
    ("church", "churches"), ("tower", "towers"), ("field", "fields"), ("school", "schools"),
    ("chair", "chairs"), ("lake", "lakes"),
)  # fmt: skip
OPENINGS = ("We noticed that the", "I think that the", "As everybody knows, the", "It is true that the")
LINKS = ("near", "behind", "beside", "by", "next to", "in front of")
VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))


@numbers.checked(n=numbers.COUNT)
def agreement(
    n: int = 64,
    seed: int = 0,
    model: Any = None,
    *,
    distractor: Distractor = "opposite",
) -> Task:
    """Agreement in number: "We noticed that the keys near the cabinet" is continued by " are", not " is".

    Singular and plural subjects take turns, and the verbs (be, was, have) vary. The corrupted prompt has the
    subject in the other number. Linzen et al. 2016 (arXiv 1611.01368) describe the behaviour; the words are
    ours. Spans: subject, link, distractor (the last word).

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose tokenizer they must suit: every subject one token in both numbers.
        distractor: number of the noun between subject and verb, compared with the clean subject's.

    Raises `InputError` for an unknown `distractor`, and where the tokenizer does not allow `n` prompts.

    >>> agreement(n=1).examples[0].incorrect in [(" is",), (" are",), (" was",), (" were",), (" has",), (" have",)]
    True
    """
    choose("distractor", distractor, ("opposite", "same", "both"))

    def draw(rng: random.Random, number: int) -> Candidate:
        subject, other, verb = rng.choice(SUBJECTS), rng.choice(DISTRACTORS), rng.choice(VERBS)
        plural = number % 2
        differs = {"opposite": True, "same": False, "both": number // 2 % 2 == 0}[distractor]
        noun = other[1 - plural if differs else plural]
        opening, link = rng.choice(OPENINGS), rng.choice(LINKS)
        fields = {"subject": subject[plural], "link": link, "distractor": noun}
        wording = f"{opening} {{subject}} {{link}} the {{distractor}}"
        example = Example(
            clean=wording.format(**fields),
            corrupted=f"{opening} {subject[1 - plural]} {link} the {noun}",
            correct=(verb[plural],),
            incorrect=(verb[1 - plural],),
            spans=field_spans(wording, fields, {name: name for name in fields}),
        )
        return Candidate(example, single=tuple(f" {form}" for form in subject))

    return build(ABOUT, draw, n, seed, model, parameters={"distractor": distractor})

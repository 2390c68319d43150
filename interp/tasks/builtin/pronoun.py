"""The pronoun for a gendered first name."""

from __future__ import annotations

import random
from typing import Any

from interp import numbers
from interp.tasks.builtin.words import MEN, WOMEN
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build
from interp.tasks.spans import field_spans, with_end
from interp.tasks.task import Task

ABOUT = About("pronoun", "he or she, by the first name")

TEMPLATES = (
    "So {name} is a really {trait} {job}, isn't",
    "I think that {name} is a {trait} {job}, isn't",
    "They say {name} was a very {trait} {job}, wasn't",
    "You know that {name} has become a {trait} {job}, hasn't",
)
TRAITS = (
    "good", "great", "famous", "young", "clever", "kind", "busy", "careful", "popular", "brave",
)  # fmt: skip
JOBS = (
    "doctor", "teacher", "lawyer", "writer", "singer", "student", "artist", "friend", "neighbor",
    "scientist", "dancer", "player",
)  # fmt: skip


@numbers.checked(n=numbers.COUNT)
def pronoun(n: int = 64, seed: int = 0, model: Any = None) -> Task:
    """Gendered pronouns: "So Mary is a really good doctor, isn't" is continued by " she", not " he".

    Women's and men's names take turns; the corrupted prompt has a name of the other kind. Mathwin et al. 2023
    describe the behaviour; the words are ours. Spans: name, trait, job, end.

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose tokenizer they must suit: every name one token.

    Raises `InputError` where the tokenizer does not allow `n` prompts.

    >>> pronoun(n=1).examples[0].correct
    (' she',)
    """

    def draw(rng: random.Random, number: int) -> Candidate:
        names, answers = [rng.choice(WOMEN), rng.choice(MEN)], [" she", " he"]
        if number % 2:
            names.reverse()
            answers.reverse()
        wording, words = rng.choice(TEMPLATES), {"trait": rng.choice(TRAITS), "job": rng.choice(JOBS)}
        clean, corrupted = (wording.format(name=name, **words) for name in names)
        found = field_spans(wording, {"name": names[0], **words}, {one: one for one in ("name", "trait", "job")})
        example = Example(clean, corrupted, (answers[0],), (answers[1],), spans=with_end(found, clean))
        return Candidate(example, single=tuple(f" {name}" for name in names))

    return build(ABOUT, draw, n, seed, model)

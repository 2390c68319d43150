"""Indirect object identification: who receives what the repeated name gives."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Literal

from interp import numbers
from interp.errors import InputError, choose
from interp.tasks.builtin.words import MEN, WOMEN
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build
from interp.tasks.spans import Slot, Slots, field_spans, with_end
from interp.tasks.task import Task

ABOUT = About("ioi", "the recipient of what the repeated name gives")

Corruption = Literal["second-subject", "third-name", "all-names"]

FIELDS = ("first", "second", "subject")
TEMPLATES = (
    "When {first} and {second} went to the {place}, {subject} gave a {thing} to",
    "After {first} and {second} left the {place}, {subject} handed a {thing} to",
    "While {first} and {second} were waiting at the {place}, {subject} offered a {thing} to",
    "Once {first} and {second} came back from the {place}, {subject} gave the {thing} to",
    "Yesterday {first} and {second} met near the {place}, and {subject} sold a {thing} to",
    "Then {first} and {second} had a long talk in the {place}, and {subject} lent a {thing} to",
    "Last week {first} and {second} worked at the {place}, and {subject} sent a {thing} to",
)
PLACES = (
    "store", "park", "school", "station", "garden", "library", "market", "office", "hospital", "restaurant",
    "museum", "hotel",
)  # fmt: skip
THINGS = (
    "drink", "book", "ball", "letter", "ticket", "map", "gift", "coat", "bag", "key", "picture", "pen",
)  # fmt: skip


@numbers.checked(n=numbers.COUNT)
def ioi(
    n: int = 64,
    seed: int = 0,
    model: Any = None,
    *,
    corruption: Corruption = "second-subject",
    templates: Sequence[str] | None = None,
) -> Task:
    """Indirect objects: "When Mary and John went to the store, John gave a drink to" is continued by " Mary".

    The recipient stands first in every other prompt (A B B A) and second in the rest (B A B A). Wang et al.
    2023 (arXiv 2211.00593) describe the behaviour; templates and words are ours. Spans: IO, S1, S2, place, thing, verb
    (the word behind S2), end.

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose tokenizer they must suit: every name one token.
        corruption: `second-subject`: the second mention of the giver becomes the recipient, so that the answer
            is exchanged; `third-name`: it becomes a third name, which leaves no answer; `all-names`: all three
            names become new, different ones.
        templates: to use instead of ours; each has the fields {first}, {second}, {subject}, and maybe {place} and
            {thing}.

    Raises `InputError` for an unknown `corruption`, for templates that lack fields, and where the tokenizer does not
    allow `n` prompts.

    >>> task = ioi(n=2)
    >>> task.examples[0].correct != task.examples[0].incorrect
    True
    """
    choose("corruption", corruption, ("second-subject", "third-name", "all-names"))
    wordings = TEMPLATES if templates is None else tuple(templates)
    if not wordings:
        raise InputError("templates is empty; give at least one, or None for the built-in ones")
    for wording in wordings:
        _check_template(wording)

    def draw(rng: random.Random, number: int) -> Candidate:
        recipient, giver, *others = rng.sample(WOMEN + MEN, 5)
        words = {"place": rng.choice(PLACES), "thing": rng.choice(THINGS)}
        wording = rng.choice(wordings)
        first, second = (recipient, giver) if number % 2 == 0 else (giver, recipient)
        names = dict(zip(FIELDS, (first, second, giver), strict=True))
        changed = {
            "second-subject": {"subject": recipient},
            "third-name": {"subject": others[0]},
            "all-names": dict(zip(FIELDS, others, strict=True)),
        }[corruption]
        clean = wording.format(**words, **names)
        example = Example(
            clean=clean,
            corrupted=wording.format(**words, **(names | changed)),
            correct=(f" {recipient}",),
            incorrect=(f" {giver}",),
            spans=_spans(wording, words | names, clean, recipient),
        )
        return Candidate(example, single=tuple(f" {name}" for name in changed.values()))

    parameters: dict[str, Any] = {"corruption": corruption}
    if templates is not None:
        parameters["templates"] = list(wordings)
    return build(ABOUT, draw, n, seed, model, parameters=parameters)


def _spans(wording: str, fields: dict[str, str], clean: str, recipient: str) -> Slots:
    """IO, S1 and S2 as in the paper, place, thing, the verb behind S2, and the end."""
    called = {field: "IO" if fields[field] == recipient else "S1" for field in ("first", "second")}
    found = field_spans(wording, fields, {**called, "subject": "S2", "place": "place", "thing": "thing"})
    giver = next(slot for slot in found if slot.name == "S2")
    verb = re.compile(r" (\w+)").match(clean, giver.stop or 0)
    if verb is not None:
        found += (Slot("verb", *verb.span(1), characters=True),)
    return with_end(found, clean)


def _check_template(template: str) -> None:
    try:
        template.format(first="", second="", subject="", place="", thing="")
        complete = all(f"{{{field}}}" in template for field in FIELDS)
    except (KeyError, IndexError, ValueError):
        complete = False
    if not complete:
        raise InputError(
            f"templates holds {template!r}; a template needs the fields {{first}}, {{second}} and {{subject}}, and may "
            "have {place} and {thing}"
        )

"""Years: an end that comes after the beginning."""

from __future__ import annotations

import random
from typing import Any

from interp import numbers
from interp.errors import InputError
from interp.tasks.encoding import Encoder
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build, encoder_of
from interp.tasks.spans import field_spans
from interp.tasks.task import Task
from interp.token_text import token_texts

ABOUT = About("greater_than", "a year later than the one named before", objective="probability-difference")

NOUNS = (
    "war", "reign", "siege", "project", "voyage", "alliance", "strike", "dispute", "marriage",
    "construction", "rebellion", "expedition", "treaty",
)  # fmt: skip
TEMPLATES = (
    "The {noun} lasted from the year {start} to the year {end}",
    "The {noun} began in {start} and ended in {end}",
    "The {noun} went on from {start} until {end}",
)
CENTURIES = tuple(range(11, 19))

_SPANS = {"noun": "noun", "start": "year", "end": "end"}

# how a tokenizer cuts the year 1754, and which of its digits are the answer: [from, to)
FORMS = {(2, 2): (2, 4), (1, 1, 1, 1): (2, 3), (3, 1): (3, 4)}


@numbers.checked(n=numbers.COUNT)
def greater_than(n: int = 64, seed: int = 0, model: Any = None) -> Task:
    """Later years: "The war lasted from the year 1732 to the year 17" is continued by 33 to 99.

    What has to follow depends on how the tokenizer cuts a year:

    - in two (17|32): all two-digit tokens above 32 are correct, all others incorrect; the corrupted prompt starts
      in the year 1701, after which nearly everything is later;
    - in digits (1|7|3|2): the tens digit is the answer, digits above 3 are correct, those below incorrect (3
      itself may be either); the corrupted prompt starts in 1702;
    - in three and one (173|2): the prompt ends in 173, digits above 2 are correct, those below incorrect; the
      corrupted prompt starts in 1730.

    Spans: noun, year, end.

    The objective is the difference of probabilities. Hanna et al. 2023 (arXiv 2305.00586) describe the behaviour.

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose tokenizer they must suit; the two-digit form without one.

    Raises `InputError` for a tokenizer that cuts years in another way.

    >>> task = greater_than(n=1)
    >>> len(task.examples[0].correct) + len(task.examples[0].incorrect)
    100
    """
    encoder = encoder_of(model)
    form = (2, 2) if encoder is None else _cut(encoder, "1754")
    begin, end = FORMS.get(form, (0, 0))
    years = [
        (year, low)
        for year, low in _years(begin, end)
        if encoder is None or _cut(encoder, year) == _cut(encoder, low) == form
    ]
    if not years:
        raise InputError(
            f"the tokenizer cuts the year 1754 into pieces of {', '.join(map(str, form))} characters; greater_than "
            "needs one that cuts years into pieces of 2 and 2, of 3 and 1, or single digits"
        )
    numbers = [f"{number:0{end - begin}}" for number in range(10 ** (end - begin))]

    def draw(rng: random.Random, number: int) -> Candidate:
        year, low = rng.choice(years)
        noun, wording = rng.choice(NOUNS), rng.choice(TEMPLATES)
        shown = year[begin:end]
        return Candidate(
            Example(
                clean=wording.format(noun=noun, start=year, end=year[:begin]),
                corrupted=wording.format(noun=noun, start=low, end=year[:begin]),
                correct=tuple(answer for answer in numbers if answer > shown),
                # as the second half of a year is never repeated, it is wrong; a single digit may be either
                incorrect=tuple(answer for answer in numbers if answer < shown or (answer == shown and form == (2, 2))),
                spans=field_spans(wording, {"noun": noun, "start": year, "end": year[:begin]}, _SPANS),
            )
        )

    return build(ABOUT, draw, n, seed, model, parameters={"pieces": list(form)})


def _cut(encoder: Encoder, year: str) -> tuple[int, ...]:
    """Lengths of the pieces of a year within a sentence, without the space before it."""
    pieces = [text.strip() for text in token_texts(encoder.tokenizer, encoder.pieces(f" {year}"))]
    return tuple(len(piece) for piece in pieces if piece)


def _years(begin: int, end: int) -> list[tuple[str, str]]:
    """Years and the corrupted ones, for digits [begin, end) as answers; both smaller and larger ones exist.

    >>> _years(2, 4)[30], _years(2, 3)[12]
    (('1132', '1101'), ('1132', '1102'))
    """
    low, bounds = {2: ("01", ("02", "98")), 1: ("0", ("2", "7")), 0: ("", ("1", "0"))}[end - begin]
    years = [f"{century}{rest:02}" for century in CENTURIES for rest in range(100)]
    return [(year, year[:begin] + low + year[end:]) for year in years if bounds[0] <= year[begin:end] <= bounds[1]]

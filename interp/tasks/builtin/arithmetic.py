"""Sums and differences of two numbers."""

from __future__ import annotations

import random
from typing import Any, Literal

from interp import numbers
from interp.errors import InputError, choose
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build, encoder_of
from interp.tasks.spans import Slots, field_spans, with_end
from interp.tasks.task import Task

ABOUT = About("arithmetic", "the result of adding or subtracting two numbers")

Operation = Literal["addition", "subtraction", "both"]
SIGNS = {"addition": "+", "subtraction": "-", "both": "+-"}


@numbers.checked(n=numbers.COUNT, maximum=numbers.Limits(3), shots=numbers.FROM_ZERO)
def arithmetic(
    n: int = 64,
    seed: int = 0,
    model: Any = None,
    *,
    operation: Operation = "both",
    maximum: int = 9,
    shots: int = 2,
) -> Task:
    """Calculating: "2 + 3 = 5, 9 - 2 = 7, 3 + 4 =" is continued by " 7".

    In the corrupted prompt one operand of the last calculation is another; its result is the incorrect answer.
    A tokenizer that makes two tokens of " 7" gets prompts that end with the space. Small models need the solved
    examples, and fail at larger numbers: see `Task.check`. Spans: first, sign, second (of the last calculation), end.

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose tokenizer they must suit.
        operation: `addition`, `subtraction` or `both`.
        maximum: the largest operand and result. Results of more than one token are dropped, so that tokenizers
            that split digits stay with results up to 9.
        shots: number of solved examples in front; none is the calculation asked for, clean or corrupted.

    Raises `InputError` for settings that leave no calculations, and where the tokenizer does not allow `n` prompts.

    >>> example = arithmetic(n=1, operation="addition", shots=1).examples[0]
    >>> example.clean.count("+"), example.clean.endswith(" =")
    (2, True)
    """
    choose("operation", operation, SIGNS)
    encoder = encoder_of(model)
    spaced = encoder is None or encoder.is_single(" 7")
    problems = [
        (a, sign, b)
        for sign in SIGNS[operation]
        for a in range(1, maximum + 1)
        for b in range(1, maximum + 1)
        if 0 <= _result(a, sign, b) <= maximum
    ]
    if shots > len(problems) - 2:
        raise InputError(f"shots={shots} is too large: maximum={maximum} leaves {len(problems) - 2} other calculations")

    def draw(rng: random.Random, number: int) -> Candidate:
        asked = a, sign, b = rng.choice(problems)
        changed = rng.choice([other for other in _neighbours(a, sign, b, maximum) if other != asked])
        solved = [problem for problem in rng.sample(problems, shots + 2) if problem not in (asked, changed)]
        front = "".join(f"{_write(problem)} {_result(*problem)}, " for problem in solved[:shots])
        space, gap = (" ", "") if spaced else ("", " ")
        return Candidate(
            Example(
                clean=f"{front}{_write(asked)}{gap}",
                corrupted=f"{front}{_write(changed)}{gap}",
                correct=(f"{space}{_result(*asked)}",),
                incorrect=(f"{space}{_result(*changed)}",),
                spans=_spans(front, asked, gap),
            )
        )

    return build(ABOUT, draw, n, seed, model, parameters={"operation": operation, "maximum": maximum, "shots": shots})


def _spans(front: str, asked: tuple[int, str, int], gap: str) -> Slots:
    """Both operands and the sign of the calculation that is asked for, and the end."""
    names = ("first", "sign", "second")
    fields = {"front": front, **{name: str(part) for name, part in zip(names, asked, strict=True)}}
    found = field_spans("{front}{first} {sign} {second}", fields, {name: name for name in names})
    return with_end(found, f"{front}{_write(asked)}{gap}")


def _neighbours(a: int, sign: str, b: int, maximum: int) -> list[tuple[int, str, int]]:
    """The calculation, and those with another first or second operand whose result is allowed."""
    operands = range(1, maximum + 1)
    near = [(other, sign, b) for other in operands] + [(a, sign, other) for other in operands]
    return [problem for problem in near if 0 <= _result(*problem) <= maximum]


def _write(problem: tuple[int, str, int]) -> str:
    return f"{problem[0]} {problem[1]} {problem[2]} ="


def _result(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b

"""Python source of a program that was found: written, and run as it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_lowercase
from typing import Any

from circuits.programs.formulas import Formula

INDENT = "    "


def state_names(n: int) -> list[str]:
    """Names of the numbers of a state: a, b, c ...; beyond w, which inputs come near to, s0, s1 ...

    >>> state_names(3)
    ['a', 'b', 'c']
    """
    return list(ascii_lowercase[:n]) if n <= 20 else [f"s{index}" for index in range(n)]


def input_names(n: int) -> list[str]:
    """Names of the numbers that are read at a position.

    >>> input_names(1), input_names(2)
    (['x'], ['x1', 'x2'])
    """
    return ["x"] if n == 1 else [f"x{index + 1}" for index in range(n)]


def output_names(n: int) -> list[str]:
    """Names of the numbers that are answered.

    >>> output_names(2)
    ['y1', 'y2']
    """
    return ["y"] if n == 1 else [f"y{index + 1}" for index in range(n)]


def python_source(
    start: Sequence[int], steps: Sequence[Formula], outputs: Sequence[Formula], inputs: int, told: str
) -> str:
    """A module with one function, `program(xs)`, that gives the answers to a list of numbers (or of tuples).

    Args:
        start: the state's numbers before anything is read.
        steps: of each of them what comes next, from the state and the input.
        outputs: what is answered, from the new state.
        inputs: numbers at a position.
        told: a sentence for the docstring.
    """
    names = ", ".join(state_names(len(start)))
    said = ", ".join(one.text for one in outputs)
    lines = [
        "def program(xs):",
        f'{INDENT}"""{told}"""',
        f"{INDENT}{names} = {', '.join(map(str, start))}",
        f"{INDENT}ys = []",
        f"{INDENT}for {', '.join(input_names(inputs))} in xs:",
        f"{INDENT * 2}{names} = {', '.join(one.text for one in steps)}",
        f"{INDENT * 2}ys.append({said if len(outputs) == 1 else f'({said})'})",
        f"{INDENT}return ys",
    ]
    return "\n".join(lines) + "\n"


def compiled(source: str) -> Callable[[Sequence[Any]], list[Any]]:
    """The function `program` of a source that `python_source` wrote just now, never of one out of a file."""
    space: dict[str, Any] = {}
    exec(compile(source, "<program>", "exec"), space)
    found: Callable[[Sequence[Any]], list[Any]] = space["program"]
    return found

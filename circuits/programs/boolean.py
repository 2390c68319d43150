"""Boolean functions as formulas: of the number of ones, or as a short disjunction of conjunctions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

MOST = 6  # variables of a disjunction

Cube = tuple[int | None, ...]  # a conjunction: of each variable 1, 0, or None where it does not matter


def symmetric(target: NDArray[np.int64], variables: Mapping[str, NDArray[np.int64]]) -> str | None:
    """The formula of a function of how many variables are 1: a parity, or a list of numbers; None where it is no such.

    >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> symmetric(a ^ b, {"a": a, "b": b}), symmetric(1 - (a ^ b), {"a": a, "b": b})
    ('(a + b) % 2', 'int(a + b in (0, 2))')
    """
    ones = np.sum(list(variables.values()), axis=0)
    true = sorted(set(ones[target == 1].tolist()))
    if not true or set(true) & set(ones[target == 0].tolist()):
        return None
    text = " + ".join(variables)
    if np.array_equal(ones % 2, target):
        return f"({text}) % 2"
    return f"int({text} in {tuple(true)})" if len(true) > 1 else f"int({text} == {true[0]})"


def disjunction(target: NDArray[np.int64], variables: Mapping[str, NDArray[np.int64]]) -> str | None:
    """A short disjunctive normal form (Quine 1952, McCluskey 1956; a greedy cover); None for more than six variables.

    What was not seen may come out either way.

    >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> disjunction(a ^ b, {"a": a, "b": b})
    'int(a and not b or b and not a)'
    """
    if len(variables) > MOST:
        return None
    rows = list(zip(*(column.tolist() for column in variables.values()), strict=True))
    true = {row for row, value in zip(rows, target.tolist(), strict=True) if value}
    false = {row for row, value in zip(rows, target.tolist(), strict=True) if not value}
    if not true or not false or true & false:
        return None
    left, chosen = set(true), []
    implicants = _implicants(len(variables), true, false)
    while left:
        best = max(implicants, key=lambda cube: sum(_holds(cube, row) for row in left))
        chosen.append(best)
        left = {row for row in left if not _holds(best, row)}
    return f"int({' or '.join(sorted(_written(cube, list(variables)) for cube in chosen))})"


def _implicants(n: int, true: set[tuple[int, ...]], false: set[tuple[int, ...]]) -> list[Cube]:
    """Conjunctions that no false row fulfils and some true one does, those of few variables first."""
    found: list[Cube] = []
    for size in range(1, n + 1):
        for kept in combinations(range(n), size):
            for row in sorted(true):
                cube: Cube = tuple(row[at] if at in kept else None for at in range(n))
                if cube not in found and not any(_holds(cube, other) for other in false):
                    found.append(cube)
    return found


def _holds(cube: Cube, row: Sequence[int]) -> bool:
    return all(wanted is None or wanted == value for wanted, value in zip(cube, row, strict=True))


def _written(cube: Cube, names: list[str]) -> str:
    signs = [(name, value) for name, value in zip(names, cube, strict=True) if value is not None]
    return " and ".join(
        [name for name, value in signs if value] + [f"not {name}" for name, value in signs if not value]
    )

"""Formulas of whole numbers: affine, affine with one more term, or Boolean; of all that fit the shortest is taken."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.programs.boolean import disjunction, symmetric

Column = NDArray[np.int64]
Variables = Mapping[str, Column]
ROWS = 300  # on which terms are tried; those that fit are checked on all
LARGEST = 16  # modulus
WIDE = 40  # a range beyond which thresholds are tried near zero alone
MANY = 5  # variables that a term may be of


@dataclass(frozen=True)
class Formula:
    """A Python expression, and its kind: "linear", "symbolic" (one more term), "symmetric" or "disjunction"."""

    text: str
    kind: str

    @property
    def length(self) -> int:
        """Names, numbers and operators: by this formulas are compared.

        >>> Formula("(a + 12*x) % 2", "symbolic").length
        7
        """
        return len(re.findall(r"\w+|//|>=|==|[-+*%]", self.text))


def formula(target: Column, variables: Variables) -> Formula | None:
    """The shortest formula of `variables` [n] that gives `target` [n] in every row; None where none of ours does."""
    linear = affine(target, variables)
    if linear is not None:
        return Formula(linear, "linear")
    found = list(_symbolic(target, variables)) if len(variables) <= MANY else []
    bits = all(set(np.unique(column)) <= {0, 1} for column in (target, *variables.values()))
    for kind, write in (("symmetric", symmetric), ("disjunction", disjunction)) if bits else ():
        text = write(target, variables)
        found += [Formula(text, kind)] if text is not None else []
    return min(found, key=lambda one: (one.length, one.text.count("-"), len(one.text)), default=None)


def affine(target: Column, variables: Variables) -> str | None:
    """The formula of a sum of whole multiples of variables and a constant; None where the target is none.

    >>> affine(np.array([1, 3, 0]), {"a": np.array([0, 1, 0]), "b": np.array([0, 0, 1])})
    '2*a + 1 - b'
    """
    names, columns = _independent(variables, len(target))
    found = np.linalg.lstsq(columns, target.astype(np.float64), rcond=None)[0].round()
    if not np.array_equal(columns @ found, target):
        return None
    return written(dict(zip(names, found[1:].astype(int).tolist(), strict=True)), int(found[0]))


def written(times: Mapping[str, int], constant: int) -> str:
    """A sum as Python.

    >>> written({"a": 1, "b": -2, "(x % 3)": 0}, -1), written({"a": -1}, 1)
    ('a - 2*b - 1', '1 - a')
    """
    parts = [(value, name if abs(value) == 1 else f"{abs(value)}*{name}") for name, value in times.items() if value]
    parts += [(constant, str(abs(constant)))] if constant or not parts else []
    parts.sort(key=lambda part: part[0] < 0)  # what is taken away comes behind
    text = " ".join(f"{'-' if value < 0 else '+'} {part}" for value, part in parts)
    return text[2:] if text.startswith("+") else f"-{text[2:]}"


def _independent(variables: Variables, n: int) -> tuple[list[str], NDArray[Any]]:
    """Names of variables, and their columns behind one of ones, without those that others give."""
    names: list[str] = []
    columns: NDArray[Any] = np.ones((n, 1))
    for name, column in variables.items():
        trial = np.column_stack((columns, column))
        if np.linalg.matrix_rank(trial) > columns.shape[1]:
            names, columns = [*names, name], trial
    return names, columns


def _symbolic(target: Column, variables: Variables) -> Iterator[Formula]:
    """Affine formulas with a whole multiple of one term; a term is a function of a small sum of variables."""
    names, columns = _independent(variables, len(target))
    few = np.random.default_rng(0).permutation(len(target))[:ROWS]
    base = np.linalg.qr(columns[few])[0]
    rest = target[few] - base @ (base.T @ target[few])
    for times in _multiples(len(names), _wide(variables)):
        total = (columns[:, 1:] @ times).astype(np.int64)
        text = written(dict(zip(names, times, strict=True)), 0)
        terms = list(_terms(text, total))
        values = np.stack([value for _, value in terms], 1)[few].astype(np.float64)
        off = values - base @ (base.T @ values)
        size = (off**2).sum(0)
        scale = np.where(size > 1e-9, (off * rest[:, None]).sum(0) / np.maximum(size, 1e-9), 0).round()
        fits = (np.abs(rest[:, None] - scale * off).max(0) < 1e-6) & (scale != 0)
        for index in np.flatnonzero(fits):
            term, value = terms[index]
            left = affine(target - int(scale[index]) * value, variables)
            if left is not None:
                yield Formula(_joined(left, int(scale[index]), term), "symbolic")


def _joined(left: str, times: int, term: str) -> str:
    if left == "0" and times == 1:
        return f"int({term})" if ">=" in term or "==" in term else term
    bare = term if term.startswith(("max(", "abs(")) else f"({term})"
    scaled = bare if abs(times) == 1 else f"{abs(times)}*{bare}"
    if left == "0":
        return scaled if times > 0 else f"-{scaled}"
    return f"{left} {'+' if times > 0 else '-'} {scaled}"


def _multiples(n: int, wide: bool) -> Iterator[tuple[int, ...]]:
    """Small whole multiples of `n` variables, without those that are multiples of another or its negative."""
    most = 2 if n <= 3 and not wide else 1
    for times in product(range(-most, most + 1), repeat=n):
        if any(times) and next(value for value in times if value) > 0 and math.gcd(*times) == 1:
            yield times


def _wide(variables: Variables) -> bool:
    return any(int(np.ptp(column)) > WIDE for column in variables.values())


def _terms(text: str, total: Column) -> Iterator[tuple[str, Column]]:
    """Functions of one sum, as Python and as values."""
    low, high = int(total.min()), int(total.max())
    inner = text if text.isidentifier() else f"({text})"
    near = range(low + 1, high + 1) if high - low <= WIDE else range(max(low + 1, -2), min(high, 2) + 1)
    for at in near:
        yield f"{text} >= {at}", (total >= at).astype(np.int64)
    for at in near:
        yield f"max({text}, {at})", np.maximum(total, at)
        yield f"{text} == {at}", (total == at).astype(np.int64)
        yield (f"abs({text})" if at == 0 else f"abs({written({text: 1}, -at)})"), np.abs(total - at)
    for by in range(2, min(LARGEST, high - low + 1) + 1):
        for more in range(by):
            moved = inner if not more else f"({written({text: 1}, more)})"
            yield f"{moved} % {by}", (total + more) % by
            yield f"{moved} // {by}", (total + more) // by

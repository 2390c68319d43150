"""From a table of states to formulas: how the state goes on, and what is said in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from circuits.programs.automaton import Table
from circuits.programs.formulas import Formula, formula
from circuits.programs.source import input_names, python_source, state_names

ROWS = 3000  # of a table that formulas are fitted to; a program is checked afterwards on fresh sequences
ORDERS = 4  # states of which every numbering is tried
BITS = 8  # states that are also written as bits

State = tuple[int, ...]


@dataclass(frozen=True)
class Maps:
    """Formulas for the state's numbers and for the outputs, and the numbers to begin with."""

    start: State
    steps: tuple[Formula, ...]
    outputs: tuple[Formula, ...]

    @property
    def length(self) -> int:
        """Of all formulas together: the program's description."""
        return sum(one.length for one in (*self.steps, *self.outputs))

    def source(self, inputs: int, told: str) -> str:
        """As Python."""
        return python_source(self.start, self.steps, self.outputs, inputs, told)


def fitted(table: Table) -> Maps | str:
    """Formulas for all of a table, or what there is none for."""
    keys = list(table.rows)
    if len(keys) > ROWS:
        keys = [keys[index] for index in np.random.default_rng(0).permutation(len(keys))[:ROWS]]
    names = state_names(len(table.start))
    said = sorted(table.outputs)[:: max(1, len(table.outputs) // ROWS)]
    alone = _columns(names, said)
    outputs = _formulas([table.outputs[state] for state in said], alone)
    if outputs is None:
        return "no formula gives the output"
    variables = _columns(names, [state for state, _ in keys])
    reads = [read for _, read in keys]
    variables |= _columns(input_names(len(reads[0])), reads)
    steps = _formulas([table.rows[key] for key in keys], variables)
    if steps is None:
        return "no formula gives the next state"
    return Maps(table.start, tuple(steps), tuple(outputs))


def _formulas(rows: Sequence[State], variables: Mapping[str, NDArray[np.int64]]) -> list[Formula] | None:
    """A formula for each column of some rows; None where one has none."""
    found = []
    for target in np.array(rows).T:
        one = formula(target, variables)
        if one is None:
            return None
        found.append(one)
    return found


def _columns(names: Sequence[str], rows: Sequence[State]) -> dict[str, NDArray[np.int64]]:
    return dict(zip(names, np.array(rows, dtype=np.int64).T, strict=True))


def shortest(table: Table, order: Sequence[int]) -> Maps | str:
    """The shortest formulas of an automaton's table over numberings of its states, or what there is none for.

    Its states are numbers in `order` (of the states' place among hidden states), in every order where they are few, and
    bits.
    """
    found: Maps | str = "no formula gives the next state"
    for numbers in _numberings(order):
        maps = fitted(_renamed(table, numbers))
        if isinstance(found, str) or (isinstance(maps, Maps) and maps.length < found.length):
            found = maps
    return found


def _numberings(order: Sequence[int]) -> Iterator[Mapping[int, State]]:
    """States, by their number in the table, as tuples of whole numbers."""
    places = {state: place for place, state in enumerate(order)}
    many = len(order)
    if many <= ORDERS:
        yield from ({state: (to[place],) for state, place in places.items()} for to in permutations(range(many)))
    else:
        yield {state: (place,) for state, place in places.items()}
        yield {state: (many - 1 - place,) for state, place in places.items()}
    if 2 < many <= BITS:
        width = math.ceil(math.log2(many))
        yield {state: tuple(place >> bit & 1 for bit in range(width)) for state, place in places.items()}


def _renamed(table: Table, numbers: Mapping[int, State]) -> Table:
    rows = {(numbers[state[0]], read): numbers[following[0]] for (state, read), following in table.rows.items()}
    outputs = {numbers[state[0]]: out for state, out in table.outputs.items()}
    return Table(rows, outputs, numbers[table.start[0]])

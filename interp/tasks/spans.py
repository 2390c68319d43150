"""Spans of a prompt: names for its parts, as slices of its tokens or as parts of its text.

A span of a text is kept in characters; `interp.tasks.token_spans` makes it tokens.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp import numbers
from interp.errors import InputError, short

REST = "rest"  # what positions in no span are called
CHARACTERS = "characters"  # how files mark a span that is no slice of tokens


@dataclass(frozen=True)
class Slot:
    """A named part of a clean prompt: `[start, stop)` of its tokens (BOS not counted), or of its characters.

    Tokens may be counted from the end, as in slices; a `stop` of None is the end.
    """

    name: str
    start: int
    stop: int | None
    characters: bool = False

    def record(self) -> list[Any]:
        """As JSON holds it."""
        return [self.start, self.stop, *([CHARACTERS] if self.characters else [])]


Slots = tuple[Slot, ...]
END = Slot("end", -1, None)


def read_spans(index: int, clean: Any, given: Any) -> Slots:
    """The spans of prompt `index` from a mapping or a regular expression, checked as far as they can be."""
    if given is None:
        return ()
    if isinstance(given, str | re.Pattern):
        return _matched(index, clean, given)
    if not isinstance(given, Mapping):
        raise InputError(
            f"spans of prompt {index} is {short(given)}; give a mapping of names to (start, stop), or a regular "
            "expression with named groups"
        )
    return tuple(_slot(index, clean, name, bounds) for name, bounds in given.items())


def read_mapping(index: int, cell: Any) -> Mapping[str, Any] | None:
    """What the cell of a table holds: a mapping, also as text, or nothing."""
    if cell is None or isinstance(cell, Mapping):
        return cell
    if isinstance(cell, float) and cell != cell:
        return None  # a data frame's gap
    try:
        found = ast.literal_eval(cell.replace("null", "None")) if cell else None
    except (AttributeError, TypeError, ValueError, SyntaxError):
        found = ""
    if found is not None and not isinstance(found, Mapping):
        raise InputError(
            f"the spans of prompt {index} are {short(cell)}; they must be a mapping of names, also as text"
        )
    return found


def field_spans(template: str, fields: Mapping[str, str], names: Mapping[str, str]) -> Slots:
    """Where the fields `names` (field: span's name) stand in a text made of a template with `{field}`s.

    >>> field_spans("{a} and {b}", {"a": "Mary", "b": "John"}, {"b": "second"})
    (Slot(name='second', start=9, stop=13, characters=True),)
    """
    found, length = [], 0
    for part in re.split(r"(\{\w+\})", template):
        text = fields[part[1:-1]] if part.startswith("{") else part
        if part[1:-1] in names and part.startswith("{"):
            found.append(Slot(names[part[1:-1]], length, length + len(text), characters=True))
        length += len(text)
    return tuple(found)


def with_end(slots: Slots, text: str) -> Slots:
    """The spans of a text and its last token, where none of them reaches so far."""
    return slots if any(slot.stop == len(text) for slot in slots) else (*slots, END)


def _matched(index: int, clean: Any, pattern: str | re.Pattern[str]) -> Slots:
    if not isinstance(clean, str):
        raise InputError(f"spans of prompt {index} is a regular expression, and the prompt is token ids: give slices")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"spans={short(pattern)} is no regular expression: {error}") from None
    if not expression.groupindex:
        raise InputError(f"spans={short(expression.pattern)} has no named group: write (?P<name>...) around a span")
    match = expression.search(clean)
    if match is None:
        raise InputError(f"spans={short(expression.pattern)} is not found in prompt {index}, {short(clean)}")
    groups = [(name, *match.span(name)) for name in expression.groupindex]
    return tuple(Slot(_name(index, n), a, b, characters=True) for n, a, b in groups if 0 <= a < b)


def _slot(index: int, clean: Any, name: Any, bounds: Any) -> Slot:
    known = list(bounds) if isinstance(bounds, list | tuple) else []
    characters = len(known) == 3 and known[2] == CHARACTERS and isinstance(clean, str)
    ends = [numbers.read(one) for one in known[:2]]
    fits = len(known) == 2 or characters
    if not fits or not isinstance(ends[0], int) or not (known[1] is None or isinstance(ends[1], int)):
        raise InputError(
            f"the span {name!r} of prompt {index} is {short(bounds)}; it must be (start, stop), a slice of its tokens"
        )
    stop = ends[1] if isinstance(ends[1], int) else None
    return Slot(_name(index, name), ends[0], stop, characters)


def _name(index: int, name: Any) -> str:
    if not isinstance(name, str) or not name or name == REST:
        raise InputError(
            f"a span of prompt {index} is called {short(name)}; a name is a text, and {REST!r} is what is in no span"
        )
    return name

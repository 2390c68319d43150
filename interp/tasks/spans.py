"""Spans of a task: names for parts of its prompts, as slices of tokens or as parts of the text.

A span of a text is kept in characters, and becomes tokens with the tokenizer that reads the prompt.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from interp import numbers
from interp.errors import InputError, short

if TYPE_CHECKING:
    from interp.tasks.encoding import Encoder
    from interp.tasks.examples import Example

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


@dataclass(frozen=True)
class TokenSpans:
    """The spans of each prompt as positions, BOS counted, and all their names in order of appearance."""

    names: tuple[str, ...] = ()
    of: tuple[Slots, ...] = ()


def with_spans(examples: Sequence[Example], spans: Any, side: Literal["clean", "corrupted"] = "clean") -> list[Example]:
    """Examples with the spans that a user gave: one mapping or regular expression for all, or one for each prompt.

    `side` says of which prompts they are.

    Raises `InputError` that names the prompt for whatever is not of that form, or is not in it.
    """
    if spans is None:
        return list(examples)
    shared = isinstance(spans, str | re.Pattern | Mapping)
    if not shared and (not isinstance(spans, Iterable) or len(spans := list(spans)) != len(examples)):
        given = f"{len(spans)} entries" if isinstance(spans, list) else f"a {type(spans).__name__}"
        raise InputError(
            f"spans is {given}; give a mapping of names to (start, stop) or a regular expression with named groups, "
            f"one for all prompts or a list of one for each of the {len(examples)}"
        )
    each = [spans] * len(examples) if shared else spans
    found = [
        (one, read_spans(i, getattr(one, side), given))
        for i, (one, given) in enumerate(zip(examples, each, strict=True))
    ]
    if side == "corrupted":
        return [replace(example, corrupted_spans=slots) for example, slots in found]
    return [replace(example, spans=slots) for example, slots in found]


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


def token_spans(examples: Sequence[Example], encoder: Encoder) -> TokenSpans:
    """The spans of examples as positions of their tokens.

    Raises `InputError`, naming the prompt, for spans out of the prompt and for two that share a token.
    """
    names = dict.fromkeys(slot.name for example in examples for slot in example.spans)
    rows = encoder.texts([example.clean for example in examples]) if names else []
    found = [_on_tokens(i, one, row, encoder) for i, (one, row) in enumerate(zip(examples, rows, strict=False))]
    return TokenSpans(tuple(names), tuple(found))


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


def without_padding(examples: Sequence[Example], attention_mask: Any) -> list[Example]:
    """Examples whose slices were of rows with padding, which the mask `[n, pos]` tells from tokens."""
    kept = np.asarray(attention_mask).astype(bool)
    return [
        replace(example, spans=tuple(_moved(slot, row) for slot in example.spans))
        for example, row in zip(examples, kept, strict=True)
    ]


def _moved(slot: Slot, kept: NDArray[np.bool_]) -> Slot:
    start, stop, _ = slice(slot.start, slot.stop).indices(len(kept))
    return replace(slot, start=int(kept[:start].sum()), stop=int(kept[:stop].sum()))


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


def _on_tokens(index: int, example: Example, tokens: Sequence[int], encoder: Encoder) -> Slots:
    if not example.spans:
        return ()
    shift = encoder.added_bos(example.clean, tokens)
    texts = [slot for slot in example.spans if slot.characters]
    offsets = encoder.offsets(str(example.clean)) if texts else []
    found = [
        _by_characters(index, slot, offsets, shift) if slot.characters else _by_tokens(index, slot, len(tokens), shift)
        for slot in example.spans
    ]
    taken: dict[int, str] = {}
    for slot in found:
        assert slot.stop is not None
        for position in range(slot.start, slot.stop):
            if position in taken:
                raise InputError(
                    f"the spans {taken[position]!r} and {slot.name!r} of prompt {index} share its token {position}; "
                    "spans must be disjoint"
                )
            taken[position] = slot.name
    return tuple(found)


def _by_tokens(index: int, slot: Slot, n_tokens: int, shift: int) -> Slot:
    length = n_tokens - shift
    start = slot.start + (length if slot.start < 0 else 0)
    stop = length if slot.stop is None else slot.stop + (length if slot.stop < 0 else 0)
    if not 0 <= start < stop <= length:
        raise InputError(
            f"the span {slot.name!r} of prompt {index}, tokens {slot.start} to {slot.stop}, is out of the prompt, "
            f"which has {length} tokens, or holds none"
        )
    return Slot(slot.name, start + shift, stop + shift)


def _by_characters(index: int, slot: Slot, offsets: Sequence[tuple[int, int]], shift: int) -> Slot:
    assert slot.stop is not None
    inside = [i for i, (start, stop) in enumerate(offsets) if start < slot.stop and stop > slot.start]
    if not inside:
        raise InputError(f"the span {slot.name!r} of prompt {index} holds none of its tokens")
    return Slot(slot.name, inside[0] + shift, inside[-1] + 1 + shift)

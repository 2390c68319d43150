"""Spans of a task's prompts as positions of their tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from interp import numbers
from interp.errors import InputError, choose
from interp.tasks.counterparts import ALIGNMENTS
from interp.tasks.examples import Example, Text
from interp.tasks.spans import Slot, Slots, read_spans


class Encoder(Protocol):
    """What `interp.tasks.encoding.Encoder` does here."""

    def texts(self, texts: Sequence[Text]) -> list[list[int]]:
        """Token ids of prompts."""

    def added_bos(self, text: Text, ids: Sequence[int]) -> int:
        """How many tokens stand before those of the text itself."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends in it."""


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


def aligned_by(examples: Sequence[Example], corrupted_spans: Any, align: str) -> list[Example]:
    """Examples whose corrupted prompts are aligned with the clean ones span by span; raises as `Task.aligned` does."""
    choose("align", align, ALIGNMENTS)
    bare = next((index for index, one in enumerate(examples) if not one.spans or one.corrupted is None), None)
    if bare is not None:
        raise InputError(
            f"prompt {bare} has no spans, or no corrupted version, to align with corrupted_spans; give the task "
            "spans=, and each prompt a corrupted version"
        )
    return [replace(one, align=align) for one in with_spans(examples, corrupted_spans, "corrupted")]


def token_spans(examples: Sequence[Example], encoder: Encoder) -> TokenSpans:
    """The spans of examples as positions of their tokens.

    Raises `InputError`, naming the prompt, for spans out of the prompt and for two that share a token.
    """
    names = dict.fromkeys(slot.name for example in examples for slot in example.spans)
    rows = encoder.texts([example.clean for example in examples]) if names else []
    found = [_on_tokens(i, one, row, encoder) for i, (one, row) in enumerate(zip(examples, rows, strict=False))]
    return TokenSpans(tuple(names), tuple(found))


def corrupted_token_spans(examples: Sequence[Example], encoder: Encoder) -> TokenSpans:
    """The same of their corrupted prompts."""
    turned = [replace(one, clean=one.corrupted or (), spans=one.corrupted_spans) for one in examples]
    return token_spans(turned, encoder)


def with_reads(examples: Sequence[Example], encoder: Encoder) -> list[Example]:
    """Examples whose texts are read at positions, where a span's name says at which.

    Raises `InputError` for a text that has no span of that name.
    """
    if not any(isinstance(one.scored, str) for one in examples):
        return list(examples)
    found = []
    for index, (one, slots) in enumerate(zip(examples, token_spans(examples, encoder).of, strict=True)):
        bounds = {slot.name: (slot.start, slot.stop) for slot in slots}
        if isinstance(one.scored, str) and one.scored not in bounds:
            known = ", ".join(map(repr, bounds)) or "none"
            raise InputError(
                f"positions={one.scored!r} is no span of text {index}, whose spans are {known}; give it with spans="
            )
        found.append(replace(one, scored=bounds[one.scored]) if isinstance(one.scored, str) else one)
    return found


def without_padding(examples: Sequence[Example], attention_mask: Any) -> list[Example]:
    """Examples whose slices were of rows with padding, which the mask `[n, pos]` tells from tokens."""
    kept = np.asarray(attention_mask).astype(bool)
    return [
        replace(example, spans=tuple(_moved(slot, row) for slot in example.spans))
        for example, row in zip(examples, kept, strict=True)
    ]


def named_spans(given: Mapping[Any, Any], lengths: Sequence[int]) -> TokenSpans:
    """Spans of prompts of these lengths that a task does not know, all tokens counted, BOS too.

    From names to a position, a pair `(start, stop)`, or a list with one of these for each prompt.

    Raises `InputError`, naming the prompt, for what is none of these, and for spans out of a prompt.
    """
    each: list[dict[Any, Any]] = [{} for _ in lengths]
    for name, entry in given.items():
        entries = entry if isinstance(entry, list) else [entry] * len(lengths)
        if len(entries) != len(lengths):
            raise InputError(
                f"spans[{name!r}] has {len(entries)} entries for {len(lengths)} prompts; give one for each, or one for "
                "all"
            )
        for one, bounds in zip(each, entries, strict=True):
            one[name] = _pair(bounds)
    found = [
        tuple(_by_tokens(i, slot, length, 0) for slot in read_spans(i, (), one))
        for i, (one, length) in enumerate(zip(each, lengths, strict=True))
    ]
    return TokenSpans(tuple(given), tuple(found))


def _pair(bounds: Any) -> Any:
    """A single position as the slice that holds it alone."""
    position = numbers.read(bounds)
    return (position, position + 1 or None) if isinstance(position, int) else bounds


def _moved(slot: Slot, kept: NDArray[np.bool_]) -> Slot:
    start, stop, _ = slice(slot.start, slot.stop).indices(len(kept))
    return replace(slot, start=int(kept[:start].sum()), stop=int(kept[:stop].sum()))


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

"""Examples from texts that are scored themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from interp import numbers
from interp.errors import InputError
from interp.tasks.examples import Example, Scored, listed, read_example, read_text


def examples_from_texts(texts: Iterable[Any], corrupted: Iterable[Any] | None, positions: Any) -> list[Example]:
    """Examples from texts, or from `(context, continuation)`."""
    if isinstance(texts, str | Mapping) or not isinstance(texts, Iterable):
        raise InputError(
            f"texts is a {type(texts).__name__}; it must be a list of texts, or of (context, continuation)"
        )
    given = list(texts)
    others = [None] * len(given) if corrupted is None else listed(corrupted)
    if len(others) != len(given):
        raise InputError(f"corrupted has {len(others)} entries for {len(given)} texts; it needs one for each")
    examples = []
    for index, (text, other) in enumerate(zip(given, others, strict=True)):
        if isinstance(text, tuple) and len(text) == 2 and isinstance(text[1], str):
            if positions is not None:
                raise InputError(
                    f"positions={positions!r} with text {index} as (context, continuation): it is the continuation "
                    "that is scored; give whole texts, or no positions"
                )
            examples.append(read_example(index, text[0], other, text[1], None))
        else:
            examples.append(read_text(index, text, other, _span(positions)))
    return examples


def _span(positions: Any) -> Scored:
    """Start and stop of a slice, of one position, or of all; or the name of a span."""
    if positions is None:
        return None, None
    if isinstance(positions, str):
        return positions
    if isinstance(positions, slice) and positions.step in (None, 1):
        start, stop = (
            None if end is None else numbers.whole("positions", end) for end in (positions.start, positions.stop)
        )
        return start, stop
    at = numbers.read(positions)
    if not isinstance(at, int):
        raise InputError(
            f"positions={positions!r}; it must be one position, a slice without a step, the name of a span, or None "
            "for all"
        )
    return at, None if at == -1 else at + 1

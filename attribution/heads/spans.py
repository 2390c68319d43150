"""Which span each position of each prompt lies in: the one place where spans that are given become indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError, short
from interp.setting import Setting
from interp.tasks.prompts import Prompts
from interp.tasks.spans import REST


@dataclass(frozen=True)
class SpanIndex:
    """Names of spans, and of each position its span's number; -1 at padding."""

    names: list[str]
    index: Int[Tensor, "n pos"]


def span_index(given: Any, setting: Setting) -> SpanIndex:
    """From what a caller gives.

    None: each position from the earliest first difference on. `spans`: those of the task. A sequence of positions
    (negative ones count from each prompt's end). A mapping from names to a position, a pair `(start, stop)`, or a list
    with one of these for each prompt. Positions in none form the span `rest`, which stands last.

    Raises `InputError` for spans that overlap, are empty, or lie outside of a prompt.
    """
    prompts = setting.prompts
    if given is None or (isinstance(given, str) and given == "spans"):
        placed = setting.placed_at("all" if given is None else given)
        names, index = [str(one) for one in placed.spans], placed.where.masked_fill(~placed.real, -1)
        return SpanIndex([*names, REST] if bool((index == len(names)).any()) else names, index)
    names, index = _given(given, prompts)
    left = prompts.mask.cpu() & (index < 0)
    rest = [REST] if left.any() else []
    return SpanIndex([*names, *rest], index.masked_fill(left, len(names)))


def _given(given: Any, prompts: Prompts) -> tuple[list[str], Tensor]:
    index, named = torch.full_like(prompts.clean, -1, device="cpu"), _named(given)
    for number, (name, entry) in enumerate(named.items()):
        for row, one in enumerate(_by_prompt(name, entry, len(prompts))):
            where = _slice(name, row, one, int(prompts.lengths[row]))
            if bool((index[row, where] >= 0).any()):
                raise InputError(f"spans overlap: {name!r} of prompt {row} holds positions of another one")
            index[row, where] = number
    return list(named), index


def _named(given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        if not given or not all(isinstance(name, str) and name != REST for name in given):
            raise InputError(f"spans={short(given)} must have a name for each span, and none may be {REST!r}")
        return given
    return {str(i): i for i in numbers.many("spans", given)}


def _by_prompt(name: str, entry: Any, n: int) -> Sequence[Any]:
    if not isinstance(entry, list):
        return [entry] * n
    if len(entry) != n:
        raise InputError(f"spans[{name!r}] has {len(entry)} entries for {n} prompts; give one for each, or one for all")
    return entry


def _slice(name: str, row: int, one: Any, length: int) -> slice:
    """A span of one prompt, from a position or a pair."""
    if isinstance(one, tuple) and len(one) == 2:
        start, stop = (numbers.whole(f"spans[{name!r}]", end) for end in one)
    else:
        start = numbers.whole(f"spans[{name!r}]", one)
        start += length if start < 0 else 0
        stop = start + 1
    if not 0 <= start < stop <= length:
        raise InputError(f"spans[{name!r}]={short(one)} is no part of prompt {row}, which has {length} tokens")
    return slice(start, stop)

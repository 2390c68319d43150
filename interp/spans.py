"""Spans: positions of prompts that are told apart. A span is an absolute position, or a name that a task gives.

Spans are disjoint. Positions in none of them are in `rest`, where that is one of the spans, and else in none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError, short
from interp.tasks.answers import Answers
from interp.tasks.prompts import Prompts
from interp.tasks.spans import REST
from interp.tasks.token_spans import TokenSpans

Span = int | str
SpanNames = tuple[Span, ...]


@dataclass(frozen=True, eq=False)
class Placed:
    """Which span each position of some prompts is in.

    Attributes:
        spans: names and absolute positions.
        where: int64 `[row, pos]`, numbers of spans; `len(spans)` at positions in none. All rows of a prompt have its
            spans.
        real: True where a position is no padding.
        read: numbers of the spans in which logits are read.
        answers: whose rows these are, where answers have several tokens; None: a row is a prompt.
    """

    spans: SpanNames
    where: Int[Tensor, "row pos"]
    real: Bool[Tensor, "row pos"]
    read: frozenset[int]
    answers: Answers | None = None

    def rows(self, indices: Sequence[int], start: int, width: int) -> RowSpans:
        """The spans of a batch's rows: of the prompts `indices`, positions `start` to `width`, row by row."""
        chosen = torch.tensor(list(indices), device="cpu")
        rows = chosen if self.answers is None else self.answers.select(chosen)[1]
        return RowSpans(self.where[rows, start:width].flatten(), len(self.spans))

    def order(self) -> SpanOrder:
        """Which span is seen from which, in any of the prompts, and in which logits are read."""
        count, length = len(self.spans), self.where.shape[1]
        first = torch.full((len(self.where), count + 1), length, device="cpu")
        last = torch.full((len(self.where), count + 1), -1, device="cpu")
        at = torch.where(self.real, self.where, count)
        position = torch.arange(length, device="cpu").expand_as(at)
        first.scatter_reduce_(1, at, position, "amin")
        last.scatter_reduce_(1, at, torch.where(self.real, position, -1), "amax")
        first, last = first[:, :count], last[:, :count]
        sees = (first[:, :, None] <= last[:, None, :]).any(0)
        ends = torch.tensor([span in self.read for span in range(count)], device="cpu")
        return SpanOrder(sees, ends)


@dataclass(frozen=True, eq=False)
class RowSpans:
    """The span of each row of a batch, out of `count`; `count` itself where it is in none."""

    where: Int[Tensor, " row"]
    count: int


@dataclass(frozen=True)
class Exactly:
    """As `positions=`: these spans and no others, without `rest` unless it is one of them."""

    spans: SpanNames


@dataclass(frozen=True, eq=False)
class SpanOrder:
    """What attention can carry between spans: `sees[k, q]`, whether a position of q may look at one of k.

    `ends` says in which spans logits are read.
    """

    sees: Bool[Tensor, "key query"]
    ends: Bool[Tensor, " span"]

    @classmethod
    def of(cls, spans: SpanNames, told: Any = None) -> SpanOrder:
        """As `to_dict` tells it; else positions see those before them, and names see everything."""
        if told is not None:
            sees = torch.tensor([[one == "1" for one in row] for row in told["sees"]], device="cpu")
            return cls(sees, torch.tensor([one == "1" for one in told["ends"]], device="cpu"))
        rows = [[not (isinstance(k, int) and isinstance(q, int)) or k <= q for q in spans] for k in spans]
        last = max((one for one in spans if isinstance(one, int)), default=None)
        ends = [not isinstance(one, int) or one == last for one in spans]
        return cls(torch.tensor(rows, device="cpu"), torch.tensor(ends, device="cpu"))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: a row of 0 and 1 for each span."""

        def written(row: Tensor) -> str:
            return "".join("1" if one else "0" for one in row.tolist())

        return {"sees": [written(row) for row in self.sees], "ends": written(self.ends)}


def span_names(given: Any) -> SpanNames | None:
    """Positions and names as a tuple; raises `InputError` for what is neither, and for one that is named twice."""
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"spans={short(given)} must be a list of positions and names of spans")
    spans = tuple(_span(one) for one in given)
    if not spans or len(set(spans)) < len(spans):
        raise InputError(f"spans={list(spans)} must name at least one span, and none of them twice")
    return spans


def asked_spans(positions: Any, prompts: Prompts, named: TokenSpans, *, skip_prefix: bool) -> SpanNames:
    """The spans that `positions=` means on some prompts.

    `"all"`: absolute positions, with `skip_prefix` from the first difference of any prompt on. `"spans"` (or True):
    those of the task, and `rest`. A list: these positions (or names of the task's spans), and `rest`.

    Raises `InputError` for positions that no prompt has, for unknown names, and for a task without spans.
    """
    length = prompts.clean.shape[1]
    if isinstance(positions, Exactly):
        return positions.spans
    if isinstance(positions, str) and positions == "all":
        return tuple(range(int(prompts.first_difference.min()) if skip_prefix else 0, length))
    if positions is True or (isinstance(positions, str) and positions == "spans"):
        if not named.names:
            raise InputError(
                "positions='spans', and the task has none; give them, Task.from_pairs(..., spans=), or positions='all' "
                "or a list of positions"
            )
        return (*named.names, REST)
    if isinstance(positions, str | bool) or not isinstance(positions, Iterable):
        raise InputError(f"positions={short(positions)} is none of None, 'all', 'spans' and a list of positions")
    spans = span_names(positions)
    assert spans is not None
    for one in spans:
        if isinstance(one, int) and one >= length:
            raise InputError(f"positions names position {one}; the longest prompt has {length} tokens, from 0 on")
        if isinstance(one, str) and one not in (*named.names, REST):
            known = ", ".join(map(repr, named.names)) or "none"
            raise InputError(f"positions names the span {one!r}; the task's spans are {known}")
    return spans if REST in spans else (*spans, REST)


def place(spans: SpanNames, prompts: Prompts, named: TokenSpans) -> Placed:
    """Which of the spans each position of some prompts is in.

    All rows of a prompt have its spans; of names, the tokens of an answer behind it are in none.

    Raises `InputError` for names that the task does not know, and for a position that is in two spans.
    """
    answers = None if prompts.answers is None else prompts.answers.each(Tensor.cpu)
    prompt_of = prompts.prompt_of.tolist()
    nowhere = spans.index(REST) if REST in spans else len(spans)
    where = torch.full(prompts.clean.shape, nowhere, device="cpu")
    for number, one in enumerate(spans):
        if one == REST:
            continue
        inside = torch.zeros_like(where, dtype=torch.bool)
        if isinstance(one, int):
            inside[:, one : one + 1] = True
        else:
            _mark(inside, one, named, prompt_of)
        twice = (inside & (where != nowhere)).nonzero()
        if len(twice):
            row, position = twice[0].tolist()
            both = f"{spans[int(where[row, position])]!r} and {one!r}"
            raise InputError(f"position {position} of prompt {prompt_of[row]} is in two spans, {both}")
        where[inside] = number
    reads = prompts.reads
    read = frozenset(where[reads.row.cpu(), reads.position.cpu()].tolist())
    return Placed(spans, where, prompts.mask.cpu(), read, answers)


def _mark(inside: Bool[Tensor, "row pos"], name: str, named: TokenSpans, prompt_of: Sequence[int]) -> None:
    if name not in named.names:
        known = ", ".join(map(repr, named.names)) or "none"
        raise InputError(f"the circuit or scores tell the span {name!r} apart; the task's spans are {known}")
    for row, prompt in zip(inside, prompt_of, strict=True):
        for slot in named.of[prompt]:
            if slot.name == name:
                row[slot.start : slot.stop] = True


def _span(given: Any) -> Span:
    return given if isinstance(given, str) and given else numbers.whole("spans", given, numbers.FROM_ZERO)


def segments(where: Int[Tensor, " row"], count: int) -> tuple[Int[Tensor, " row"], list[int]]:
    """An order of rows that puts each span's beside each other, and how many rows each span then has.

    Rows in none come last, and are counted last.

    >>> order, counts = segments(torch.tensor([1, 0, 1]), 2)
    >>> order.tolist(), counts
    ([1, 0, 2], [1, 2, 0])
    """
    return where.argsort(stable=True), torch.bincount(where, minlength=count + 1).tolist()

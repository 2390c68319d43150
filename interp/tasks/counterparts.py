"""Which positions of corrupted prompts stand for which of the clean ones: aligned at their ends, or span by span.

Counterparts are `[row, pos, 2]`: start and stop of the corrupted positions that stand for a clean one. None where both
are equal; of several the mean is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.tasks.spans import Slots

ALIGNMENTS = ("end", "mean")


def of_ends(lengths: Int[Tensor, " row"], others: Int[Tensor, " row"], width: int) -> Int[Tensor, "row pos 2"]:
    """Those of prompts of `lengths` tokens, aligned at their ends with corrupted ones of `others` tokens.

    >>> of_ends(torch.tensor([2]), torch.tensor([3]), 2).tolist()
    [[[1, 2], [2, 3]]]
    """
    moved = torch.arange(width, device=lengths.device) + (others - lengths)[:, None]
    there = (moved >= 0) & (moved < others[:, None])
    return torch.stack((moved, moved + 1), 2) * there[..., None]


def of_spans(index: int, clean: tuple[Slots, int], corrupted: tuple[Slots, int], align: str) -> Int[Tensor, "pos 2"]:
    """Those of one prompt: of `(spans, number of tokens)` of both sides, spans in positions.

    Spans, and what is between two of them, go together. One of equal lengths is aligned one to one; of different ones
    at its end, or with `align="mean"` each position of a span has the whole corrupted span as its counterpart.

    Raises `InputError` for a span that one side lacks, and for spans in another order.
    """
    sides = [sorted(slots, key=lambda slot: slot.start) for slots, _ in (clean, corrupted)]
    names = [[slot.name for slot in side] for side in sides]
    if names[0] != names[1]:
        raise InputError(
            f"prompt {index} has the spans {names[0]} and its corrupted version {names[1]}, in the order of their "
            "tokens; to be aligned both must name the same spans in the same order"
        )
    bounds = [
        [0, *(end for slot in side for end in (slot.start, slot.stop or 0)), length]
        for side, (_, length) in zip(sides, (clean, corrupted), strict=True)
    ]
    found = torch.zeros(clean[1], 2, dtype=torch.int64, device="cpu")
    for part in range(len(bounds[0]) - 1):
        (start, stop), (first, last) = (side[part : part + 2] for side in bounds)
        if align == "mean" and part % 2 and stop - start != last - first:
            found[start:stop] = torch.tensor([first, last], device="cpu")
            continue
        count = min(stop - start, last - first)
        moved = torch.arange(last - count, last, device="cpu")
        found[stop - count : stop] = torch.stack((moved, moved + 1), 1)
    return found


def padded(rows: Sequence[Int[Tensor, "pos 2"]]) -> Int[Tensor, "row pos 2"]:
    """Those of several rows together; padding has none."""
    return torch.nn.utils.rnn.pad_sequence([*rows], batch_first=True)


def same_positions(counterparts: Int[Tensor, "row pos 2"], lengths: Int[Tensor, " row"]) -> bool:
    """Whether every position stands for itself."""
    own = torch.arange(counterparts.shape[1], device=counterparts.device)
    same = (counterparts[..., 0] == own) & (counterparts[..., 1] == own + 1)
    return bool((same | (own >= lengths[:, None])).all())


def turned_around(counterparts: Int[Tensor, "row pos 2"], width: int) -> Int[Tensor, "row pos2 2"]:
    """Which clean positions stand for each of the `width` corrupted ones."""
    positions = torch.arange(width, device=counterparts.device)
    start, stop = counterparts[..., :1], counterparts[..., 1:]
    covers = ((start <= positions) & (positions < stop)).transpose(1, 2)  # [row, corrupted, clean]
    first = covers.int().argmax(2)
    return torch.stack((first, first + covers.sum(2)), 2) * covers.any(2)[..., None]


def check_read(index: int, counterparts: Int[Tensor, "pos 2"], n_corrupted: int, position: int) -> None:
    """Raise `InputError` unless logits are read as far from the end of the corrupted prompt as of the clean one."""
    wanted = position + n_corrupted - len(counterparts)
    if counterparts[position].tolist() != [wanted, wanted + 1]:
        raise InputError(
            f"logits of prompt {index} are read at position {position}, whose counterpart by spans is not the position "
            "as far from the corrupted prompt's end; let the last span end before it or be equally long in both, or "
            "use align='end'"
        )

"""What prompts have to be: shapes that belong together, ids and lengths that can be, answers on one side."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import InputError
from interp.tasks.answers import Answers

TENSORS = ("clean", "corrupted", "lengths", "correct", "incorrect", "corrupted_lengths", "aligned")
_DIMENSIONS = {"lengths": 1, "corrupted_lengths": 1, "aligned": 3}


class Prompts(Protocol):
    """What is asked of prompts (`interp.tasks.prompts`)."""

    @property
    def clean(self) -> Tensor: ...
    @property
    def corrupted(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...
    @property
    def corrupted_lengths(self) -> Tensor | None: ...
    @property
    def correct(self) -> Tensor: ...
    @property
    def answers(self) -> Answers | None: ...
    @property
    def paired(self) -> bool: ...
    @property
    def first_difference(self) -> Tensor: ...


def check_shapes(prompts: Prompts) -> None:
    """Raise `InputError` unless all tensors are of the shapes and dtypes that belong together."""
    counts = {"correct": len(prompts.correct), "incorrect": len(prompts.correct)} if prompts.answers is not None else {}
    for name in TENSORS:
        value, ndim = getattr(prompts, name), _DIMENSIONS.get(name, 2)
        if value is None:
            continue
        if value.ndim != ndim or value.dtype != torch.int64:
            kind = str(value.dtype).removeprefix("torch.")
            raise InputError(
                f"{name} is {kind} of shape {list(value.shape)}; it must be int64 with {ndim} dimension(s)"
            )
        if len(value) != counts.get(name, len(prompts.clean)):
            raise InputError(f"{name} has {len(value)} rows, but there are {len(prompts.clean)} prompts")
    if len(prompts.clean) == 0:
        raise InputError("there are no prompts; at least one is needed")
    if prompts.corrupted_lengths is None and prompts.clean.shape != prompts.corrupted.shape:
        raise InputError(
            f"clean has the shape {list(prompts.clean.shape)}, corrupted {list(prompts.corrupted.shape)}; "
            "they must be equal, or corrupted_lengths given"
        )
    if prompts.answers is not None and len(prompts.answers.prompt) != len(prompts.clean):
        raise InputError(
            f"answers has {len(prompts.answers.prompt)} rows, clean {len(prompts.clean)}; they must be equal"
        )


def check_contents(prompts: Prompts) -> None:
    """Raise `InputError` for lengths and ids that cannot be, equal answers, and prompts without a difference."""
    for name, tokens, lengths in (
        ("clean", prompts.clean, prompts.lengths),
        ("corrupted", prompts.corrupted, prompts.corrupted_lengths),
    ):
        lengths = prompts.lengths if lengths is None else lengths
        width = tokens.shape[1]
        bad = (lengths < 1) | (lengths > width)
        if bad.any():
            index = _first(bad)
            raise InputError(f"prompt {index} has the length {int(lengths[index])}; it must be between 1 and {width}")
        bad = ((tokens < 0) & (torch.arange(width, device=prompts.clean.device) < lengths[:, None])).any(1)
        if bad.any():
            raise InputError(f"{name} holds a negative token id in prompt {_first(bad)}")
    for name in ("correct", "incorrect"):
        bad = (getattr(prompts, name) < -1).any(1)
        if bad.any():
            raise InputError(f"{name} holds a negative token id in prompt {_first(bad)} (-1 is padding)")
    if prompts.answers is None:  # several tokens may share their first
        _check_answers(prompts)
    bad = _equal(prompts)
    if prompts.paired and bad.any():
        raise InputError(
            f"prompt {_first(bad)} has a corrupted version equal to the clean one; nothing can be attributed "
            "to their difference"
        )


def _check_answers(prompts: Prompts) -> None:
    for names in (("correct",), ("incorrect",), ("correct", "incorrect")):
        ids = torch.cat([getattr(prompts, name) for name in names], 1).sort(1).values
        twice = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)
        if twice.any():
            index = _first(twice.any(1))
            token = int(ids[index, 1:][twice[index]][0])
            raise InputError(
                f"prompt {index} has the token id {token} twice among its {' and '.join(names)} answers; "
                "each counts once, and on one side"
            )
    bad = ~(prompts.correct >= 0).any(1)
    if bad.any():
        raise InputError(f"prompt {_first(bad)} has no correct answer; every prompt needs at least one")


def _equal(prompts: Prompts) -> Bool[Tensor, " row"]:
    """Whether clean and corrupted are the same tokens."""
    same = prompts.first_difference == prompts.lengths
    return same if prompts.corrupted_lengths is None else same & (prompts.corrupted_lengths == prompts.lengths)


def _first(flags: Bool[Tensor, " n"]) -> int:
    return int(flags.int().argmax())

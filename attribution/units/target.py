"""What neurons are scored for: a logit, a contrast of logits, or sums of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError, short
from interp.objectives import Objective
from interp.tasks.prompts import Prompts

Read = Callable[[Any, int], int]


@dataclass(frozen=True)
class LogitSums:
    """Of each input the token ids whose logits are added up, and those whose logits are taken away."""

    positive: tuple[tuple[int, ...], ...]
    negative: tuple[tuple[int, ...], ...]

    def readable(self, read: Callable[[list[int]], list[str]]) -> list[str]:
        """As people read them: ` Mary`, ` Mary - John`, or ` is + was - are`."""
        sides = zip(self.positive, self.negative, strict=True)
        return [" - ".join(" + ".join(read(list(ids))) for ids in pair if ids) for pair in sides]


def resolve_sums(target: Any, n: int, best: Int[Tensor, " n"], read: Read) -> LogitSums:
    """What `target` names for n inputs.

    None (`best`, the most likely tokens); one target for all inputs, or a list (or int tensor) with one for each. A
    target is a token, a pair `(this, that)` for the difference of two logits, or a list of tokens for the sum of
    theirs; a member of a pair may be such a list. Rows of an int tensor [n, 2] are pairs. `read` makes an id of a token
    given for an input. Raises `InputError` for anything else.
    """
    if target is None:
        return LogitSums(tuple((int(i),) for i in best), ((),) * n)
    targets = _by_input(target, n)
    pairs = [one if isinstance(one, tuple) else (one, []) for one in targets]
    for index, pair in enumerate(pairs):
        if len(pair) != 2:
            raise InputError(f"target of input {index} must be a token, a pair (this, that), or a list of tokens whose "
                             f"logits are added up; got {short(targets[index])}")  # fmt: skip
    positive, negative = (tuple(_ids(pair[side], index, read) for index, pair in enumerate(pairs)) for side in (0, 1))
    for index, (these, those) in enumerate(zip(positive, negative, strict=True)):
        if not these:
            raise InputError(f"target of input {index} names no token; give at least one")
        if len(set(these + those)) < len(these + those):
            raise InputError(f"target of input {index} names a token twice: {short(targets[index])}")
    return LogitSums(positive, negative)


def _by_input(target: Any, n: int) -> list[Any]:
    """One entry for each input."""
    if hasattr(target, "tolist"):
        target = target.tolist()
        if isinstance(target, list):
            target = [tuple(row) if isinstance(row, list) else row for row in target]
    if not isinstance(target, list):
        return [target] * n
    if len(target) != n:
        advice = f"; for the sum of their logits give [{target!r}]" if n == 1 and len(target) < 9 else ""
        raise InputError(
            f"target must be one target for all inputs, or a list with one for each of the {n}; got {len(target)} "
            f"entries{advice}"
        )
    return target


def _ids(side: Any, index: int, read: Read) -> tuple[int, ...]:
    entries = side if isinstance(side, list) else [side]
    plain = [one if (found := numbers.read(one)) is None else found for one in entries]
    return tuple(read(one, index) for one in plain)


def summed_logits(centred: bool) -> Objective:
    """Logits of `correct` less those of `incorrect`, as an objective; `centred`: less the mean over the vocabulary."""

    def value(logits: Float[Tensor, "n vocab"], prompts: Prompts, clean: Tensor | None) -> Float[Tensor, " n"]:
        if centred:
            logits = logits - logits.mean(1, keepdim=True)
        return _sum(logits, prompts.correct) - _sum(logits, prompts.incorrect)

    return Objective("centred-logits" if centred else "logits", value)


def _sum(logits: Tensor, ids: Int[Tensor, "n k"]) -> Tensor:
    ids = ids.to(logits.device)
    return torch.where(ids >= 0, logits.gather(1, ids.clamp(min=0)), 0.0).sum(1)


def lists(sides: Sequence[Sequence[int]]) -> list[list[int]]:
    """Ids as tasks take them."""
    return [list(ids) for ids in sides]

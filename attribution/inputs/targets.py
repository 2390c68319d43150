"""What explanations of tokens are about: the logits that are explained, of inputs that `interp.inputs` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.inputs import is_id, plain_id
from interp.tasks.encoding import Encoder


@dataclass(frozen=True)
class Targets:
    """What is explained: the logit of `positive`, less that of `negative` where it is not -1."""

    positive: Int[Tensor, " n"]
    negative: Int[Tensor, " n"]

    def select(self, chosen: slice) -> Targets:
        """Those of some inputs."""
        return Targets(self.positive[chosen], self.negative[chosen])

    @property
    def contrastive(self) -> bool:
        """Whether a difference of two logits is explained."""
        return bool((self.negative >= 0).any())


def explained_logit(
    logits: Float[Tensor, "n d_vocab"], positive: Int[Tensor, " n"], negative: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """logit(positive) - logit(negative), the latter where there is one."""
    value = logits.gather(1, positive[:, None].to(logits.device))[:, 0]
    against = negative.to(logits.device)
    other = logits.gather(1, against.clamp(min=0)[:, None])[:, 0]
    return value - torch.where(against >= 0, other, torch.zeros_like(other))


def resolve_targets(
    target: Any, n: int, best: Int[Tensor, " n"], read: Callable[[Any, int], int], kind: str = "token"
) -> Targets:
    """The targets of n inputs.

    `target` is None (`best`, the most likely ones), one target for all inputs (an id or a string), a list of one
    for each input, a pair as a tuple `(this, that)`, or a list of n pairs. `read` makes an id of what is given for an
    input, `kind` is what targets are called. Raises `InputError` for anything else.
    """
    if target is None:
        return Targets(best.cpu(), torch.full((n,), -1, device="cpu"))
    if hasattr(target, "tolist"):
        target = target.tolist()
    target = plain_id(target)
    if isinstance(target, int | str | tuple):
        target = [target] * n
    if not isinstance(target, list) or len(target) != n:
        count = f"{len(target)} entries" if isinstance(target, list) else type(target).__name__
        raise InputError(
            f"target must be one {kind}, a pair (this, that) as a tuple, or a list with one of these for each of the "
            f"{n} inputs; got {count}"
        )
    pairs = [
        entry if isinstance(entry, tuple) else tuple(entry) if isinstance(entry, list) else (entry,) for entry in target
    ]
    ids = []
    for index, pair in enumerate(pairs):
        if len(pair) not in (1, 2):
            raise InputError(f"target of input {index} must be a {kind} or a pair (this, that); got {target[index]!r}")
        ids.append([read(plain_id(one), index) for one in pair] + [-1] * (2 - len(pair)))
    positive, negative = torch.tensor(ids, device="cpu").T
    if (positive == negative).any():
        raise InputError(f"target contrasts a {kind} with itself; give two different ones")
    return Targets(positive, negative)


def token_reader(model: Any) -> Callable[[Any, int], int]:
    """What reads the targets of a language model: ids, and strings that are one token."""
    encoder = Encoder(model)

    def read(token: Any, index: int) -> int:
        found = encoder.single(token, index, "target") if isinstance(token, str) else token
        if not is_id(found, encoder.d_vocab):
            raise InputError(
                f"target of input {index} must be a token id from 0 to {encoder.d_vocab - 1} or a string; got {token!r}"
            )
        return int(found)

    return read

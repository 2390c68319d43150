"""Rotary position embeddings (Su et al., 2021): the tables that a model uses for a prompt when it runs that alone.

In most models they depend on the position alone. LongRoPE (Ding et al., 2024) chooses between two sets of
frequencies by the length of the whole call, dynamic NTK scaling has frequencies for every length, and the modules of
transformers carry over from one call to the next what a longer one made of them. Here every prompt gets the tables
of its own length, whatever it is padded to and wherever its run starts, and the model's module stays as it was.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp import compat

Tables = tuple[Tensor, Tensor]  # cos, sin: [pos, rotated], or [batch, pos, rotated] where prompts have their own


@dataclass(frozen=True)
class Rotary:
    """The rotary embedding of a model, as its own module makes it."""

    module: nn.Module
    interleaved: ClassVar[bool] = False  # GPT-J pairs neighbours; the others pair the two halves

    def tables(self, positions: Int[Tensor, " pos"], lengths: Int[Tensor, " batch"], kind: str, dtype: Any) -> Tables:
        """Cosines and sines at `positions` for prompts of `lengths` tokens; `kind` is the type of the layer.

        One table for all prompts where they have the same. Behind a prompt's end its table repeats the last row.
        """
        if not depends_on_length(self.module):
            return self._ask(self.module, positions, kind, dtype)
        each = lengths.tolist()
        turns = {n: self._turn(n, kind, positions.device) for n in sorted(set(each))}
        longest = {turn: n for n, turn in turns.items()}  # prompts that are turned alike share the longest one's table
        made = {turn: self._of_length(positions, n, kind, dtype) for turn, n in longest.items()}
        if len(made) == 1:
            return made[turns[each[0]]]
        cos, sin = zip(*(made[turns[n]] for n in each), strict=True)
        return torch.stack(cos), torch.stack(sin)

    def apart(self, lengths: Int[Tensor, " batch"]) -> bool:
        """Whether prompts of `lengths` tokens must not be padded to one where the model's own module runs them."""
        return depends_on_length(self.module) and bool((lengths != lengths[0]).any())

    def _turn(self, length: int, kind: str, device: torch.device) -> tuple[float, ...]:
        """What position 1 of a prompt is turned by: tells whether two lengths have the same frequencies."""
        one = torch.ones(1, dtype=torch.long, device=device)
        cos, sin = self._of_length(one, max(2, length), kind, torch.float64)
        return (*cos[0].tolist(), *sin[0].tolist())

    def _of_length(self, positions: Tensor, length: int, kind: str, dtype: torch.dtype) -> Tables:
        """Tables of a first call whose last position is `length - 1`, which is how modules know its length."""
        last = positions.new_tensor([length - 1])
        cos, sin = self._ask(_copy_as_new(self.module), torch.cat((positions.clamp(max=length - 1), last)), kind, dtype)
        return cos[:-1], sin[:-1]

    @staticmethod
    def _ask(module: nn.Module, positions: Tensor, kind: str, dtype: torch.dtype) -> Tables:
        like = torch.empty(0, dtype=dtype, device=positions.device)
        cos, sin = module(like, positions[None], **({"layer_type": kind} if _typed(type(module).forward) else {}))
        return cos[0], sin[0]

    def __call__(
        self, x: Float[Tensor, "batch pos head d_head"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "batch pos head d_head"]:
        width = cos.shape[-1]
        turned, kept = x[..., :width], x[..., width:]
        if self.interleaved:
            other = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
        else:
            other = torch.cat((-turned[..., width // 2 :], turned[..., : width // 2]), -1)
        turned = turned * cos[..., None, :] + other * sin[..., None, :]
        return torch.cat((turned, kept), -1) if kept.shape[-1] else turned


@dataclass(frozen=True)
class StoredRotary(Rotary):
    """GPT-J's: each attention keeps sines and cosines of all positions, `embed_positions` [position, rotated]."""

    interleaved: ClassVar[bool] = True

    def tables(self, positions: Int[Tensor, " pos"], lengths: Int[Tensor, " batch"], kind: str, dtype: Any) -> Tables:
        stored: Any = self.module.embed_positions
        sin, cos = stored.to(positions.device)[positions].to(dtype).repeat_interleave(2, -1).chunk(2, -1)
        return cos, sin


@dataclass(frozen=True)
class QueryScale:
    """What queries are multiplied by behind the rotary embedding: 1 + beta log(1 + floor(position / every)).

    Scalable softmax (Nakanishi 2025, arXiv:2501.19399) as Ministral 3 has it.
    """

    beta: float
    every: int

    def __call__(self, positions: Int[Tensor, " pos"], dtype: torch.dtype) -> Float[Tensor, " pos"]:
        steps = torch.floor(positions.float() / self.every)
        return (1 + self.beta * torch.log1p(steps)).to(dtype)


def depends_on_length(module: nn.Module) -> bool:
    """Whether a rotary module's tables depend on the length of the call, or on the calls before."""
    return any("dynamic" in kind or kind == "longrope" for kind in compat.rope_types(module))


@contextlib.contextmanager
def as_new(model: nn.Module) -> Iterator[None]:
    """Inside, the first call of the model is as on a fresh copy of it; afterwards it is as before, whatever ran."""
    found = [part for part in model.modules() if depends_on_length(part)]
    kept = [part.__dict__ for part in found]
    try:
        for part in found:
            part.__dict__ = _copy_as_new(part).__dict__
        yield
    finally:
        for part, own in zip(found, kept, strict=True):
            part.__dict__ = own


@torch.no_grad()
def _copy_as_new(module: nn.Module) -> nn.Module:
    """A copy of a rotary module without what calls have left in it; the weights' dtype and device stay."""
    new = copy.copy(module)
    new.__dict__["_buffers"] = {name: None if b is None else b.clone() for name, b in compat.buffers_of(module).items()}
    buffer = next(module.buffers())
    first = torch.zeros(1, 1, dtype=torch.long, device=buffer.device)
    for extra in [{"layer_type": kind} for kind in compat.rope_layers(module)] or [{}]:
        new(buffer[:0], first, **extra)  # a call of one position resets them
    return new


@functools.cache
def _typed(forward: Callable[..., Any]) -> bool:
    """Whether a class of modules has tables for each type of layer (Gemma 3)."""
    return "layer_type" in inspect.signature(forward).parameters

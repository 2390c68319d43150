"""What a graph is asked of: one prompt, and the logits that are explained."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from attribution.tracing.held import Held
from attribution.tracing.logits import Explained
from interp import numbers
from interp.errors import InputError, short
from interp.inputs import encode_inputs, is_id
from interp.tasks.encoding import Encoder
from interp.token_text import token_texts


def one_prompt(model: Any, prompt: Any, prepend_bos: bool | None) -> Int[Tensor, " pos"]:
    """The ids of a string, or of ids `[pos]`. Raises `InputError` for none, for several and for an empty one."""
    if isinstance(prompt, str) and not prompt:
        raise InputError("prompt is empty; give at least one token")
    encoded = encode_inputs(model, prompt, None, prepend_bos)
    if len(encoded) != 1:
        raise InputError(f"prompt must be one string or ids [pos]; got {len(encoded)}: trace them one by one")
    return encoded.ids[0]


def explained(model: Any, held: Held, target: Any) -> Explained:
    """The logits that `target` names: a token, a pair for a contrast, a list of these, or None for the likely ones."""
    if target is None:
        return Explained.likely(held)
    if hasattr(target, "tolist"):
        target = target.tolist()
    entries = target if isinstance(target, list) else [target]
    if not entries:
        raise InputError("target is an empty list; give at least one token, or None for the most likely")
    encoder = Encoder(model)
    sides = [_sides(encoder, entry) for entry in entries]
    if len(set(sides)) < len(sides):
        raise InputError(f"target names a logit twice: {short(target)}")
    return Explained.of(held, sides)


def _sides(encoder: Encoder, entry: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not isinstance(entry, tuple):
        return (_token(encoder, entry),), ()
    if len(entry) != 2:
        raise InputError(f"target holds {short(entry)}; a contrast is a pair (this, that)")
    this, that = (_token(encoder, one) for one in entry)
    if this == that:
        raise InputError(f"target contrasts a token with itself: {short(entry)}; give two different ones")
    return (this,), (that,)


def _token(encoder: Encoder, given: Any) -> int:
    found = encoder.single(given, 0, "target") if isinstance(given, str) else numbers.read(given)
    if not is_id(found, encoder.d_vocab):
        raise InputError(
            f"target must be a token id from 0 to {encoder.d_vocab - 1}, a string of one token, a pair of these, or a "
            f"list; got {short(given)}"
        )
    return int(found)  # type: ignore[arg-type]


def readable_sides(model: Any, sides: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]) -> list[str]:
    """As people read them: ` Paris`, or ` Paris - London`."""
    texts = [[token_texts(getattr(model, "tokenizer", None), list(ids)) for ids in pair if ids] for pair in sides]
    return [" - ".join("".join(part) for part in pair) for pair in texts]


def readable_tokens(model: Any, ids: Tensor) -> list[str]:
    """The prompt's tokens as people read them."""
    return token_texts(getattr(model, "tokenizer", None), ids.tolist())


def shares_of(found: Explained) -> Tensor:
    """What logits weigh in a score: their chances over the sum of these."""
    return found.weights / found.weights.sum().clamp(min=torch.finfo(found.weights.dtype).tiny)

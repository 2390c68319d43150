"""The tokens whose logits a vector of the residual stream moves most, read straight through the final norm."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy
from interp.parts import working
from interp.token_text import token_texts

TOP_TOKENS = 6  # that a vector promotes, and as many that it suppresses
_AT_ONCE = 32  # vectors: each has a logit for every token

Moved = list[tuple[str, float]]


def through_final_norm(
    anatomy: Anatomy, written: Float[Tensor, "row d_model"], final: Float[Tensor, "1 d_model"]
) -> Float[Tensor, "row d_model"]:
    """Vectors behind the final norm, whose divisor is held as `final` has it: linear, so that they add up."""
    norm = anatomy.final_norm
    normed = norm.centred(written) / norm.divisor(final)
    return normed if norm.gain is None else normed * working(norm.gain)


def in_spreads(anatomy: Anatomy, through: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    """Vectors behind the final norm, scaled to logits whose standard deviation over the vocabulary is one."""
    weight = working(anatomy.unembed.weight)
    spread = torch.cat([(some @ weight.T).std(-1, keepdim=True, correction=0) for some in through.split(_AT_ONCE)])
    return through / spread.clamp(min=torch.finfo(spread.dtype).tiny)


def promoted(model: Any, anatomy: Anatomy, through: Float[Tensor, "row d_model"]) -> list[tuple[Moved, Moved]]:
    """Of each vector behind the final norm: the tokens that it promotes most, and those that it suppresses most.

    Logits are less their mean over the vocabulary: softmax does not see what all tokens gain.
    """
    return [ends for some in through.split(_AT_ONCE) for ends in _ends(model, some @ working(anatomy.unembed.weight).T)]


def _ends(model: Any, logits: Float[Tensor, "row d_vocab"]) -> list[tuple[Moved, Moved]]:
    logits = logits - logits.mean(-1, keepdim=True)
    k = min(TOP_TOKENS, logits.shape[-1])
    ends = []
    for largest in (True, False):
        values, ids = logits.topk(k, largest=largest)
        ends.append([_named(model, of, at) for of, at in zip(values, ids, strict=True)])
    return list(zip(*ends, strict=True))


def _named(model: Any, values: Float[Tensor, " k"], ids: Int[Tensor, " k"]) -> Moved:
    return list(zip(token_texts(getattr(model, "tokenizer", None), ids.tolist()), values.tolist(), strict=True))

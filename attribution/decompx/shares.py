"""How a bias is spread over the tokens whose decomposed vectors meet it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BIASES = ("absdot", "cosine", "norm", "equal", "first", "separate")

Vectors = Float[Tensor, "... source d"]


def weights(vectors: Vectors, bias: Float[Tensor, "... d"], how: str) -> Float[Tensor, "... source"]:
    """What share of the bias each source takes; the shares of a place sum to one.

    `absdot`: by |<vector, bias>|; `cosine`: by |cos(vector, bias)|; `norm`: by the vector's length; `equal`: the same
    for all that are not zero; `first`: all to the first token (CLS); `separate`: all to the first source, which then
    is none of the tokens. Where all weights are zero the first source takes the whole.
    """
    if how in ("first", "separate"):
        raw = torch.zeros_like(vectors[..., 0])
    elif how == "absdot":
        raw = (vectors @ bias[..., None])[..., 0].abs()
    else:
        length = vectors.norm(dim=-1)
        if how == "norm":
            raw = length
        elif how == "equal":
            raw = (length > 0).to(vectors.dtype)
        else:
            raw = (vectors @ bias[..., None])[..., 0].abs() / length.clamp(min=torch.finfo(length.dtype).tiny)
    total = raw.sum(-1, keepdim=True)
    first = torch.zeros_like(raw)
    first[..., 0] = 1
    return torch.where(total > 0, raw / torch.where(total > 0, total, 1), first)


def add_bias(vectors: Vectors, bias: Float[Tensor, "... d"] | None, how: str) -> Vectors:
    """Vectors that sum to what they summed to, plus the bias. Changes `vectors` in place and returns them."""
    if bias is None:
        return vectors
    if how in ("first", "separate"):
        vectors[..., 0, :] += bias
        return vectors
    return vectors.addcmul_(weights(vectors, bias, how)[..., None], bias[..., None, :])

"""Logits at the answer position of whole prompts."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.inspection import anatomy_of
from interp.kernels.forward import answer_logits_of

_TOKENS = 4096  # of a batch


@torch.no_grad()
def answer_logits(
    model: Any, tokens: Int[Tensor, "n pos"], lengths: Int[Tensor, " n"], batch_size: int | None = None
) -> Float[Tensor, "n d_vocab"]:
    """Logits at the last real position of right-padded prompts, in batches; on the CPU.

    `model` is what `load_model` returns. Cost: one forward pass, unembedding one position a prompt.
    """
    anatomy = anatomy_of(model)
    size = batch_size or max(1, _TOKENS // tokens.shape[1])
    parts = zip(tokens.split(size), lengths.split(size), strict=True)
    return torch.cat([answer_logits_of(anatomy, *part).cpu() for part in parts])

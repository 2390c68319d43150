"""Logits of whole prompts, clean or corrupted, where their answers are read."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.inspection import anatomy_of
from interp.kernels.forward import answer_rows, prepare, run_blocks, unembed
from interp.tasks.prompts import Prompts

_TOKENS = 4096  # of a batch


@torch.no_grad()
def answer_logits(model: Any, prompts: Prompts, batch_size: int | None = None) -> Float[Tensor, "read d_vocab"]:
    """Logits where the answers to clean prompts are read (`Prompts.turned`: to corrupted ones), in batches; on the CPU.

    `model` is what `load_model` returns. Cost: one forward pass, unembedding the positions that are read.
    """
    anatomy = anatomy_of(model)
    size = batch_size or max(1, _TOKENS // prompts.longest)
    parts = [prompts.select(slice(first, first + size)) for first in range(0, len(prompts), size)]
    return torch.cat([answer_logits_of(anatomy, part).cpu() for part in parts])


@torch.no_grad()
def answer_logits_of(anatomy: Anatomy, prompts: Prompts) -> Float[Tensor, "read d_vocab"]:
    """The same of all prompts in one pass, on the model's device."""
    prompts = prompts.to(anatomy.device)
    frame = prepare(anatomy, prompts.clean, 0, prompts.lengths)
    x = run_blocks(frame, anatomy.embed(prompts.clean, frame.positions))
    return unembed(anatomy, answer_rows(x, frame, prompts))

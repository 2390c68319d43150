"""Means over clean prompts of whatever runs give: at each position, or over all of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.batching import Batch, own_batches, plan
from interp.kernels.forward import Residual
from interp.kernels.frame import Frame
from interp.parts import working
from interp.tasks.prompts import Prompts


def clean_runs(
    anatomy: Anatomy, prompts: Prompts, batch_size: int | None = None, memory: int | None = None
) -> Iterator[tuple[Batch, Frame, Residual]]:
    """This rank's share of the clean prompts, from their beginning, in batches, with the embeddings to start from."""
    size = plan(anatomy, len(prompts), prompts.longest, batch_size=batch_size, memory=memory)
    for batch in own_batches(prompts, size.batch_size, anatomy.device, skip_prefix=False):
        frame = batch.frame(anatomy)
        yield batch, frame, anatomy.embed(batch.prompts.clean, frame.positions)


def add_real(
    total: Float[Tensor, "length ..."], x: Float[Tensor, "batch pos ..."], real: Bool[Tensor, "batch pos"]
) -> None:
    """Add the values of a batch at real positions to sums by position."""
    here = real.reshape(*real.shape, *[1] * (x.ndim - 2))
    total[: x.shape[1]] += torch.where(here, working(x), 0.0).sum(0).to(total.dtype)


def averaged(total: Float[Tensor, "pos ..."], prompts: Prompts, positional: bool) -> Float[Tensor, "pos ..."]:
    """The means, `positional`: at each position, or else over all of them, every position holding the same."""
    counts = prompts.mask.sum(0).to(total.device)
    if not positional:
        return (total.sum(0) / counts.sum()).expand_as(total)
    return total / counts.reshape(-1, *[1] * (total.ndim - 1))

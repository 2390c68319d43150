"""Mean features and errors of dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.anatomy import Anatomy
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sites import Parts, SiteRecorder, run_sites, split
from interp.kernels.batching import make_batches, plan
from interp.kernels.forward import Residual
from interp.tasks.prompts import Prompts

MeanParts = list[Parts]  # by position, of each dictionary


@torch.no_grad()
def mean_parts(
    anatomy: Anatomy,
    prompts: Prompts,
    dictionaries: Sequence[Dictionary],
    positional: bool,
    batch_size: int | None = None,
    memory: int | None = None,
) -> MeanParts:
    """Mean features and errors over the clean prompts, `positional`: at each position, or else over all of them.

    One forward pass.
    """
    length = prompts.clean.shape[1]
    size = plan(anatomy, len(prompts), length, batch_size=batch_size, memory=memory)
    totals = [
        [torch.zeros(length, width, dtype=torch.float64, device=anatomy.device) for width in (d.n_features, d.d_model)]
        for d in dictionaries
    ]
    counts = prompts.mask.sum(0).to(anatomy.device)
    for batch in make_batches(prompts, size.batch_size, anatomy.device, skip_prefix=False):
        frame, real = batch.frame(anatomy), batch.prompts.mask[..., None]

        def hear(index: int, read: Residual, written: Residual, real: Tensor = real) -> Residual:
            parts = split(dictionaries[index], read, written)
            for total, values in zip(totals[index], (parts.features, parts.error), strict=True):
                total[: values.shape[1]] += torch.where(real, values, 0.0).sum(0)
            return written

        run_sites(frame, anatomy.embed(batch.prompts.clean, frame.positions), SiteRecorder(anatomy, dictionaries, hear))

    def mean(total: Tensor) -> Tensor:
        return total / counts[:, None] if positional else (total.sum(0) / counts.sum()).expand_as(total)

    return [Parts(mean(features), mean(errors)) for features, errors in totals]

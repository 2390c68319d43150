"""Mean features and errors of dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp import ranks
from interp.anatomy import Anatomy
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sites import Parts, SiteRecorder, run_sites, split
from interp.kernels.forward import Residual
from interp.kernels.means import add_real, averaged, clean_runs
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
    totals = [
        [torch.zeros(length, width, dtype=torch.float64, device=anatomy.device) for width in (d.n_features, d.d_model)]
        for d in dictionaries
    ]
    for batch, frame, embedding in clean_runs(anatomy, prompts, batch_size, memory):

        def hear(index: int, read: Residual, written: Residual, real: Tensor = batch.prompts.mask) -> Residual:
            parts = split(dictionaries[index], read, written)
            for total, values in zip(totals[index], (parts.features, parts.error), strict=True):
                add_real(total, values, real)
            return written

        run_sites(frame, embedding, SiteRecorder(anatomy, dictionaries, hear))
    for pair in totals:
        ranks.add(*pair)
    return [Parts(*(averaged(total, prompts, positional) for total in pair)) for pair in totals]

"""Mean features and errors of dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from interp import ranks
from interp.anatomy import Anatomy
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sites import Parts, SiteRecorder, run_sites, split
from interp.kernels.forward import Residual
from interp.kernels.means import add_real, averaged, clean_runs
from interp.parts import working
from interp.tasks.prompts import Prompts

MeanParts = list[Parts]  # by position, of each dictionary


@torch.no_grad()
def part_totals(
    anatomy: Anatomy,
    prompts: Prompts,
    dictionaries: Sequence[Dictionary],
    batch_size: int | None = None,
    memory: int | None = None,
    of: Callable[[Tensor], Tensor] = working,
) -> MeanParts:
    """Sums over clean prompts of features and errors, or of a function of them, by position: float64.

    One forward pass.
    """
    length = prompts.clean.shape[1]
    totals = [
        Parts(*(torch.zeros(length, n, dtype=torch.float64, device=anatomy.device) for n in (d.n_features, d.d_model)))
        for d in dictionaries
    ]
    for batch, frame, embedding in clean_runs(anatomy, prompts, batch_size, memory):

        def hear(index: int, read: Residual, written: Residual, real: Tensor = batch.prompts.mask) -> Residual:
            parts = split(dictionaries[index], read, written)
            add_real(totals[index].features, of(parts.features), real)
            add_real(totals[index].error, of(parts.error), real)
            return written

        run_sites(frame, embedding, SiteRecorder(anatomy, dictionaries, hear))
    for total in totals:
        ranks.add(total.features, total.error)
    return totals


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
    totals = part_totals(anatomy, prompts, dictionaries, batch_size, memory)
    return [Parts(*(averaged(part, prompts, positional) for part in (one.features, one.error))) for one in totals]


def flat(parts: MeanParts) -> list[Tensor]:
    """The features of each dictionary, and behind these the errors of each."""
    return [*(one.features for one in parts), *(one.error for one in parts)]

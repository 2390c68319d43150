"""The mean over prompts of what is found batch by batch: one loop for all that scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interp import ranks
from interp.kernels.batching import Batch, own_batches, run_shared
from interp.setting import Setting


def mean_over_prompts(
    setting: Setting,
    size: int,
    summed: Callable[[Batch], Tensor],
    advance: Callable[[int], None] = lambda n: None,
    *,
    skip_prefix: bool,
) -> Tensor:
    """The mean of what `summed` adds up over a batch; float32, or float64 for a float64 model; on the CPU.

    Batches have at most `size` prompts; with `skip_prefix` they leave out what all runs share. `advance` is called with
    the number of prompts done. Each rank runs its share of them.
    """
    parts, told = list[Tensor](), ranks.for_all(advance)

    def work(batch: Batch) -> None:
        parts[:] = [sum(parts, start=summed(batch).double().cpu())]
        told(len(batch))

    run_shared(own_batches(setting.prompts, size, setting.anatomy.device, skip_prefix=skip_prefix), work)
    wide = torch.float64 if setting.anatomy.dtype == torch.float64 else torch.float32
    return (ranks.total(parts[0] if parts else None) / len(setting)).to(wide)

"""Saying so when nothing is left of what was selected."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import Tensor

logger = logging.getLogger(__name__)

PATHS = "lie on a path from the input to the logits"


def warn_if_empty(mask: Tensor, n: int, select: Callable[[int], Tensor], largest: int) -> Tensor:
    """`mask`, which is `select(n)`; a warning if no edge is left of it, with the least size that leaves some."""
    if n == 0 or mask.any():
        return mask
    low, high = n, largest  # the circuits are nested, and the largest is the whole graph
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if select(middle).any() else (middle, high)
    hint = f"the first that leaves any is n={high}" if select(high).any() else "no n leaves any"
    logger.warning("n=%d leaves no edges: none of those selected %s, and all are pruned; %s, or use "
                   "selection='connected', which counts edges on such paths alone", n, PATHS, hint)  # fmt: skip
    return mask


def warn_if_below(mask: Tensor, threshold: float, key: Tensor) -> Tensor:
    """`mask`, a selection by `threshold` on `key`; a warning if no edge is left of it."""
    if mask.any():
        return mask
    reached = int((key >= threshold).sum())
    why = f"none of the {reached:,} edges that reach it {PATHS}" if reached else "no score reaches it"
    logger.warning("threshold=%g leaves no edges: %s; the largest score is %.4g, lower the threshold or give n and "
                   "selection='connected'", threshold, why, float(key.max()))  # fmt: skip
    return mask

"""Which prompts of a task belong together, so that nothing tears them apart or counts them twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from interp.errors import InputError


def read_groups(groups: Sequence[int] | None, n: int) -> Int[np.ndarray, " n"]:
    """The group of each of `n` prompts, numbered from 0 on; None: each by itself.

    Raises `InputError` for another number of entries.

    >>> read_groups([7, 3, 7], 3).tolist()
    [1, 0, 1]
    """
    if groups is None:
        return np.arange(n)
    given = np.asarray(groups)
    if given.shape != (n,):
        raise InputError(f"groups has the shape {list(given.shape)}; it needs one entry for each of the {n} questions")
    return np.unique(given, return_inverse=True)[1]

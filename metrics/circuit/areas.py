"""Areas under faithfulness over the share of what is kept: CPR and CMD of the MIB benchmark."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.selection import LADDER_FRACTIONS


def cpr(fractions: ArrayLike, faithfulness: ArrayLike) -> NDArray[np.float64]:
    """Integrated circuit performance ratio: the trapezoid area under f over p (MIB 2025). No upper bound.

    `fractions` [k] ascending, `faithfulness` [..., k].

    >>> float(cpr([0.0, 1.0], [0.0, 1.0]))
    0.5
    """
    return np.asarray(np.trapezoid(np.asarray(faithfulness), np.asarray(fractions), axis=-1))


def cmd(fractions: ArrayLike, faithfulness: ArrayLike) -> NDArray[np.float64]:
    """Integrated circuit-model distance: the trapezoid area under |1 - f| over p (MIB 2025). 0 is perfect.

    >>> float(cmd([0.0, 1.0], [0.0, 1.0]))
    0.5
    """
    return cpr(fractions, np.abs(1 - np.asarray(faithfulness)))


def areas(faithfulness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Faithfulness on the ladder `[..., size]` -> CPR, CMD and their means over log p `[..., 4]`."""
    p = np.array(LADDER_FRACTIONS)
    width = np.log(p[-1]) - np.log(p[0])
    f, log_p = faithfulness, np.log(p)
    return np.stack([cpr(p, f), cmd(p, f), cpr(log_p, f) / width, cmd(log_p, f) / width], -1)

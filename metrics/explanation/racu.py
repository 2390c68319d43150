"""RACU: the relative area between a measure's performance curve and that of random masking, as a pure function."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp import numbers
from interp.errors import InputError


@numbers.checked(least=numbers.FROM_ZERO)
def racu(
    ratios: ArrayLike,
    performance: ArrayLike,
    random: ArrayLike,
    everything: ArrayLike | None = None,
    *,
    clip: bool = False,
    least: float = 0.01,
) -> NDArray[np.float64]:
    """Relative area between curves (Madsen et al., Findings of EMNLP 2022, equation 3).

        RACU = area(b - m) / area(b - b_100),  by trapezoids over the ratios

    with m the measure's performance, b that of random masking and b_100 that with everything masked. 0 is what
    random masking gets, 1 an immediate fall to b_100; what is masked last first is negative.

    Args:
        ratios: [k], ascending, from 0 (nothing masked) upwards.
        performance: [..., k], higher is better.
        random: [..., k].
        everything: [...], b_100; None: the last value of `random`.
        clip: to [-1, 1], as the first paper does and the second does not.
        least: what must be lost between b_0 and b_100 for a value. Where masking everything costs less there is
            nothing to divide by, and the value is NaN.

    Raises:
        InputError: shapes that do not fit, ratios that do not ascend.

    >>> float(racu([0, 0.5, 1], performance=[1, 0, 0], random=[1, 0.5, 0]))
    0.5
    """
    x, m, b = (np.asarray(values, dtype=np.float64) for values in (ratios, performance, random))
    if x.ndim != 1 or len(x) < 2 or not (np.diff(x) > 0).all():
        raise InputError(f"ratios={x.tolist()} must be at least two numbers that ascend, beginning with nothing masked")
    if m.shape != b.shape or m.shape[-1:] != x.shape:
        raise InputError(
            f"performance {m.shape} and random {b.shape} must be of one shape that ends with the {len(x)} ratios"
        )
    last = b[..., -1] if everything is None else np.asarray(everything, dtype=np.float64)
    if last.shape != b.shape[:-1]:
        raise InputError(f"everything {last.shape} must have one value for each curve, {b.shape[:-1]}")
    whole = np.trapezoid(b - last[..., None], x, axis=-1)
    meaningful = (b[..., 0] - last > least) & (whole > 0)
    areas = np.trapezoid(b - m, x, axis=-1) / np.where(meaningful, whole, np.nan)
    return np.clip(areas, -1, 1) if clip else areas

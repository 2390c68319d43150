"""Agreement of approximations with a reference: correlations with bootstrap intervals, with and without large points.

A resample is a row of counts, how often each point was drawn, so that a whole block of resamples is a few matrix
products and no point is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp import numbers
from interp.errors import InputError
from metrics.agreement_table import AgreementRow, AgreementTable
from metrics.percentiles import Resampled

Array = NDArray[np.float64]
RESERVED = ("label", "cluster", "reference", "component")  # other columns of the points
_BLOCK = 2_000_000  # counts held at a time
_PARTS = 200  # that the points are cut into where each part is left out once


@numbers.checked(top=numbers.COUNT, drop=numbers.FROM_ZERO)
def agreement(
    reference: ArrayLike,
    candidates: Mapping[str, ArrayLike],
    *,
    labels: Sequence[str] | None = None,
    clusters: ArrayLike | None = None,
    top: Sequence[int] = (10, 50),
    drop: Sequence[int] = (0, 1, 5),
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> AgreementTable:
    """How well approximations agree with a reference, for instance gradient scores with exact patching.

    - `pearson`, `spearman` (mid-ranks where values tie);
    - `sign`: share of the points with a non-zero reference that have its sign;
    - `top_k`: share of the k points largest by |reference| that are among the k largest by |candidate|. Ties go to
      the point that stands first; in a resample a point drawn twice takes two of the k places.

    Each with a bootstrap interval over points, or over whole clusters of points (see `percentile_interval`; NaN where
    there is but one cluster left); and again without the points that are largest by |reference|: one huge point can
    make a Pearson correlation.

    Args:
        reference: values of any shape, n in all.
        candidates: by name, values of the same shape.
        labels: names of the points, for the figure.
        clusters: n integers; points of one cluster (of one prompt, say) are drawn together, since they are not
            independent. None: points are drawn one by one.
        top: the k of `top_k`.
        drop: how many of the largest points to leave out; 0 is all points.
        resamples, confidence, seed: of the bootstrap. All candidates are judged on the same resamples.

    Returns:
        `AgreementTable`: `to_frame()` has one row per candidate and entry of `drop`. A statistic that has no value
        (correlation with a constant) is NaN.

    Raises:
        InputError: shapes that differ, values that are not finite, fewer than 3 points, settings out of range.
    """
    x = _array("reference", reference)
    if not candidates:
        raise InputError("candidates is empty; give at least one approximation by name")
    for name in candidates:
        if name in RESERVED:
            raise InputError(f"candidates names {name!r}, a column of the table; call it something else")
    ys = {name: _array(f"candidates[{name!r}]", values) for name, values in candidates.items()}
    for name, y in ys.items():
        if y.shape != x.shape:
            raise InputError(f"candidates[{name!r}] has {y.size} values, reference {x.size}; they must be as many")
    groups = np.arange(x.size) if clusters is None else _clusters(clusters, x.size)
    if labels is not None and len(labels) != x.size:
        raise InputError(f"labels has {len(labels)} names for {x.size} points")
    _check_drop(x.size, drop)
    largest = np.argsort(-np.abs(x), kind="stable")
    rows = []
    for dropped in drop:
        kept = np.sort(largest[dropped:])
        judge = _Judge(x[kept], tuple(top))
        drawn, others = list(_counts(groups[kept], resamples, seed)), list(_left_out(groups[kept]))
        for name, y in ys.items():
            point = judge.statistics(y[kept], np.ones((1, kept.size)))[0]
            spread, left_out = (
                np.concatenate([judge.statistics(y[kept], counts) for counts in blocks]) for blocks in (drawn, others)
            )
            found = Resampled(point, spread, left_out, np.unique(groups[kept]).size)
            rows.append(AgreementRow(name, dropped, kept.size, found))
    return AgreementTable.of(
        rows,
        names=("pearson", "spearman", "sign", *(f"top_{k}" for k in top)),
        confidence=confidence,
        points={"reference": x, **ys},
        labels=None if labels is None else list(labels),
        clusters=None if clusters is None else groups,
    )


@dataclass(frozen=True)
class _Judge:
    """Statistics of candidates against one reference, for blocks of resamples given as counts [resample, n]."""

    reference: Array
    top: tuple[int, ...]

    def statistics(self, candidate: Array, counts: Array) -> Array:
        """[resample, statistic]."""
        x, y = self.reference, candidate
        total = counts.sum(1)
        columns = [
            _pearson(np.broadcast_to(x, counts.shape), np.broadcast_to(y, counts.shape), counts),
            _pearson(_mid_ranks(x, counts), _mid_ranks(y, counts), counts),
            _ratio(counts @ ((np.sign(x) == np.sign(y)) & (x != 0)), counts @ (x != 0)),
        ]
        columns += [np.where(total >= k, self._overlap(y, counts, k), np.nan) for k in self.top]
        return np.stack(columns, 1)

    def _overlap(self, candidate: Array, counts: Array, k: int) -> Array:
        shared: Array = np.minimum(_included(self.reference, counts, k), _included(candidate, counts, k)).sum(1)
        return shared / k


def _pearson(x: Array, y: Array, counts: Array) -> Array:
    """Correlation [resample] of x and y [resample, n], weighted by counts."""
    total = counts.sum(1, keepdims=True)
    x = x - (counts * x).sum(1, keepdims=True) / total
    y = y - (counts * y).sum(1, keepdims=True) / total
    wx = counts * x
    spread = np.sqrt((wx * x).sum(1) * (counts * y * y).sum(1))
    # what is constant up to rounding has no correlation
    flat = spread <= 1e-14 * total[:, 0] * np.abs(x).max(1) * np.abs(y).max(1)
    return np.clip(_ratio((wx * y).sum(1), np.where(flat, 0.0, spread)), -1, 1)


def _mid_ranks(values: Array, counts: Array) -> Array:
    """Ranks [resample, n] in the resamples, ties at their mean rank."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    firsts = np.searchsorted(group[order], np.arange(group.max() + 1))
    sizes = np.add.reduceat(counts[:, order], firsts, axis=1)
    below = np.cumsum(sizes, 1) - sizes
    return (below + (sizes + 1) / 2)[:, group]


def _included(values: Array, counts: Array, k: int) -> Array:
    """How often [resample, n] each point is among the k largest by absolute value."""
    order = np.argsort(-np.abs(values), kind="stable")
    drawn = counts[:, order]
    before = np.cumsum(drawn, 1) - drawn
    result = np.empty_like(counts)
    result[:, order] = np.clip(k - before, 0, drawn)
    return result


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, NaN where the denominator is zero."""
    return np.where(denominator == 0, np.nan, numerator / np.where(denominator == 0, 1, denominator))


def _counts(clusters: NDArray[np.int64], resamples: int, seed: int) -> Iterator[Array]:
    """Blocks of resamples as counts [resample, n]: whole clusters are drawn, as many as there are."""
    names, member = np.unique(clusters, return_inverse=True)
    generator = np.random.default_rng(seed)
    size = max(1, _BLOCK // member.size)
    for first in range(0, resamples, size):
        block = min(size, resamples - first)
        drawn = generator.multinomial(names.size, np.full(names.size, 1 / names.size), size=block)
        yield drawn[:, member].astype(np.float64)


def _left_out(clusters: NDArray[np.int64]) -> Iterator[Array]:
    """Blocks of counts [part, n] in which one cluster (or one of `_PARTS` parts of them) is missing."""
    names, member = np.unique(clusters, return_inverse=True)
    parts = max(2, min(names.size, _PARTS))
    part = (np.arange(names.size) * parts // names.size)[member]
    size = max(1, _BLOCK // member.size)
    for first in range(0, parts, size):
        missing = np.arange(first, min(first + size, parts))
        yield (part != missing[:, None]).astype(np.float64)


def _array(name: str, values: Any) -> Array:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from None
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
    return array


def _clusters(clusters: ArrayLike, n: int) -> NDArray[np.int64]:
    array = np.asarray(clusters)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"clusters must be {n} integers, one for each point; got {array.dtype} {array.shape}")
    if len(np.unique(array)) < 2:
        raise InputError("clusters holds a single cluster, which cannot be resampled; leave it away")
    return array


def _check_drop(n: int, drop: Sequence[int]) -> None:
    if not drop:
        raise InputError("drop is empty; (0,) keeps all points")
    if n - max(drop) < 3:
        raise InputError(f"drop={tuple(drop)} leaves fewer than 3 of {n} points to correlate")

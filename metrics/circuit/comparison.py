"""Curves of several methods on the same prompts: areas, edges needed, and paired differences from one bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray

from interp.errors import InputError
from interp.interval import Interval
from interp.selection import LADDER_FRACTIONS
from metrics.circuit.areas import areas
from metrics.circuit.evaluate import faithfulness_of_means
from metrics.percentiles import Resampled, bootstrap_p
from metrics.statistics import estimates, resampled
from metrics.testing import adjust

Array = NDArray[np.float64]
AREAS = ("cpr", "cmd", "log_cpr", "log_cmd")
GOALS = (0.85, 0.95)


@dataclass(frozen=True)
class Ladder:
    """What one method's circuits did: their edges (nodes) at each size, and their objectives `[size, n]` per prompt."""

    method: str
    ranking: str  # absolute or signed
    edges: tuple[int, ...]
    values: Float[np.ndarray, "size n"]


@dataclass(frozen=True)
class CurveComparison:
    """`rows`: a row a method; `pairs`: a row a pair of methods and area; `points`: a row a method, ranking and size."""

    rows: pd.DataFrame
    pairs: pd.DataFrame
    points: pd.DataFrame


def compare_curves(
    clean: Float[np.ndarray, " n"],
    empty: Float[np.ndarray, " n"],
    ladders: Sequence[Ladder],
    interval: Interval,
    correction: str = "holm",
    counted: str = "edges",
) -> CurveComparison:
    """Compare methods by the faithfulness of their circuits; prompts are resampled for all of them together.

    Each method has a ladder of circuits ranked by absolute scores, whose figures have plain names (`cpr`, `cmd`,
    `log_cpr`, `log_cmd`, `edges_85`), and one ranked by signed scores (`cpr_signed` and so on). A pair's difference is
    resampled as one statistic; its p-value is that of its interval (p < 1 - confidence where it leaves out zero), then
    corrected for the number of pairs. With one prompt there are neither.

    `edges_85` is the size of the smallest circuit on the ladder that reaches faithfulness 0.85, with the interval of
    that size over resamples; `edges_85_kept` of the smallest from which on all larger ones reach it too. `counted` is
    what these columns, and that of sizes in `points`, are called by: `edges` or `nodes`.
    """
    names = list(dict.fromkeys(ladder.method for ladder in ladders))
    if not names:
        raise InputError("ladders is empty; give at least one method's")
    edges = np.array([ladder.edges for ladder in ladders], dtype=np.float64)
    sizes = edges.shape[1]
    k = len(ladders)

    def statistic(means: Array) -> Array:
        f = faithfulness_of_means(means).reshape(len(means), k, sizes)
        parts = [f, areas(f), *(needed(f, edges, goal)[..., None] for goal in GOALS)]
        return np.concatenate(parts, -1).reshape(len(means), -1)

    stacked = np.concatenate([clean[None], empty[None], *(ladder.values for ladder in ladders)])
    drawn = resampled(stacked, statistic, interval)
    found = np.array(estimates(drawn, interval.confidence), dtype=object).reshape(k, -1)
    areas_at = np.arange(len(drawn.point)).reshape(k, -1)[:, sizes : sizes + len(AREAS)]
    return CurveComparison(
        rows=_rows(names, ladders, found, edges, counted),
        pairs=_pairs(names, ladders, drawn, areas_at, interval.confidence, correction),
        points=_points(ladders, found[:, :sizes], counted),
    )


def needed(f: Float[np.ndarray, "... size"], edges: Float[np.ndarray, "... size"], goal: float) -> Array:
    """Edges of the first circuit on the ladder that reaches the goal; NaN where none does.

    >>> needed(np.array([0.2, 0.9, 0.7, 1.0]), np.array([1.0, 2.0, 3.0, 4.0]), 0.85).item()
    2.0
    """
    reached = f >= goal
    first = np.take_along_axis(np.broadcast_to(edges, f.shape), reached.argmax(-1)[..., None], -1)[..., 0]
    return np.where(reached.any(-1), first, np.nan)


def kept(f: Float[np.ndarray, "... size"], edges: Float[np.ndarray, "... size"], goal: float) -> Array:
    """Edges of the first circuit on the ladder that reaches the goal and after which none falls short of it.

    >>> kept(np.array([0.2, 0.9, 0.7, 1.0]), np.array([1.0, 2.0, 3.0, 4.0]), 0.85).item()
    4.0
    """
    stays = np.logical_and.accumulate((f >= goal)[..., ::-1], -1)[..., ::-1]
    return needed(stays.astype(np.float64), edges, 1.0)


def _rows(
    names: list[str],
    ladders: Sequence[Ladder],
    found: NDArray[Any],
    edges: Array,
    counted: str,
) -> pd.DataFrame:
    sizes = edges.shape[1]
    cells: dict[str, dict[str, Any]] = {name: {"method": name} for name in names}
    for i, ladder in enumerate(ladders):
        suffix = "" if ladder.ranking == "absolute" else f"_{ladder.ranking}"
        row, figures = cells[ladder.method], found[i, sizes:]
        for name, one in zip(AREAS, figures, strict=False):
            row |= one.columns(f"{name}{suffix}")
        f = np.array([one.value for one in found[i, :sizes]])
        for goal, one in zip(GOALS, figures[-len(GOALS) :], strict=True):
            name = f"{counted}_{goal:.0%}{suffix}".replace("%", "")
            row |= one.columns(name) | {f"{name}_kept": float(kept(f, edges[i], goal))}
    return pd.DataFrame(list(cells.values()))


def _pairs(
    names: list[str],
    ladders: Sequence[Ladder],
    drawn: Resampled,
    columns: NDArray[np.int64],
    confidence: float,
    correction: str,
) -> pd.DataFrame:
    at = {ladder.method: i for i, ladder in enumerate(ladders) if ladder.ranking == "absolute"}
    pairs = list(combinations(names, 2))
    heads = ["area", "first", "second", "difference", "low", "high", "p", "p_adjusted"]
    rows: list[dict[str, Any]] = []
    first, second = [at[a] for a, _ in pairs], [at[b] for _, b in pairs]
    for j, area in enumerate(AREAS):
        difference = drawn.columns(columns[first, j]) - drawn.columns(columns[second, j])
        p = bootstrap_p(difference)
        for pair, one, raw, corrected in zip(
            pairs, estimates(difference, confidence), p, adjust(p, correction), strict=True
        ):
            cells = (area, *pair, one.value, one.low, one.high, float(raw), float(corrected))
            rows.append(dict(zip(heads, cells, strict=True)))
    return pd.DataFrame(rows, columns=heads)


def _points(ladders: Sequence[Ladder], found: NDArray[Any], counted: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": ladder.method,
            "ranking": ladder.ranking,
            "fraction": fraction,
            counted: n,
            "faithfulness": one.value,
            "low": one.low,
            "high": one.high,
        }
        for ladder, row in zip(ladders, found, strict=True)
        for fraction, n, one in zip(LADDER_FRACTIONS, ladder.edges, row, strict=True)
    )

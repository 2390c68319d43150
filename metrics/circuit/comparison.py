"""Curves of several methods on the same prompts: areas, edges needed, and paired differences from one bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray

from interp.errors import InputError
from interp.interval import Estimate, Interval
from interp.selection import LADDER_FRACTIONS
from metrics.circuit.areas import areas, cpr
from metrics.circuit.evaluate import faithfulness_of_means
from metrics.percentiles import Resampled, bootstrap_p
from metrics.statistics import estimates, resampled
from metrics.testing import adjust

Array = NDArray[np.float64]
AREAS = ("cpr", "cmd", "log_cpr", "log_cmd")
OUTPUTS = {"kl": (0.0, np.inf), "same_argmax": (0.0, 1.0)}  # what they can be
GOALS = (0.85, 0.95)


@dataclass(frozen=True)
class Ladder:
    """What one method's circuits did: their edges (nodes) at each size, and their objectives `[size, n]` per prompt.

    `outputs` is KL(model || circuit) and whether the most likely token is the model's, `[2, size, n]`, where they are
    known: of all ladders that are compared, or of none.
    """

    method: str
    ranking: str  # absolute or signed
    edges: tuple[int, ...]
    values: Float[np.ndarray, "size n"]
    outputs: Float[np.ndarray, "output size n"] | None = None


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
    what these columns, and that of sizes in `points`, are called by: `edges` or `nodes`. Where ladders know their
    outputs, `kl` and `same_argmax` are means over the logarithm of size, compared in pairs like areas.
    """
    names = list(dict.fromkeys(ladder.method for ladder in ladders))
    if not names:
        raise InputError("ladders is empty; give at least one method's")
    curves = _Curves(ladders)
    drawn = resampled(curves.stacked(clean, empty), curves.statistic, interval)
    found = _estimated(drawn, curves.columns, len(ladders), interval.confidence)
    return CurveComparison(
        rows=_rows(names, ladders, found, curves.compared, counted),
        pairs=_pairs(names, curves, drawn, interval.confidence, correction),
        points=_points(ladders, found, curves.measures, counted),
    )


def curve_figures(
    clean: Float[np.ndarray, " n"], empty: Float[np.ndarray, " n"], ladders: Sequence[Ladder]
) -> list[dict[str, float]]:
    """The figures of `compare_curves` without their intervals: of each ladder its areas, outputs and sizes needed.

    Sizes are called `85` and `95`, after the faithfulness that they reach.
    """
    curves = _Curves(ladders)
    values = curves.statistic(curves.stacked(clean, empty).mean(-1)[None])[0].reshape(len(ladders), -1)
    return [{name: float(v) for name, v in zip(curves.columns, row, strict=True) if "@" not in name} for row in values]


@dataclass(frozen=True)
class _Curves:
    """The statistics of ladders: at every size, then over all sizes."""

    ladders: Sequence[Ladder]

    @property
    def sizes(self) -> int:
        return len(self.ladders[0].edges)

    @property
    def measures(self) -> tuple[str, ...]:
        """What is known at every size."""
        known = [ladder.outputs is not None for ladder in self.ladders]
        return ("faithfulness", *OUTPUTS) if all(known) else ("faithfulness",)

    @property
    def compared(self) -> tuple[str, ...]:
        """What methods are compared by: areas, and means of outputs."""
        return (*AREAS, *self.measures[1:])

    @property
    def columns(self) -> list[str]:
        """The statistics of one ladder by name; of a size behind `@` its number."""
        return [
            *(f"{name}@{i}" for name in self.measures for i in range(self.sizes)),
            *self.compared,
            *(_named(goal) for goal in GOALS),
        ]

    def stacked(self, clean: Float[np.ndarray, " n"], empty: Float[np.ndarray, " n"]) -> Array:
        """All that is resampled, prompt by prompt."""
        outputs = [ladder.outputs for ladder in self.ladders if ladder.outputs is not None and self.measures[1:]]
        of_sizes = [*(ladder.values for ladder in self.ladders), *(np.concatenate(outputs, 1) if outputs else [])]
        return np.concatenate([clean[None], empty[None], *of_sizes])

    def statistic(self, means: Array) -> Array:
        k, sizes, edges = len(self.ladders), self.sizes, np.array([one.edges for one in self.ladders], dtype=np.float64)
        f = faithfulness_of_means(means[:, : 2 + k * sizes]).reshape(len(means), k, sizes)
        outputs = np.moveaxis(means[:, 2 + k * sizes :].reshape(len(means), -1, k, sizes), 1, 2)
        at_sizes = np.concatenate([f[..., None, :], outputs], -2).reshape(len(means), k, -1)
        parts = [at_sizes, areas(f), over_log_size(outputs), *(needed(f, edges, goal)[..., None] for goal in GOALS)]
        return np.concatenate(parts, -1).reshape(len(means), -1)

    def places(self, name: str, rows: Sequence[int]) -> NDArray[np.int64]:
        """Where a statistic of some ladders stands among all."""
        return np.array(rows) * len(self.columns) + self.columns.index(name)


def over_log_size(values: Float[np.ndarray, "... size"]) -> Array:
    """Means over the logarithm of size on the ladder, as `log_cpr` is that of faithfulness.

    >>> over_log_size(np.full(len(LADDER_FRACTIONS), 0.3)).round(6).item()
    0.3
    """
    log_p = np.log(np.array(LADDER_FRACTIONS))
    found: Array = cpr(log_p, values) / (log_p[-1] - log_p[0])
    return found


def _estimated(drawn: Resampled, columns: list[str], ladders: int, confidence: float) -> list[dict[str, Estimate]]:
    """The statistics of each ladder by name, cut off at what they can be."""
    at = np.arange(len(drawn.point)).reshape(ladders, -1).T
    found: list[dict[str, Estimate]] = [{} for _ in range(ladders)]
    for name, places in zip(columns, at, strict=True):
        possible = OUTPUTS.get(name.partition("@")[0], (-np.inf, np.inf))
        for row, one in zip(found, estimates(drawn.columns(places), confidence, possible), strict=True):
            row[name] = one
    return found


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


def _named(goal: float) -> str:
    return f"{goal:.0%}".removesuffix("%")


def _rows(
    names: list[str], ladders: Sequence[Ladder], found: list[dict[str, Estimate]], compared: Sequence[str], counted: str
) -> pd.DataFrame:
    cells: dict[str, dict[str, Any]] = {name: {"method": name} for name in names}
    for ladder, figures in zip(ladders, found, strict=True):
        suffix = "" if ladder.ranking == "absolute" else f"_{ladder.ranking}"
        row, edges = cells[ladder.method], np.array(ladder.edges, dtype=np.float64)
        for name in compared:
            row |= figures[name].columns(f"{name}{suffix}")
        f = np.array([figures[f"faithfulness@{i}"].value for i in range(len(edges))])
        for goal in GOALS:
            name = f"{counted}_{_named(goal)}{suffix}"
            row |= figures[_named(goal)].columns(name) | {f"{name}_kept": float(kept(f, edges, goal))}
    return pd.DataFrame(list(cells.values()))


def _pairs(names: list[str], curves: _Curves, drawn: Resampled, confidence: float, correction: str) -> pd.DataFrame:
    at = {ladder.method: i for i, ladder in enumerate(curves.ladders) if ladder.ranking == "absolute"}
    rows = [at[name] for name in names]
    by_area = {area: curves.places(area, rows) for area in curves.compared}
    return paired(drawn, names, by_area, confidence, correction)


def paired(
    drawn: Resampled, names: Sequence[str], columns: Mapping[str, Any], confidence: float, correction: str
) -> pd.DataFrame:
    """Differences between every two of `names` in each area, whose columns of `drawn` are in the order of the names."""
    heads = ["area", "first", "second", "difference", "low", "high", "p", "p_adjusted"]
    pairs = list(combinations(range(len(names)), 2))
    rows: list[dict[str, Any]] = []
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    for area, places in columns.items():
        difference = drawn.columns(places[first]) - drawn.columns(places[second])
        p = bootstrap_p(difference)
        for (a, b), one, raw, corrected in zip(
            pairs, estimates(difference, confidence), p, adjust(p, correction), strict=True
        ):
            cells = (area, names[a], names[b], one.value, one.low, one.high, float(raw), float(corrected))
            rows.append(dict(zip(heads, cells, strict=True)))
    return pd.DataFrame(rows, columns=heads)


def _points(
    ladders: Sequence[Ladder], found: list[dict[str, Estimate]], measures: Sequence[str], counted: str
) -> pd.DataFrame:
    rows = []
    for ladder, figures in zip(ladders, found, strict=True):
        for i, (fraction, n) in enumerate(zip(LADDER_FRACTIONS, ladder.edges, strict=True)):
            row = {"method": ladder.method, "ranking": ladder.ranking, "fraction": fraction, counted: n}
            one = figures[f"faithfulness@{i}"]
            row |= {"faithfulness": one.value, "low": one.low, "high": one.high}
            for name in measures[1:]:
                row |= figures[f"{name}@{i}"].columns(name)
            rows.append(row)
    return pd.DataFrame(rows)

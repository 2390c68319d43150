"""Single circuits that were made elsewhere, against those of the same size that methods choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuits.candidates import Candidate, Scored, masks_of
from circuits.ladders import Controls, Ran, Stack
from interp.interval import Estimate, Interval
from metrics.circuit.comparison import OUTPUTS
from metrics.circuit.elements import Elements
from metrics.circuit.evaluate import faithfulness_of_means
from metrics.percentiles import bootstrap_p
from metrics.statistics import estimates, resampled
from metrics.testing import adjust

FIGURES: Mapping[str, tuple[float, float]] = {"faithfulness": (-np.inf, np.inf), **OUTPUTS}


@dataclass(frozen=True)
class Rivals:
    """A circuit in a stack, with its size, and the circuits of that size that others choose, by name."""

    name: str
    places: dict[str, slice]
    sizes: dict[str, int]


def rivals(
    stack: Stack, scoring: Elements, single: Sequence[Candidate], scored: Sequence[Scored], controls: Controls
) -> list[Rivals]:
    """Put circuits onto a stack, each with what every method that has scores, and chance, make of its size."""
    found = []
    for one in single:
        (mask,) = masks_of(scoring, one)
        size = scoring.count(mask)
        drawn = {one.label: [mask]}
        for row in scored:
            if size and not row.candidate.circuits:
                (rule,) = scoring.rules(row.candidate.selection, row.values, [size])
                drawn[row.candidate.label] = [rule(row.values)]
        if size and controls.n_random:
            drawn["random"] = controls.circuits(scoring, mask, size)
        counts = {label: scoring.count(masks[0]) for label, masks in drawn.items()}
        found.append(Rivals(one.label, {label: stack.put(masks) for label, masks in drawn.items()}, counts))
    return found


def rows_of(found: Sequence[Rivals], ran: Ran, interval: Interval, correction: str, counted: str) -> pd.DataFrame:
    """A row for each circuit, with a row behind it for each of its rivals; see `MethodComparison.circuits`."""
    return pd.DataFrame([row for one in found for row in _rows(one, ran, interval, correction, counted)])


def _rows(of: Rivals, ran: Ran, interval: Interval, correction: str, counted: str) -> list[dict[str, Any]]:
    k = len(of.places)
    values, outputs = zip(*map(ran.of, of.places.values()), strict=True)
    stacked = np.concatenate([np.stack([*ran.ends, *values]), *np.stack(outputs, 1)])

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        f = faithfulness_of_means(means[:, : 2 + k])
        return np.concatenate([f, means[:, 2 + k :], np.abs(1 - f)], 1)

    drawn = resampled(stacked, statistic, interval)
    at = np.arange(len(drawn.point)).reshape(len(FIGURES) + 1, k)
    cells: list[dict[str, Any]] = [
        {"circuit": of.name, "method": label, counted: of.sizes[label]} for label in of.places
    ]
    for places, (name, possible) in zip(at, FIGURES.items(), strict=False):
        for row, one in zip(cells, estimates(drawn.columns(places), interval.confidence, possible), strict=True):
            row |= one.columns(name)
    farther = drawn.columns(at[-1]) - drawn.columns(at[-1][:1].repeat(k))
    p = bootstrap_p(farther)[1:]
    tested = zip(estimates(farther, interval.confidence)[1:], p, adjust(p, correction), strict=True)
    cells[0] |= {**Estimate(np.nan, np.nan, np.nan).columns("farther"), "p": np.nan, "p_adjusted": np.nan}
    for row, (one, raw, corrected) in zip(cells[1:], tested, strict=True):
        row |= {**one.columns("farther"), "p": float(raw), "p_adjusted": float(corrected)}
    return cells

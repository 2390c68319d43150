"""`plan_sweep`: what a sweep has to do, and what each circuit would take, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attribution.engines import ScoringKeywords
from circuits.planning import plan
from circuits.sweeping.cell import job_of
from circuits.sweeping.grid import Cell, Grid
from circuits.sweeping.result import KEYS
from interp import jobs
from interp.errors import InputError
from interp.keywords import chosen
from interp.result import Result
from interp.tables import text_table


@dataclass(frozen=True, eq=False, repr=False)
class SweepPlan(Result):
    """What a sweep has to do: one row a circuit.

    Columns: `model`, `task`, `method`, `seed`; `done`: found in the store; `forward`, `backward`: passes of scoring for
    each prompt, `peak_gb`: memory of scoring, of methods that take gradients along a path (`circuits.plan`), else NaN;
    `seconds`: of a finished one that it took, else the mean of finished ones of its model, task and method, else NaN.
    """

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        return self.frame.copy()

    def headline(self) -> str:
        missing = self.frame[~self.frame["done"]]
        known = missing["seconds"].dropna()
        text = f"{len(self.frame)} circuits, {len(self.frame) - len(missing)} done, {len(missing)} to find"
        if len(known):
            text += f"; {len(known)} of these take about {known.sum():.0f} s in one process"
        return text

    def __str__(self) -> str:
        return f"{self.headline()}\n{text_table(self.frame)}"


def plan_sweep(
    grid: Grid | Mapping[str, Any] | str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None
) -> SweepPlan:
    """What `sweep` would do with the same arguments. Reads configurations and tokenizers of models, no weights.

    Raises `InputError` for what `sweep` refuses before it loads a model.
    """
    cells = list(Grid.of(grid).cells())
    kept = jobs.Store(store) if store is not None and os.path.isdir(store) else None
    found = [None if kept is None else kept.get(job_of(cell)) for cell in cells]
    known: dict[tuple[str, ...], dict[str, float]] = {}
    rows = []
    for cell, outcome in zip(cells, found, strict=True):
        key = (cell.model, cell.task, cell.method)
        if key not in known:
            known[key] = _scoring(cell)
        seconds = None if outcome is None else outcome.seconds
        rows.append({**{name: getattr(cell, name) for name in KEYS}, "done": outcome is not None, **known[key],
                     "seconds": seconds})  # fmt: skip
    frame = pd.DataFrame(rows)
    frame["seconds"] = frame["seconds"].astype(float)
    frame["seconds"] = frame["seconds"].fillna(frame.groupby(KEYS[:3])["seconds"].transform("mean"))
    return SweepPlan(frame)


def _scoring(cell: Cell) -> dict[str, float]:
    """Passes and memory of scoring; NaN where that is not known beforehand."""
    told = chosen(cell.settings, ScoringKeywords)
    unknown = {"forward": float("nan"), "backward": float("nan"), "peak_gb": float("nan")}
    if "task" not in cell.prompts or set(told) - {"steps"}:
        return unknown
    scoring = max(1, round(cell.prompts["n"] * cell.settings.get("scoring_share", 0.5)))
    try:
        planned = plan(
            cell.model, cell.prompts["task"], n=scoring,
            method=cell.settings["method"], dtype=cell.dtype, batch_size=cell.settings.get("batch_size"), **told,
        )  # fmt: skip
    except InputError:  # no path, or no configuration without a network: the rest of the plan stands
        return unknown
    return {"forward": planned.forward, "backward": planned.backward, "peak_gb": planned.peak / 1e9}

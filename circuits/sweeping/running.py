"""`sweep`: every circuit of a grid, found once and kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from circuits.sweeping.cell import job_of, loaded
from circuits.sweeping.grid import Cell, Grid
from circuits.sweeping.result import KEYS, SweepResult
from interp import jobs, numbers
from interp.headers import json_copy

COLUMNS = [
    *KEYS, "faithfulness", "faithfulness_low", "faithfulness_high", "random", "random_low", "random_high", "kl", "size",
    "fraction", "level", "n_scoring", "n_held_out", "seconds", "notes",
]  # fmt: skip


@numbers.checked(workers=numbers.Limits(-1, advice="-1 is one on each core"))
def sweep(
    grid: Grid | Mapping[str, Any] | str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    quiet: bool = False,
) -> SweepResult:
    """Find a circuit (`find_circuit`) for each model, task, method and seed of a grid, in one table.

    Args:
        grid: a file (.yaml, .json, .toml) or a dictionary of what it would hold: `models`, `tasks`, `methods`, and
            maybe `seeds`, `n`, `find` (settings of `find_circuit` for all), `dtype`, `device`; see
            `circuits.sweeping.grid.Grid`. Methods are a list of names and of settings
            (`{"method": "eap-ig", "steps": 20}`), or settings by labels of your own; tasks likewise.
        store: folder where every finished circuit is kept, by a digest of all that decides it: the same call goes on
            where it was killed, and a wider grid does what is new. None: nothing is kept.
        workers: processes on this machine, each with a model of its own; -1: one on each core; None: this process, or
            what `joblib.parallel_config` says (Ray and Dask work there).
        quiet: no progress bar.

    Returns:
        `SweepResult`: `to_frame()`, `over_seeds()`, `kept`, `failed`, `to_html(path)`. A circuit that cannot be found
        leaves the others, and stands in `failed`.

    Raises:
        InputError: a grid with what is unknown, before any model is loaded; a damaged store; a worker that died.
        OSError: where a result cannot be kept since the disk is full; those kept before stay.

    >>> sweep({"models": ["gpt2"], "tasks": ["ioi"], "methods": ["eap", "relp"], "seeds": [0, 1]})  # doctest: +SKIP
    """
    grid = Grid.of(grid)
    cells = list(grid.cells())
    try:
        outcomes = jobs.run(
            [job_of(cell) for cell in cells], store=store, workers=workers, quiet=quiet, description="circuits"
        )
    finally:
        loaded.cache_clear()
    return _result(grid, cells, outcomes)


def _result(grid: Grid, cells: Sequence[Cell], outcomes: Sequence[jobs.Outcome]) -> SweepResult:
    pairs = list(zip(cells, outcomes, strict=True))
    done = [(cell, one) for cell, one in pairs if one.error is None]
    kept = [one.value["kept"].assign(**_key(cell))[[*KEYS, *one.value["kept"]]] for cell, one in done]
    return SweepResult(
        pd.DataFrame([_row(cell, one) for cell, one in done], columns=COLUMNS),
        kept=pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=KEYS),
        failed=pd.DataFrame(
            [{**_key(cell), "error": one.error} for cell, one in pairs if one.error is not None],
            columns=[*KEYS, "error"],
        ),
        about=json_copy(asdict(grid), "grid"),
    )


def _key(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in KEYS}


def _row(cell: Cell, outcome: jobs.Outcome) -> dict[str, Any]:
    report = outcome.value["report"]
    of_edges = report["level"] == "edge"
    low, high = report["interval"] or (None, None)
    random_low, random_high = report["random_interval"] or (None, None)
    measured = {
        "faithfulness": report["faithfulness"], "faithfulness_low": low, "faithfulness_high": high,
        "random": report["random_faithfulness"], "random_low": random_low, "random_high": random_high,
        "kl": report["output"][0]["kl"] if report["output"] else None,
        "size": report["edges" if of_edges else "nodes"], "fraction": report["fraction"],
        "n_scoring": report["n_scoring"], "n_held_out": report["n_held_out"], "seconds": outcome.seconds,
    }  # fmt: skip
    known = {name: float("nan") if value is None else value for name, value in measured.items()}
    return {**_key(cell), **known, "level": report["level"], "notes": " ".join(report["notes"])}

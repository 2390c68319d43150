"""Columns that `compare_methods` puts beside the areas: a known circuit, exact patching, and what scoring took."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from torch import Tensor

import metrics
from circuits.approximation import patched_sample
from circuits.candidates import Scored, noise
from circuits.ladders import Controls
from interp.interval import Interval
from metrics.circuit.elements import Elements, Mask


def known(rows: list[Scored], truth: Mask | None, controls: Controls, elements: Elements) -> pd.DataFrame:
    """How well each row's absolute scores tell a known circuit's edges (nodes) from others; NaN without one."""
    cells = []
    for row in rows:
        label = row.candidate.label
        values = [row.values]
        if label == "random":
            values = [noise(elements.full, controls.seed + i) for i in range(controls.n_random)]
        elif label.startswith("inverted "):
            values = [row.values.abs().max() - row.values.abs()]
        areas = {"auroc": math.nan, "average_precision": math.nan}
        if truth is not None:
            areas["auroc"] = float(np.mean([_area(metrics.auroc, v, truth, elements) for v in values]))
            areas["average_precision"] = float(
                np.mean([_area(metrics.average_precision, v, truth, elements) for v in values])
            )
        cells.append({"method": label, **areas})
    return pd.DataFrame(cells)


def _area(area: Callable[..., float], values: Tensor, truth: Mask, elements: Elements) -> float:
    if elements.level == "edge":
        return area(values, truth, elements.setting.graph)
    there = elements.places
    level = "head" if elements.level == "node" else elements.level  # a list of which all are counted
    return area(values.flatten()[there], truth.flatten()[there], level=level)


def agreement(elements: Elements, rows: list[Scored], exact: int, interval: Interval) -> pd.DataFrame:
    """Pearson and Spearman with exact patching on a stratified sample, by the prompts that made the scores."""
    values = {row.candidate.label: row.values for row in rows}
    controls = [label for label in values if label == "random" or label.startswith("inverted ")]
    judged = {label: one for label, one in values.items() if label not in controls}
    places, patched = patched_sample(elements, judged, exact, interval.seed)
    table = metrics.agreement(
        patched,
        {label: v.flatten()[places] for label, v in values.items() if not label.startswith("inverted ")},
        top=(), drop=(0,), confidence=interval.confidence, seed=interval.seed,
    )  # fmt: skip
    names = [f"{name}{end}" for name in ("pearson", "spearman") for end in ("", "_low", "_high")]
    return table.to_frame()[["method", *names]]


def costs(rows: list[Scored]) -> pd.DataFrame:
    """Passes per prompt, seconds and memory of scoring."""
    return pd.DataFrame(
        {
            "method": row.candidate.label,
            "forwards": row.passes.forward,
            "backwards": row.passes.backward,
            "seconds": row.cost.seconds,
            "peak_memory_mb": row.cost.memory / 1e6,
            "memory_kind": row.cost.memory_kind,
        }
        for row in rows
    )

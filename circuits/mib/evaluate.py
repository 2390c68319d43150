"""CPR, CMD and AUROC of what a submission to MIB holds, as MIB computes them, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

import metrics
from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.mib.folder import Entry
from circuits.mib.names import SIZES
from interp import numbers
from interp.errors import InputError
from interp.running import door
from interp.tasks.task import Task
from metrics.circuit.comparison import CurveComparison, Ladder, compare_curves
from metrics.circuit.curve import ladder_masks
from metrics.circuit.evaluate import measure

RANKINGS = ("absolute", "signed")


@numbers.checked()
@door
def evaluate(
    model: Any,
    task: Task,
    entry: Entry,
    *,
    truth: Any = None,
    selection: str = "top-n",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """CPR and CMD of one task's and model's importances or circuits: one row, `cpr` and `cmd` with `_low` and `_high`.

    Of importances, circuits are taken by signed score for CPR and by absolute score for CMD, at int(p n) of the n
    edges, and pruned. Nine circuits are taken as they are, with the whole model as the largest.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to judge on. MIB's leaderboard uses prompts of its own that are not public.
        entry: of `read(folder)`.
        truth: the known circuit (a mask or with such a `.mask`), where there is one: adds `auroc` over MIB's ladder.
        selection: `top-n` or `greedy`.
        confidence, resamples, seed: of the bootstrap over prompts.
        **settings: `ablation`, `objective`, `batch_size`, `memory`, `quiet`, as in `metrics.evaluate`.

    Raises:
        InputError: an entry that could not be read, scores of nodes, a graph that is not the model's.
    """
    bootstrap: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    row: dict[str, Any] = {"entry": entry.name, "holds": entry.kind, "n": len(task)}
    if entry.scores is not None:
        found = evaluate_scores(model, task, entry.scores, selection, bootstrap, **settings)
        sources = {"cpr": "cpr_signed", "cmd": "cmd"}
    elif entry.circuits:
        found = evaluate_circuits(model, task, entry.circuits, bootstrap, **settings)
        sources = {"cpr": "cpr", "cmd": "cmd"}
    else:
        raise InputError(f"{entry.name} cannot be evaluated: {' '.join(entry.problems)}")
    for area, source in sources.items():
        row |= {f"{area}{end}": found.rows.at[0, f"{source}{end}"] for end in ("", "_low", "_high")}
    if truth is not None:
        if entry.scores is None:
            raise InputError(f"{entry.name} holds circuits; AUROC needs importances, to rank the edges by")
        row["auroc"] = metrics.auroc(entry.scores, truth, mib=True)
    return pd.DataFrame([row])


def evaluate_scores(
    model: Any, task: Task, scores: Scores, selection: str, bootstrap: dict[str, Any], **settings: Any
) -> CurveComparison:
    """The curves of importances under both of MIB's selections."""
    if scores.level != "edge":
        raise InputError("importances of nodes cannot be evaluated here: circuits are of edges; write scores of edges")
    both = {name: ladder_masks(scores.values, scores.graph, selection, name == "absolute") for name in RANKINGS}
    return _compared(model, task, both, bootstrap, **settings)


def evaluate_circuits(
    model: Any, task: Task, circuits: Sequence[Circuit], bootstrap: dict[str, Any], **settings: Any
) -> CurveComparison:
    """The curve of nine circuits from small to large, and the whole model."""
    if len(circuits) != len(SIZES):
        raise InputError(f"circuits holds {len(circuits)}; MIB measures {len(SIZES)}, from .1 % to 50 % of the edges")
    masks = [circuit.mask for circuit in circuits]
    return _compared(model, task, {"absolute": [*masks, circuits[0].graph.edge_mask]}, bootstrap, **settings)


def _compared(
    model: Any,
    task: Task,
    masks: dict[str, list[Bool[Tensor, "source target"]]],
    bootstrap: dict[str, Any],
    **settings: Any,
) -> CurveComparison:
    values = measure(model, task, torch.stack([mask for one in masks.values() for mask in one]), **settings)
    found = values.circuits.double().numpy().reshape(len(masks), -1, len(task))
    ladders = [
        Ladder("submission", ranking, tuple(int(mask.sum()) for mask in one), objective)
        for (ranking, one), objective in zip(masks.items(), found, strict=True)
    ]
    clean, empty = (np.asarray(one.double()) for one in (values.clean, values.empty))
    return compare_curves(clean, empty, ladders, **bootstrap)

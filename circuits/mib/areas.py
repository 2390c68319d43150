"""CPR, CMD and AUROC of what a submission to MIB holds, as MIB computes them, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch

import metrics
from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.formats.mib_folder import Entry
from circuits.formats.mib_names import SIZES
from interp import numbers
from interp.errors import InputError
from interp.interval import Interval
from interp.keywords import check_keywords
from interp.running import door
from interp.selection import LADDER_FRACTIONS, SELECTIONS
from interp.selection.named import Mask
from interp.selection.top import among_nodes
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.comparison import CurveComparison, Ladder, compare_curves
from metrics.circuit.curve import ladder_masks
from metrics.circuit.evaluate import JudgeKeywords


@numbers.checked()
@door
def evaluate(
    model: Any,
    task: Task,
    entry: Entry,
    *,
    truth: Any = None,
    selection: str = "top-n",
    **keywords: Unpack[JudgeKeywords],
) -> pd.DataFrame:
    """CPR and CMD of one task's and model's importances or circuits: one row, `cpr` and `cmd` with `_low` and `_high`.

    Of importances, circuits are taken by signed score for CPR and by absolute score for CMD, at int(p n) of the n
    edges, and pruned. Of importances of nodes, n counts the input with the heads and MLPs, which is ranked like them:
    a circuit without it is empty. Nine circuits are taken as they are, with the whole model as the largest.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to judge on. MIB's leaderboard uses prompts of its own that are not public.
        entry: of `read(folder)`.
        truth: the known circuit (a mask or with such a `.mask`), where there is one: adds `auroc` over MIB's ladder.
        selection: the name of one that takes `absolute`: `top-n` or `greedy`; of nodes it is `top-n`.
        ablation, objective: None: `patch` as in MIB and the task's own, whatever the entry was found under.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        confidence, resamples, seed: of the bootstrap over prompts.

    Raises:
        InputError: an entry that could not be read, scores of neither edges nor nodes, a graph that is not the model's.
    """
    check_keywords("evaluate", keywords, JudgeKeywords)
    row: dict[str, Any] = {"entry": entry.name, "holds": entry.kind, "n": len(task)}
    if entry.scores is None and not entry.circuits:
        raise InputError(f"{entry.name} cannot be evaluated: {' '.join(entry.problems)}")
    setting, interval = Setting.of(model, task, keywords), Interval.of(keywords)
    if entry.scores is not None:
        found, signed = _of_scores(setting, entry.scores, selection, interval), "cpr_signed"
    else:
        found, signed = _of_circuits(setting, entry.circuits, interval), "cpr"
    for area, source in {"cpr": signed, "cmd": "cmd"}.items():
        row |= {f"{area}{end}": found.rows.at[0, f"{source}{end}"] for end in ("", "_low", "_high")}
    if truth is not None:
        if entry.scores is None:
            raise InputError(f"{entry.name} holds circuits; AUROC needs importances, to rank the edges by")
        if entry.scores.level != "edge":
            raise InputError(f"{entry.name} holds importances of nodes; MIB's AUROC ranks edges: leave out truth")
        row["auroc"] = metrics.auroc(entry.scores, truth, mib=True)
    return pd.DataFrame([row])


def _of_scores(setting: Setting, scores: Scores, selection: str, interval: Interval) -> CurveComparison:
    """The curves of importances under both of MIB's selections."""
    if scores.level not in ("edge", "node") or scores.spans is not None:
        raise InputError(f"importances of {scores.level}s cannot be evaluated here; write scores of edges or of nodes")
    if scores.graph != setting.graph:
        raise InputError(f"the entry's graph does not fit model: {scores.graph}, {setting.graph}")
    if scores.level == "node" and selection != "top-n":
        raise InputError(f"selection={selection!r} selects edges; importances of nodes are selected by 'top-n'")
    both = {}
    for ranking, absolute in (("absolute", True), ("signed", False)):
        chosen = SELECTIONS.make(selection, {"absolute": absolute})
        of_nodes = scores.level == "node"
        both[ranking] = _of_nodes(scores, absolute) if of_nodes else ladder_masks(setting, scores.values, chosen)
    return _compared(setting, both, interval)


def _of_nodes(scores: Scores, absolute: bool) -> list[Mask]:
    """The circuits of int(p n) of all n sources, the input among them, at each size."""
    graph, n = scores.graph, len(scores.values)
    order = (scores.values.abs() if absolute else scores.values).sort(descending=True, stable=True).indices
    masks = []
    for size in (int(fraction * n) for fraction in LADDER_FRACTIONS):
        alive = torch.zeros(n, dtype=torch.bool, device="cpu")
        alive[order[:size]] = True
        masks.append(among_nodes(alive, graph))
    return masks


def _of_circuits(setting: Setting, circuits: Sequence[Circuit], interval: Interval) -> CurveComparison:
    """The curve of nine circuits from small to large, and the whole model."""
    if len(circuits) != len(SIZES):
        raise InputError(f"circuits holds {len(circuits)}; MIB measures {len(SIZES)}, from .1 % to 50 % of the edges")
    masks = [circuit.mask for circuit in circuits]
    return _compared(setting, {"absolute": [*masks, circuits[0].graph.edge_mask]}, interval)


def _compared(setting: Setting, masks: dict[str, list[Mask]], interval: Interval) -> CurveComparison:
    values = setting.measure(torch.stack([mask for one in masks.values() for mask in one]))
    found = values.circuits.double().numpy().reshape(len(masks), -1, len(setting))
    ladders = [
        Ladder("submission", ranking, tuple(int(mask.sum()) for mask in one), objective)
        for (ranking, one), objective in zip(masks.items(), found, strict=True)
    ]
    clean, empty = (np.asarray(one.double()) for one in (values.clean, values.empty))
    return compare_curves(clean, empty, ladders, interval)

"""`compare_methods`: methods against methods, scored on the same prompts and judged on the same others."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

import metrics
from attribution.engines import attribute
from attribution.methods import METHODS
from circuits.approximation import stratified_edges
from circuits.candidates import Candidate, Given, Scored, candidates, noise, score
from circuits.comparison import MethodComparison
from circuits.cost import Cost
from interp import numbers
from interp.errors import InputError, choose
from interp.graph import KV, ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.ablation import KNOWN
from interp.kernels.evaluate import CircuitValues
from interp.objectives import Objective
from interp.progress import track
from interp.running import door
from interp.selection import ladder
from interp.selection.rules import RULES
from interp.tasks.task import Task
from metrics.circuit.comparison import Ladder, compare_curves
from metrics.circuit.curve import ladder_masks
from metrics.circuit.evaluate import measure
from metrics.circuit.samples import REFERENCES, random_circuit
from metrics.testing import CORRECTIONS

logger = logging.getLogger(__name__)

DEFAULT_METHODS = ("eap", "eap-ig", "relp")
RANKINGS = {"absolute": True, "signed": False}
FEW = 16  # prompts, below which an interval is rough


@numbers.checked(exact=numbers.Limits(3), scoring_share=numbers.BETWEEN)
@door
def compare_methods(
    model: Any,
    task: Task,
    methods: Sequence[Given] | Mapping[str, Given] = DEFAULT_METHODS,
    *,
    truth: Any = None,
    exact: int | None = None,
    random: int = 3,
    reference: str = "paths",
    inverted: bool = False,
    selection: str = "top-n",
    kv: KV = "head",
    scoring_share: float = 0.5,
    ablation: str = "patch",
    objective: str | Objective | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    correction: str = "holm",
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> MethodComparison:
    """Rank methods by the faithfulness of the circuits that they choose, on prompts that none of them has seen.

    The prompts are split as `find_circuit` splits them. Every method scores all edges on one part; its circuits at the
    sizes of the MIB ladder are run on the other part, all in one go. CPR is the area under faithfulness over the share
    of edges, CMD that under its distance from 1 (Mueller et al. 2025, arXiv:2504.13151).

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts, better 64 or more.
        methods: edge methods by name; or by names of your own, what `attribute` is to be told, ready `Scores` or a
            tensor `[source, target]`: `{"eap-ig, 20 steps": {"method": "eap-ig", "steps": 20}, "mine": scores}`. Keep
            the prompts of ready scores apart from the judging ones, `task.split(scoring_share, seed)[1]`. A setting
            `selection` is for that method alone.
        truth: a known circuit (bool `[source, target]` or with such a `.mask`): adds `auroc`, `average_precision`.
        exact: how many edges to patch really, to see how well scores agree with it (`circuits.agreement` says how they
            are sampled): adds `pearson` and `spearman` with intervals. Costs half a forward pass an edge and prompt.
        random: so many draws of random circuits of the same sizes make the row `random`: the mean of their objectives,
            prompt by prompt. 0 leaves it out.
        reference: how they are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        inverted: add the row `inverted NAME` for the first method: its smallest |scores| first, its most negative
            signed scores first. A ranking that says anything is far better than its inversion.
        selection: a rule of `interp.selection.rules`, such as `top-n` or `greedy`.
        kv: key and value targets per query `head` or per key-value `group`.
        scoring_share: share of the prompts that the methods see.
        ablation: what edges outside of circuits give, when scored and when judged.
        objective: overrides the task's own.
        confidence, resamples: of the bootstrap over judging prompts, drawn for all methods together.
        correction: of the pairs' p-values: `holm`, `bh` or `none`.
        seed: of split, bootstrap and controls.
        batch_size, memory, quiet: as for `attribute`.

    Returns:
        `MethodComparison`, a data frame with one row a method, best CMD first, and `.pairs`, `.points`, `.curves()`,
        `.pareto()`, `.to_html(path)`. The columns are explained there.

    Raises:
        InputError: unknown names and settings, methods that score nodes or that the ablation or objective does not
            suit, two methods of one name, fewer than 4 prompts.
    """
    choose("selection", selection, RULES)
    choose("correction", correction, CORRECTIONS)
    choose("reference", reference, REFERENCES)
    choose("ablation", ablation, KNOWN)
    chosen = candidates(methods, ablation, selection, tuple(RULES))
    _check(task)
    graph = ComputationalGraph.of(model, kv)  # checks the model, before the clock runs
    if truth is not None:
        truth = graph.check_mask(getattr(truth, "mask", truth), "truth")
    scoring, judging = task.split(scoring_share, seed)
    shared: dict[str, Any] = {
        "ablation": ablation, "objective": objective, "batch_size": batch_size, "memory": memory, "quiet": quiet,
    }  # fmt: skip
    _warm_up(model, scoring, chosen, kv, shared)
    scored = [score(model, scoring, one, kv, shared) for one in track(chosen, "scoring methods", quiet=quiet)]
    rows = [*scored, *_controls(scored, graph, random, inverted, selection, seed)]
    values, ladders = _judge(model, judging, rows, random, reference, seed, shared)
    compared = compare_curves(
        values.clean.double().numpy(), values.empty.double().numpy(), ladders,
        confidence=confidence, resamples=resamples, correction=correction, seed=seed,
    )  # fmt: skip
    frame = compared.rows.merge(_known(rows, truth, random, seed), on="method")
    if exact is not None:
        frame = frame.merge(_agreement(model, scoring, rows, exact, confidence, seed, shared), on="method", how="left")
    frame = frame.merge(_costs(rows), on="method").sort_values("cmd", kind="stable", ignore_index=True)
    frame.insert(1, "rank", range(1, len(frame) + 1))
    return MethodComparison.of(
        frame,
        pairs=compared.pairs,
        points=compared.points,
        about={
            "model": anatomy_of(model).name,
            "task": task.to_dict(),
            "n_scoring": len(scoring),
            "n_judging": len(judging),
            "edges": graph.n_edges,
            "ablation": ablation,
            "selection": selection,
            "seed": seed,
            "random": random,
            "reference": reference,
            "exact": exact,
            "confidence": confidence,
            "resamples": resamples,
            "correction": correction,
            "notes": _notes(values, chosen, judging, task),
        },
    )


def _check(task: Task) -> None:
    """Refuse before the work starts what could not be used when it is done."""
    if len(task) < 4:
        raise InputError(f"task={task.name!r} has {len(task)} prompts; compare_methods needs at least 4, to split them")


def _warm_up(model: Any, scoring: Task, chosen: list[Candidate], kv: KV, shared: dict[str, Any]) -> None:
    """Score one prompt by the first gradient method: what is loaded and tokenised once is nobody's cost."""
    scoring.prompts(model)
    first = next((one for one in chosen if one.settings and METHODS[one.settings["method"]].path is not None), None)
    if first is not None:
        score(model, scoring.select([0]), first, kv, {**shared, "quiet": True})


def _controls(
    scored: list[Scored], graph: ComputationalGraph, random: int, inverted: bool, selection: str, seed: int
) -> list[Scored]:
    """Rows that no method should look like: random scores, and the first method's turned upside down."""
    rows = []
    if inverted:
        first = scored[0]
        turned = Candidate(f"inverted {first.candidate.label}", {}, first.candidate.selection)
        rows.append(Scored(turned, first.values, graph, math.nan, math.nan, Cost()))
    if random:
        rows.append(Scored(Candidate("random", {}, selection), noise(graph, seed), graph, 0.0, 0.0, Cost(0.0)))
    return rows


def _masks(row: Scored, absolute: bool) -> list[Bool[Tensor, "source target"]]:
    """A row's circuits on the ladder."""
    values = row.values
    if row.candidate.label.startswith("inverted "):
        # above zero, so that absolute and signed selection alike take the smallest first
        values = (values.abs().max() + 1 - values.abs() if absolute else -values) * row.graph.edge_mask
    return ladder_masks(values, row.graph, row.candidate.selection, absolute)


def _judge(
    model: Any, judging: Task, rows: list[Scored], random: int, reference: str, seed: int, shared: dict[str, Any]
) -> tuple[CircuitValues, list[Ladder]]:
    """Run every circuit of every row once; equal circuits of several methods are one."""
    stack: list[Bool[Tensor, "source target"]] = []
    place: dict[bytes, int] = {}

    def put(mask: Bool[Tensor, "source target"]) -> int:
        key = np.packbits(mask.numpy()).tobytes()
        if key not in place:
            place[key] = len(stack)
            stack.append(mask)
        return place[key]

    placed: list[tuple[str, str, tuple[int, ...], list[list[int]]]] = []  # name, ranking, edges, draws of each size
    for row in rows:
        label = row.candidate.label
        if label == "random":
            sizes = ladder(row.graph)
            draws = [[put(random_circuit(row.graph, n, seed + i, reference)) for i in range(random)] for n in sizes]
            placed += [(label, ranking, sizes, draws) for ranking in RANKINGS]
            continue
        for ranking, absolute in RANKINGS.items():
            masks = _masks(row, absolute)
            placed.append((label, ranking, tuple(int(m.sum()) for m in masks), [[put(m)] for m in masks]))
    values = measure(model, judging, torch.stack(stack), **shared)
    found = values.circuits.double().numpy()
    ladders = [
        Ladder(label, ranking, edges, np.stack([found[draws].mean(0) for draws in indices]))
        for label, ranking, edges, indices in placed
    ]
    return values, ladders


def _known(rows: list[Scored], truth: Any, random: int, seed: int) -> pd.DataFrame:
    """How well each row's absolute scores tell a known circuit's edges from others; NaN without one."""
    cells = []
    for row in rows:
        label, graph = row.candidate.label, row.graph
        values = [row.values]
        if label == "random":
            values = [noise(graph, seed + i) for i in range(random)]
        elif label.startswith("inverted "):
            values = [row.values.abs().max() - row.values.abs()]
        areas = {"auroc": math.nan, "average_precision": math.nan}
        if truth is not None:
            areas["auroc"] = float(np.mean([metrics.auroc(v, truth, graph) for v in values]))
            areas["average_precision"] = float(np.mean([metrics.average_precision(v, truth, graph) for v in values]))
        cells.append({"method": label, **areas})
    return pd.DataFrame(cells)


def _agreement(
    model: Any, scoring: Task, rows: list[Scored], exact: int, confidence: float, seed: int, shared: dict[str, Any]
) -> pd.DataFrame:
    """Pearson and Spearman with exact patching on a stratified sample of edges, by the prompts that made the scores."""
    values = {row.candidate.label: row.values for row in rows}
    controls = [label for label in values if label == "random" or label.startswith("inverted ")]
    graph = rows[0].graph
    mask = stratified_edges(graph, {k: v for k, v in values.items() if k not in controls}, exact, seed)
    patched = attribute(model, scoring, "exact", edges=mask, kv=graph.kv, **shared).values
    table = metrics.agreement(
        patched[mask], {label: v[mask] for label, v in values.items() if not label.startswith("inverted ")},
        top=(), drop=(0,), confidence=confidence, seed=seed,
    )  # fmt: skip
    names = [f"{name}{end}" for name in ("pearson", "spearman") for end in ("", "_low", "_high")]
    return pd.DataFrame(table)[["method", *names]]


def _costs(rows: list[Scored]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": row.candidate.label,
            "forwards": row.forwards,
            "backwards": row.backwards,
            "seconds": row.cost.seconds,
            "peak_memory_mb": row.cost.memory / 1e6,
            "memory_kind": row.cost.memory_kind,
        }
        for row in rows
    )


def _notes(values: CircuitValues, chosen: list[Candidate], judging: Task, task: Task) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = []
    if float((values.clean - values.empty).mean()) <= 0:
        notes.append(
            "On the judging prompts the model does no better clean than ablated: there is no behaviour to explain, and "
            "no figure of faithfulness means anything. See task.check(model)."
        )
    if len(judging) < FEW:
        notes.append(f"Only {len(judging)} judging prompts: the intervals are rough.")
    seen = {judging.to_dict().get("sha256"), task.to_dict().get("sha256")} - {None}
    notes += [
        f"The scores of {one.label!r} were made on prompts that judge them: their figures are too rosy."
        for one in chosen
        if one.ready is not None and getattr(one.ready, "task", {}).get("sha256") in seen
    ]
    for note in notes:
        logger.warning(note)
    return notes

"""`compare_methods`: methods against methods, scored on the same prompts and judged on the same others."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch

import metrics
from attribution.edges.gradient import GradientMethod
from attribution.edges.method import Passes
from attribution.edges.patched import Exact
from circuits.approximation import stratified_edges
from circuits.candidates import Candidate, Given, Scored, candidates, noise, score
from circuits.comparison import MethodComparison
from circuits.cost import Cost
from interp import numbers
from interp.errors import InputError, choose
from interp.interval import Interval, IntervalKeywords
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.plugins import fields_of
from interp.run import Run, RunKeywords
from interp.running import door
from interp.selection import SELECTIONS, Selection, ladder
from interp.selection.named import Mask
from interp.setting import Setting, SettingKeywords
from interp.tasks.task import Task
from metrics.circuit.comparison import Ladder, compare_curves
from metrics.circuit.curve import ladder_masks
from metrics.circuit.samples import REFERENCES, random_circuit
from metrics.testing import CORRECTIONS

logger = logging.getLogger(__name__)

DEFAULT_METHODS = ("eap", "eap-ig", "relp")
RANKINGS = {"absolute": True, "signed": False}
FEW = 16  # prompts, below which an interval is rough


@dataclass(frozen=True)
class Controls:
    """Rows that no method should look like: random circuits, and the first method's ranking upside down."""

    n_random: int
    reference: str
    inverted: bool
    seed: int

    def rows(self, scored: list[Scored], selection: Selection) -> list[Scored]:
        """The rows; the scores of the first method stand for the inverted one's, which are turned later."""
        rows, graph = [], scored[0].graph
        if self.inverted:
            first = scored[0]
            turned = Candidate(f"inverted {first.candidate.label}", first.candidate.selection)
            rows.append(Scored(turned, first.values, graph, Passes(math.nan, math.nan), Cost()))
        if self.n_random:
            drawn = Candidate("random", selection)
            rows.append(Scored(drawn, noise(graph, self.seed), graph, Passes(0.0, 0.0), Cost(0.0)))
        return rows

    def circuits(self, row: Scored, n: int) -> list[Mask]:
        """Random circuits of `n` edges."""
        return [random_circuit(row.graph, n, self.seed + i, self.reference) for i in range(self.n_random)]


class CompareKeywords(SettingKeywords, RunKeywords, IntervalKeywords, total=False):
    """The keywords of `compare_methods`."""

    reference: str
    correction: str


@numbers.checked(exact=numbers.Limits(3), scoring_share=numbers.BETWEEN, n_random=numbers.FROM_ZERO)
@door
def compare_methods(
    model: Any,
    task: Task,
    methods: Given | Sequence[Given] | Mapping[str, Given] = DEFAULT_METHODS,
    *,
    truth: Any = None,
    exact: int | None = None,
    n_random: int = 3,
    inverted: bool = False,
    selection: str | Selection = "top-n",
    scoring_share: float = 0.5,
    **keywords: Unpack[CompareKeywords],
) -> MethodComparison:
    """Rank methods by the faithfulness of the circuits that they choose, on prompts that none of them has seen.

    The prompts are split as `find_circuit` splits them. Every method scores all edges on one part; its circuits at the
    sizes of the MIB ladder are run on the other part, all in one go. CPR is the area under faithfulness over the share
    of edges, CMD that under its distance from 1 (Mueller et al. 2025, arXiv:2504.13151).

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts, better 64 or more.
        methods: edge methods, by name or as objects (`EAPIG(steps=20)`), ours or your own; or by names of your own,
            methods, their settings, ready `Scores` or a tensor `[source, target]`:
            `{"eap-ig, 20 steps": {"method": "eap-ig", "steps": 20}, "mine": scores}`. Keep the prompts of ready scores
            apart from the judging ones, `task.split(scoring_share, seed)[1]`. A setting `selection` is for that method
            alone.
        truth: a known circuit (bool `[source, target]` or with such a `.mask`): adds `auroc`, `average_precision`.
        exact: how many edges to patch really, to see how well scores agree with it (`circuits.agreement` says how they
            are sampled): adds `pearson` and `spearman` with intervals. Costs half a forward pass an edge and prompt.
        n_random: so many draws of random circuits of the same sizes make the row `random`: the mean of their
            objectives, prompt by prompt. 0 leaves it out.
        reference: how they are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        inverted: add the row `inverted NAME` for the first method: its smallest |scores| first, its most negative
            signed scores first. A ranking that says anything is far better than its inversion.
        selection: how circuits are taken from scores, by name or as an object: `top-n` (MIB's), `greedy`, `connected`,
            `program`, `balanced`, or your own. One that runs circuits (`balanced`) chooses on the scoring prompts.
        scoring_share: share of the prompts that the methods see.
        ablation, objective, kv: of the setting, when edges are scored and when circuits are judged.
        confidence, resamples, seed: of the bootstrap over judging prompts (10,000), drawn for all methods together;
            `seed` also decides the split and the controls.
        correction: of the pairs' p-values: `holm`, `bh` or `none`.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.

    Returns:
        `MethodComparison`: `to_frame()` with one row a method, best CMD first, `.pairs`, `.points`, `.curves()`,
        `.pareto()`, `.to_html(path)`. The columns are explained there.

    Raises:
        InputError: unknown names and settings, methods that score nodes or that the ablation or objective does not
            suit, two methods of one name, fewer than 4 prompts.
    """
    check_keywords("compare_methods", keywords, CompareKeywords)
    correction = choose("correction", keywords.get("correction", "holm"), CORRECTIONS)
    reference = choose("reference", keywords.get("reference", "paths"), REFERENCES)
    rule = SELECTIONS.make(selection)
    chosen = candidates(methods, rule)
    setting, interval = Setting.of(model, task, keywords), Interval.of(keywords, resamples=10_000)
    if len(task) < 4:
        raise InputError(f"task={task.name!r} has {len(task)} prompts; compare_methods needs at least 4, to split them")
    for one in chosen:
        if one.method is not None:
            one.method.check(setting)
    graph = setting.graph
    if truth is not None:
        truth = graph.check_mask(getattr(truth, "mask", truth), "truth")
    scoring, judging = setting.split(scoring_share, interval.seed)
    controls = Controls(n_random, reference, inverted, interval.seed)
    _warm_up(scoring, chosen)
    with Run.of(keywords).progress("scoring methods", len(chosen)) as bar:
        scored = []
        for one in chosen:
            scored.append(score(scoring, one))
            bar.advance(1)
    rows = [*scored, *controls.rows(scored, rule)]
    values, ladders = _judge(scoring, judging, rows, controls)
    clean, empty = values.clean.double().numpy(), values.empty.double().numpy()
    compared = compare_curves(clean, empty, ladders, interval, correction)
    frame = compared.rows.merge(_known(rows, truth, controls), on="method")
    if exact is not None:
        frame = frame.merge(_agreement(scoring, rows, exact, interval), on="method", how="left")
    frame = frame.merge(_costs(rows), on="method").sort_values("cmd", kind="stable", ignore_index=True)
    frame.insert(1, "rank", range(1, len(frame) + 1))
    return MethodComparison(
        frame,
        pairs=compared.pairs,
        points=compared.points,
        about={
            "model": setting.anatomy.name,
            "task": task.to_dict(),
            "n_scoring": len(scoring),
            "n_judging": len(judging),
            "edges": graph.n_edges,
            **{name: setting.conditions.to_dict()[name] for name in ("ablation", "objective", "kv")},
            "selection": rule.name,
            "seed": interval.seed,
            "n_random": n_random,
            "reference": reference,
            "exact": exact,
            "confidence": interval.confidence,
            "resamples": interval.resamples,
            "correction": correction,
            "notes": _notes(values, chosen, judging.task, task),
        },
    )


def _warm_up(scoring: Setting, chosen: list[Candidate]) -> None:
    """Score one prompt by the first gradient method: what is loaded and tokenised once is nobody's cost."""
    assert scoring.prompts is not None
    first = next((one for one in chosen if isinstance(one.method, GradientMethod)), None)
    if first is not None:
        score(scoring.select([0]).under(run=scoring.run.hushed()), first)


def _rankings(selection: Selection) -> dict[str, Selection]:
    """The selection by |score| and by signed score, where it has both; else as it is."""
    if is_dataclass(selection) and "absolute" in fields_of(selection):
        return {name: replace(selection, absolute=absolute) for name, absolute in RANKINGS.items()}
    return {"absolute": selection}


def _masks(scoring: Setting, row: Scored, ranking: str, selection: Selection) -> list[Mask]:
    """A row's circuits on the ladder."""
    values = row.values
    if row.candidate.label.startswith("inverted "):
        # above zero, so that absolute and signed selection alike take the smallest first
        values = (values.abs().max() + 1 - values.abs() if RANKINGS[ranking] else -values) * row.graph.edge_mask
    return ladder_masks(scoring, values, selection)


def _judge(
    scoring: Setting, judging: Setting, rows: list[Scored], controls: Controls
) -> tuple[CircuitValues, list[Ladder]]:
    """Run every circuit of every row once; equal circuits of several methods are one."""
    stack: list[Mask] = []
    placed: list[tuple[str, str, tuple[int, ...], list[slice]]] = []  # name, ranking, edges, draws of each size

    def put(masks: list[Mask]) -> slice:
        stack.extend(masks)
        return slice(len(stack) - len(masks), len(stack))

    for row in rows:
        label, rankings = row.candidate.label, _rankings(row.candidate.selection)
        if label == "random":
            sizes = ladder(row.graph)
            draws = [put(controls.circuits(row, n)) for n in sizes]
            placed += [(label, ranking, sizes, draws) for ranking in rankings]
            continue
        for ranking, selection in rankings.items():
            masks = _masks(scoring, row, ranking, selection)
            placed.append((label, ranking, tuple(int(m.sum()) for m in masks), [put([m]) for m in masks]))
    values = judging.measure(torch.stack(stack))
    found = values.circuits.double().numpy()
    ladders = [
        Ladder(label, ranking, edges, np.stack([found[draws].mean(0) for draws in places]))
        for label, ranking, edges, places in placed
    ]
    return values, ladders


def _known(rows: list[Scored], truth: Any, controls: Controls) -> pd.DataFrame:
    """How well each row's absolute scores tell a known circuit's edges from others; NaN without one."""
    cells = []
    for row in rows:
        label, graph = row.candidate.label, row.graph
        values = [row.values]
        if label == "random":
            values = [noise(graph, controls.seed + i) for i in range(controls.n_random)]
        elif label.startswith("inverted "):
            values = [row.values.abs().max() - row.values.abs()]
        areas = {"auroc": math.nan, "average_precision": math.nan}
        if truth is not None:
            areas["auroc"] = float(np.mean([metrics.auroc(v, truth, graph) for v in values]))
            areas["average_precision"] = float(np.mean([metrics.average_precision(v, truth, graph) for v in values]))
        cells.append({"method": label, **areas})
    return pd.DataFrame(cells)


def _agreement(scoring: Setting, rows: list[Scored], exact: int, interval: Interval) -> pd.DataFrame:
    """Pearson and Spearman with exact patching on a stratified sample of edges, by the prompts that made the scores."""
    values = {row.candidate.label: row.values for row in rows}
    controls = [label for label in values if label == "random" or label.startswith("inverted ")]
    mask = stratified_edges(scoring.graph, {k: v for k, v in values.items() if k not in controls}, exact, interval.seed)
    patched = Exact(edges=mask).scores(scoring).values
    table = metrics.agreement(
        patched[mask], {label: v[mask] for label, v in values.items() if not label.startswith("inverted ")},
        top=(), drop=(0,), confidence=interval.confidence, seed=interval.seed,
    )  # fmt: skip
    names = [f"{name}{end}" for name in ("pearson", "spearman") for end in ("", "_low", "_high")]
    return table.to_frame()[["method", *names]]


def _costs(rows: list[Scored]) -> pd.DataFrame:
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

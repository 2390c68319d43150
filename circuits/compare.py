"""`compare_methods`: methods against methods, scored on the same prompts and judged on the same others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from attribution.edges.gradient import GradientMethod
from circuits import columns
from circuits.against import rivals, rows_of
from circuits.candidates import Candidate, Given, Scored, candidates, masks_of, score
from circuits.comparison import MethodComparison
from circuits.drawn import DrawKeywords, Draws, compared_again, over_draws, refuse_resumed
from circuits.ladders import Controls, Stack, placed
from circuits.levels import Asked, LevelKeywords, check
from interp import numbers
from interp.errors import InputError, choose
from interp.interval import Interval, IntervalKeywords
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.run import RunKeywords
from interp.running import door
from interp.selection import Selection
from interp.setting import Setting, SettingKeywords
from interp.tasks.task import Task
from metrics.circuit.comparison import compare_curves
from metrics.circuit.elements import Elements
from metrics.circuit.samples import REFERENCES
from metrics.testing import CORRECTIONS

logger = logging.getLogger(__name__)

DEFAULT_METHODS = ("eap", "eap-ig", "relp")
FEW = 16  # prompts, below which an interval is rough


class CompareKeywords(DrawKeywords, LevelKeywords, SettingKeywords, RunKeywords, IntervalKeywords, total=False):
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

    The prompts are split as `find_circuit` splits them. Every method scores all edges (nodes) on one part; its circuits
    at the sizes of the MIB ladder are run on the other part, all in one go. CPR is the area under faithfulness over the
    share of edges, CMD that under its distance from 1 (Mueller et al. 2025, arXiv:2504.13151).

    Intervals are over the judging prompts. `draws` and `seeds` add intervals over what scores hang on: other scoring
    prompts, and other seeds of methods that draw.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts, better 64 or more.
        methods: edge methods, by name or as objects (`EAPIG(steps=20)`), ours or your own; or by names of your own,
            methods, their settings, ready `Scores` or a tensor `[source, target]`:
            `{"eap-ig, 20 steps": {"method": "eap-ig", "steps": 20}, "mine": scores}`. Keep the prompts of ready scores
            apart from the judging ones, `task.split(scoring_share, seed)[1]`. A setting `selection` is for that method
            alone. Or circuits that were made elsewhere: a bool mask, anything with a `.mask` (a `Circuit`), a `Path` of
            a saved circuit or of EAP-IG's graph JSON, an entry of MIB (`mib.read(folder)`) or the `Path` of its folder.
            MIB's nine circuits are a row like a method's; a single circuit is compared with those of its size in
            `.circuits`.
        truth: a known circuit (bool `[source, target]` or with such a `.mask`; of nodes as in `metrics.evaluate`): adds
            `auroc`, `average_precision`.
        exact: how many edges to patch really, to see how well scores agree with it (`circuits.agreement` says how they
            are sampled): adds `pearson` and `spearman` with intervals. Costs half a forward pass an edge and prompt, a
            whole one a node.
        n_random: so many draws of random circuits of the same sizes make the row `random`: the mean of their
            objectives, prompt by prompt. 0 leaves it out. Of nodes they are like those of the first method's circuits:
            of the same layers and near in norm.
        reference: how edges are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        inverted: add the row `inverted NAME` for the first method: its smallest |scores| first, its most negative
            signed scores first. A ranking that says anything is far better than its inversion.
        selection: how circuits are taken from scores, by name or as an object: `top-n` (MIB's), `greedy`, `connected`,
            `program`, `balanced`, `learned`, or your own. One that runs circuits (the last two) chooses on the scoring
            prompts.
        scoring_share: share of the prompts that the methods see.
        draws: how many bootstrap draws of the scoring prompts are scored and judged anew, on the same judging prompts:
            adds columns `cmd_drawn` and so on. 1: none. Each costs what the whole costs.
        seeds: with how many seeds, in each draw, methods that draw themselves (learned masks, `acdc`) are run; others
            are run once.
        level, positions, dictionaries, errors: circuits of nodes instead of edges, as in `find_circuit`; methods and
            selections are then those for nodes, and columns count `nodes_85` for `edges_85`.
        ablation, objective, kv: of the setting, when edges are scored and when circuits are judged.
        confidence, resamples, seed: of the bootstrap over judging prompts (10,000), drawn for all methods together;
            `seed` also decides the split and the controls.
        correction: of the pairs' p-values: `holm`, `bh` or `none`.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.

    Returns:
        `MethodComparison`: `to_frame()` with one row a method, best CMD first, `.pairs`, `.points`, `.circuits`,
        `.draws`, `.curves()`, `.pareto()`, `.to_html(path)`. The columns are explained there.

    Raises:
        InputError: unknown names and settings, methods that score nodes or that the ablation or objective does not
            suit, two methods of one name, fewer than 4 prompts, circuits of another model, files that cannot be read.
    """
    check_keywords("compare_methods", keywords, CompareKeywords)
    correction = choose("correction", keywords.get("correction", "holm"), CORRECTIONS)
    asked = Asked.of(keywords, {"reference": keywords.get("reference")})
    if asked.level == "edge" and asked.positions is not None:
        raise InputError(
            "positions is for circuits of nodes here: give level='neuron', 'head', 'node' or 'feature' too; edges by "
            "position are compared by their curves, metrics.faithfulness_curve"
        )
    reference = keywords.get("reference")
    if reference is not None:
        choose("reference", reference, REFERENCES)
    rule, draws = asked.selection(selection), Draws.of(keywords)
    chosen = candidates(methods, rule, asked)
    refuse_resumed(chosen, draws)
    setting, interval = Setting.of(model, task, keywords), Interval.of(keywords, resamples=10_000)
    if len(task) < 4:
        raise InputError(f"task={task.name!r} has {len(task)} prompts; compare_methods needs at least 4, to split them")
    elements = asked.elements(setting)
    for one in chosen:
        if one.method is not None:
            check(elements, one.method)
        masks_of(elements, one)
    known = None if truth is None else elements.read(truth, "truth")
    scoring, judging = setting.split(scoring_share, interval.seed)
    elements = elements.on(scoring)
    controls, counted = Controls(n_random, reference, inverted, interval.seed), f"{elements.noun}s"
    _warm_up(elements, chosen)
    scored = _scored(elements, [one for one in chosen if not one.single])
    rows, stack = [*scored, *controls.rows(scored, rule, elements)], Stack()
    found = placed(stack, elements, rows, controls)
    beside = rivals(stack, elements, [one for one in chosen if one.single], scored, controls)
    ran = stack.run(elements.on(judging))
    compared = compare_curves(*ran.ends, [one.ladder(ran) for one in found], interval, correction, counted)
    frame, pairs = compared.rows.merge(columns.known(rows, known, controls, elements), on="method"), compared.pairs
    again = compared_again(elements, judging, chosen, draws, interval.seed)
    if len(again):
        drawn, drawn_pairs = over_draws(again, interval, correction)
        frame = frame.merge(drawn, on="method", how="left")
        pairs = pairs.merge(drawn_pairs, on=["area", "first", "second"], how="left")
    if exact is not None:
        frame = frame.merge(columns.agreement(elements, rows, exact, interval), on="method", how="left")
    frame = frame.merge(columns.costs(rows), on="method").sort_values("cmd", kind="stable", ignore_index=True)
    frame.insert(1, "rank", range(1, len(frame) + 1))
    return MethodComparison(
        frame,
        pairs=pairs,
        points=compared.points,
        circuits=rows_of(beside, ran, interval, correction, counted),
        draws=again.rename(columns={goal: f"{counted}_{goal}" for goal in ("85", "95")}),
        about={
            "model": setting.anatomy.name,
            "task": task.to_dict(),
            "n_scoring": len(scoring),
            "n_judging": len(judging),
            "level": elements.level,
            counted: len(elements.places),
            **{name: setting.to_dict()[name] for name in ("ablation", "objective", "kv")},
            "selection": rule.name,
            "seed": interval.seed,
            "draws": draws.draws,
            "seeds": draws.seeds,
            "n_random": n_random,
            "reference": reference or elements.null,
            "exact": exact,
            "confidence": interval.confidence,
            "resamples": interval.resamples,
            "correction": correction,
            "notes": _notes(ran.values, chosen, judging.task, task),
        },
    )


def _scored(elements: Elements, chosen: Sequence[Candidate]) -> list[Scored]:
    """What each method scores, and what is there already."""
    found = []
    with elements.setting.run.progress("scoring methods", len(chosen)) as bar:
        for one in chosen:
            found.append(score(elements, one))
            bar.advance(1)
    return found


def _warm_up(elements: Elements, chosen: list[Candidate]) -> None:
    """Score one prompt by the first gradient method: what is loaded and tokenised once is nobody's cost."""
    scoring = elements.setting
    assert scoring.prompts is not None
    first = next((one for one in chosen if isinstance(one.method, GradientMethod)), None)
    if first is not None:
        score(elements.on(scoring.select([0]).under(run=scoring.run.hushed())), first)


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

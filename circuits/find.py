"""`find_circuit`: from a model and a behaviour to a circuit and an honest report of how faithful it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import torch

from attribution.edges.method import Method
from attribution.engines import ScoringKeywords, method_keywords
from circuits.circuit import Circuit
from circuits.find_nodes import DEFAULT_FAITHFULNESS, NodeSearch, find_nodes
from circuits.found import provenance_of
from circuits.judged import judged, with_tests
from circuits.levels import Asked, NodeKeywords
from circuits.resampling import ResampledScores, Stable, resampled_scores, selection_frequency, stable_mask
from interp import numbers
from interp.errors import InputError, choose
from interp.interval import Interval, IntervalKeywords
from interp.keywords import chosen
from interp.run import RunKeywords
from interp.running import door
from interp.selection import Selection, ladder
from interp.selection.named import Mask, Rule, rules_of
from interp.setting import Setting, SettingKeywords
from interp.tasks.task import Task
from metrics.circuit.battery import Reference
from metrics.circuit.curve import AbsoluteKeyword
from metrics.circuit.evaluate import faithfulness_in
from metrics.circuit.samples import REFERENCES, random_circuit


class FindKeywords(
    NodeKeywords, ScoringKeywords, AbsoluteKeyword, SettingKeywords, RunKeywords, IntervalKeywords, total=False
):
    """The keywords of `find_circuit`."""

    reference: str


@numbers.checked(faithfulness=numbers.SHARE, scoring_share=numbers.BETWEEN, n_random=numbers.FROM_ZERO)
@door
def find_circuit(
    model: Any,
    task: Task,
    *,
    method: str | Method = "eap-ig",
    edges: int | float | None = None,
    faithfulness: float | None = None,
    selection: str | Selection = "balanced",
    stable: bool | Stable = False,
    tests: bool = False,
    scoring_share: float = 0.5,
    n_random: int = 3,
    **keywords: Unpack[FindKeywords],
) -> Any:
    """Find the edges (or nodes) of a model that carry a behaviour, and measure how faithful they are alone.

    The prompts are split: scores and size are chosen on one part; the other part is used once, for the reported
    faithfulness, (M(circuit) - M(empty)) / (M(clean) - M(empty)), with its bootstrap interval.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts, better 64 or more.
        method: an edge method of `attribution.methods()`, by name, or as an object with its settings, ours or your own:
            `EAPIG(steps=10)`.
        edges: size of the circuit: a number of edges, or a share of all edges between 0 and 1. `top-n` and `greedy`
            count before pruning, and leave fewer.
        faithfulness: instead of a size: the smallest circuit on the size ladder (.1 % to 100 % of the edges)
            that reaches it on the scoring prompts. 0.85 when neither is given.
        selection: `balanced` (default): connected edges, of which the share that helps is set so that the circuit does
            as well as the model on the scoring prompts (`metrics.circuit.balance`); up to five circuits are measured
            there for each size. Or one that looks at scores alone (`interp.selection`): `top-n` (MIB's), `greedy`,
            `connected`, `program`. Or a `Selection`, ours or your own: `TopN(absolute=False)`.
        stable: keep the edges of a size that survive resampling: those that three quarters of 20 bootstrap resamples
            of the scoring prompts select (balanced by the share that all scoring prompts set), or as
            `Stable(share=0.75, resamples=20)` says. No more passes, but for `mean` ablations (see
            `circuits.stability`). The circuit is smaller than the size asked for; `report.stability` says by how much,
            and how often each of its edges was selected.
        tests: make the hypothesis tests of `metrics.circuit_tests` on the held-out prompts, too: is the circuit
            equivalent, complete (independence), minimal, sufficient, necessary? `report.tests` holds their corrected
            p-values. About 200 more circuits: minutes on a real model.
        scoring_share: share of the prompts that choose the circuit.
        n_random: how many random circuits of the same size to report beside it.
        reference: how they are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        ablation, objective, kv: of the setting: what edges outside the circuit give, what is to be preserved, and key
            and value targets per query `head` or key-value `group`; see `interp.setting.Setting`.
        confidence, resamples, seed: of the intervals over prompts. `seed` also decides the split, the random circuits
            and the resamples of `stable`: the same seed gives the same circuit.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        level: `neuron`, `head`, `node` (heads and MLPs) or `feature` (with `dictionaries`) instead of edges: all edges
            among the nodes of the circuit stay, all other nodes of that level are ablated, and everything else is live.
            Methods are those of `attribution.neurons`, `attribution.features` and `attribute(level="node")`, `mask-ig`
            and `exact`; `selection` is `balanced` or `top-n`. Without `nodes` the circuit is the smallest whose most
            helpful nodes (`top-n`: largest |score|) reach `faithfulness`; random nodes are of the same layers (or
            dictionaries) and similar norms (`metrics.circuit.controls`).
        nodes: size of a circuit of nodes: a number, or a share of all; `balanced` sets the share that helps so that the
            circuit does as well as the model on the scoring prompts.
        positions: of nodes: None (a node is at all positions at once), `all` (each position counts on its own, from the
            first at which any prompt differs), or a list of positions. Prompts must be of one length.
        dictionaries: of level `feature`: a `Dictionary` or several, of different places, whose features are the nodes.
        errors: what becomes of what dictionaries leave of their outputs: `kept` (default), `ablated`, or `nodes` of
            their own, behind the features of each.
        **keywords: of a method that is named, as in `attribution.attribute`: `rules`, `steps`, `quadrature`, `credit`,
            `checkpointed`, `sample`, `resume`; of a selection that is named: `absolute`.

    Returns:
        `Circuit` with `.mask`, `.report`, `.show()`, `.save(path)`, `.to_html(path)` and more; of nodes a `NodeCircuit`
        with `.node_mask`, `.report`, `.to_frame()`, `.save(path)`.

    Raises:
        InputError: both `edges` and `faithfulness`, a method that scores nodes, too few prompts, and whatever
            `attribute` refuses.
    """
    told = method_keywords("find_circuit", method, keywords, FindKeywords)
    asked = Asked.of(keywords, {"edges": edges, "stable": stable, "reference": keywords.get("reference")})
    scorer = asked.method(method, {**chosen(keywords, ScoringKeywords), **told})
    rule = asked.selection(selection, chosen(keywords, AbsoluteKeyword))
    if asked.level != "edge":
        search = NodeSearch(
            asked=asked,
            method=scorer,
            selection=rule,
            nodes=keywords.get("nodes"),
            faithfulness=faithfulness,
            scoring_share=scoring_share,
            n_random=n_random,
            tests=tests,
        )
        return find_nodes(_splittable(Setting.of(model, task, keywords)), search, Interval.of(keywords))
    resampling = _resampling(stable, keywords)
    reference = choose("reference", keywords.get("reference", "paths"), REFERENCES)
    if edges is not None and faithfulness is not None:
        raise InputError(f"edges={edges} and faithfulness={faithfulness} are two ways to choose a size: give one")
    setting, interval = _splittable(Setting.of(model, task, keywords)), Interval.of(keywords)
    graph, elements = setting.graph, asked.elements(setting)
    sizes = ladder(graph) if edges is None else (elements.size("edges", edges),)
    scoring, held_out = setting.split(scoring_share, interval.seed)

    drawn = None
    if resampling is not None:
        drawn = resampled_scores(elements.on(scoring), scorer, resamples=resampling.resamples, seed=interval.seed)
    scores = scorer.scores(scoring) if drawn is None else drawn.scores
    rules = rules_of(rule, scoring, scores.values, sizes)
    if drawn is None or resampling is None:
        masks = [one(scores.values) for one in rules]
    else:
        masks = [stable_mask(drawn, one, resampling.share) for one in rules]
    best, rungs = 0, list[dict[str, Any]]()
    if edges is None:
        faithfulness = DEFAULT_FAITHFULNESS if faithfulness is None else faithfulness
        best, rungs = _of_faithfulness(scoring, sizes, masks, faithfulness, interval)

    mask = masks[best]
    others = [random_circuit(graph, int(mask.sum()), interval.seed + i, reference) for i in range(n_random)]
    report = replace(judged(held_out, mask, others, interval), n_scoring=len(scoring), ladder=rungs,
        nodes=Circuit(scores, mask).n_nodes)  # fmt: skip
    if drawn is not None and resampling is not None:
        report = replace(report, stability=_stability(drawn, rules[best], mask, sizes[best], resampling.share))
    if tests:
        report = with_tests(report, held_out, mask, Reference(reference), interval.seed)
    name = selection if isinstance(selection, str) else rule.name
    provenance = {
        **provenance_of(setting, scores, rule, name, scoring_share, interval.seed),
        "stable_share": None if resampling is None else resampling.share,
        "edges_asked": edges,
        "faithfulness_asked": faithfulness,
        "reference": reference,
    }
    return Circuit(scores, mask, report, provenance)


def _splittable(setting: Setting) -> Setting:
    if len(setting) < 4:
        raise InputError(
            f"task={setting.task.name!r} has {len(setting)} prompts; find_circuit needs at least 4, to split them"
        )
    return setting


def _resampling(stable: bool | Stable, keywords: Mapping[str, Any]) -> Stable | None:
    """How edges are chosen by resamples, if they are."""
    if isinstance(stable, Stable):
        return stable
    if not stable:
        return None
    if "resamples" in keywords:
        raise InputError(
            f"resamples={keywords['resamples']} are the bootstrap draws of intervals now; those that a stable circuit "
            "is chosen by belong to stable: stable=Stable(resamples=20), from circuits"
        )
    return Stable()


def _of_faithfulness(
    scoring: Setting, sizes: Sequence[int], masks: list[Mask], goal: float, interval: Interval
) -> tuple[int, list[dict[str, Any]]]:
    """Which is the smallest circuit that reaches the goal on the scoring prompts; what each reached."""
    reached = faithfulness_in(scoring.measure(torch.stack(masks)), interval)
    rungs = [
        {"size": size, "edges": int(mask.sum()), "faithfulness": estimate.value}
        for size, mask, estimate in zip(sizes, masks, reached, strict=True)
    ]
    # the full circuit is the model itself: the last rung always reaches the goal, unless there is no behaviour
    best = next((i for i, estimate in enumerate(reached) if estimate.value >= goal), len(masks) - 1)
    return best, rungs


def _stability(drawn: ResampledScores, select: Rule, mask: Mask, size: int, share: float) -> dict[str, Any]:
    """How often each edge of a stable circuit was selected, and how many edges were not often enough."""
    graph, frequency = drawn.scores.graph, selection_frequency(drawn, select)
    edges = mask.nonzero().tolist()
    return {
        "share": share,
        "resamples": len(drawn),
        "edges_of_size": size,
        "edges_kept": len(edges),
        "frequency": {graph.edge_name(*edge): round(float(frequency[*edge]), 6) for edge in edges},
    }

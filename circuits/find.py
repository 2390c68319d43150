"""`find_circuit`: from a model and a behaviour to a circuit and an honest report of how faithful it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from attribution.engines import attribute
from attribution.methods import METHODS
from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.report import Report
from circuits.resampling import ResampledScores, Select, resampled_scores, selection_frequency, stable_mask
from interp import numbers
from interp.errors import InputError, choose
from interp.graph import KV, ComputationalGraph
from interp.objectives import Objective
from interp.running import door
from interp.selection import RULES, ladder
from interp.tasks.task import Task
from metrics.circuit.balance import balanced, circuit_at
from metrics.circuit.battery import circuit_tests
from metrics.circuit.evaluate import faithfulness as estimate_faithfulness
from metrics.circuit.evaluate import measure, measure_all
from metrics.circuit.output import OUTPUT_OBJECTIVES, OutputAgreement
from metrics.circuit.samples import REFERENCES, random_circuit

logger = logging.getLogger(__name__)

DEFAULT_FAITHFULNESS = 0.85
SELECTIONS = ("balanced", *RULES)
CHUNKS = 16  # of the scoring prompts, that resamples draw from
SETTINGS = ("rules", "steps", "quadrature", "credit", "checkpointed", "sample", "resume")  # of `attribute`, passed on


@numbers.checked(
    faithfulness=numbers.SHARE, stable_share=numbers.SHARE, resamples=numbers.Limits(2),
    scoring_share=numbers.BETWEEN, random_circuits=numbers.FROM_ZERO,
)  # fmt: skip
@door
def find_circuit(
    model: Any,
    task: Task,
    *,
    method: str = "eap-ig",
    edges: int | float | None = None,
    faithfulness: float | None = None,
    ablation: str = "patch",
    objective: str | Objective | None = None,
    selection: str = "balanced",
    absolute: bool = True,
    kv: KV = "head",
    stable: bool = False,
    stable_share: float = 0.75,
    resamples: int = 20,
    tests: bool = False,
    scoring_share: float = 0.5,
    random_circuits: int = 3,
    reference: str = "paths",
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Circuit:
    """Find the edges of a model that carry a behaviour, and measure how faithful they are alone.

    The prompts are split: scores and size are chosen on one part; the other part is used once, for the reported
    faithfulness, (M(circuit) - M(empty)) / (M(clean) - M(empty)), with its bootstrap interval.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts, better 64 or more.
        method: an edge method of `attribution.methods()`.
        edges: size of the circuit: a number of edges, or a share of all edges between 0 and 1. `top-n` and `greedy`
            count before pruning, and leave fewer.
        faithfulness: instead of a size: the smallest circuit on the size ladder (.1 % to 100 % of the edges)
            that reaches it on the scoring prompts. 0.85 when neither is given.
        ablation: what edges outside the circuit give: `patch`, `zero`, `mean`, `mean-positional`.
        objective: overrides the task's own.
        selection: `balanced` (default): connected edges, of which the share that helps is set so that the circuit does
            as well as the model on the scoring prompts (`metrics.circuit.balance`); up to five more circuits are
            measured there for each size. Or a rule that looks at scores alone (`interp.selection`): `top-n` (MIB's),
            `greedy`, `connected`, `program`.
        absolute: for rules: rank edges by |score| (default) or by signed score.
        kv: key and value targets per query `head` or per key-value `group`.
        stable: keep the edges of a size that survive resampling: those that at least a share `stable_share` of
            `resamples` bootstrap resamples of the scoring prompts select (balanced by the share that all scoring
            prompts set). No more passes, but for `mean` ablations (see
            `circuits.stability`). The circuit is smaller than the size asked for; `report.stability` says by how much,
            and how often each of its edges was selected.
        stable_share, resamples: of `stable`.
        tests: make the hypothesis tests of `metrics.circuit_tests` on the held-out prompts, too: is the circuit
            equivalent, complete (independence), minimal, sufficient, necessary? `report.tests` holds their corrected
            p-values. About 200 more circuits: minutes on a real model.
        scoring_share: share of the prompts that choose the circuit.
        random_circuits: how many random circuits of the same size to report beside it.
        reference: how they are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        confidence: of the interval.
        seed: of the split, the bootstrap and the random circuits: the same seed gives the same circuit.
        batch_size, memory, quiet: as in `attribution.attribute`.
        **settings: of the method, as in `attribution.attribute`: `rules`, `steps`, `quadrature`, `credit`,
            `checkpointed`, `sample`, `resume`.

    Returns:
        `Circuit` with `.mask`, `.report`, `.show()`, `.save(path)`, `.to_html(path)` and more.

    Raises:
        InputError: both `edges` and `faithfulness`, a method that scores nodes, too few prompts, and whatever
            `attribute` refuses.
    """
    _check(method, edges, faithfulness, selection, absolute)
    choose("reference", reference, REFERENCES)
    for name in settings:
        choose("setting", name, SETTINGS)
    if len(task) < 4:
        raise InputError(f"task={task.name!r} has {len(task)} prompts; find_circuit needs at least 4, to split them")
    if isinstance(edges, int) and edges > (n_edges := ComputationalGraph.of(model, kv).n_edges):
        raise InputError(f"edges={edges} is out of range: the graph has {n_edges:,} edges")
    scoring, held_out = task.split(scoring_share, seed)
    shared: dict[str, Any] = {
        "ablation": ablation, "objective": objective, "batch_size": batch_size, "memory": memory, "quiet": quiet,
    }  # fmt: skip
    drawn = None
    if stable:
        drawn = resampled_scores(
            model, scoring, method, resamples=resamples, chunks=CHUNKS, seed=seed, kv=kv, **shared, **settings
        )
        scores = drawn.scores
    else:
        scores = attribute(model, scoring, method, kv=kv, **shared, **settings)

    sizes = ladder(scores.graph) if edges is None else (_size(edges, scores.graph),)
    rules = _rules(model, scoring, scores, sizes, selection, absolute, shared)
    masks = [rule(scores.values) if drawn is None else stable_mask(drawn, rule, stable_share) for rule in rules]
    rungs: list[dict[str, Any]] = []
    best = 0
    if edges is None:
        goal = DEFAULT_FAITHFULNESS if faithfulness is None else faithfulness
        best, rungs = _of_faithfulness(model, scoring, sizes, masks, goal, shared, seed, confidence)
    mask = masks[best]
    beside = [random_circuit(scores.graph, int(mask.sum()), seed + i, reference) for i in range(random_circuits)]
    report = _report(model, scoring, held_out, scores, mask, rungs, shared, beside, confidence, seed)
    if drawn is not None:
        report = replace(report, stability=_stability(drawn, rules[best], mask, sizes[best], stable_share))
    if tests:
        made = circuit_tests(model, held_out, mask, reference=reference, seed=seed, **shared)
        report = replace(report, tests=made.to_dict()["tests"], notes=[*report.notes, *made.notes])
    provenance = {
        "task": task.to_dict(),
        "seed": seed,
        "scoring_share": scoring_share,
        "selection": selection,
        "absolute": absolute,
        "stable_share": stable_share if stable else None,
        "edges_asked": edges,
        "faithfulness_asked": DEFAULT_FAITHFULNESS if edges is None and faithfulness is None else faithfulness,
        "reference": reference,
        "settings": scores.settings,
        "d_model": int(model.cfg.d_model),
    }
    return Circuit(scores, mask, report, provenance)


def _check(
    method: str,
    edges: int | float | None,
    faithfulness: float | None,
    selection: str,
    absolute: bool,
) -> None:
    """Refuse before the work starts what could not be used when it is done."""
    if METHODS[choose("method", method, METHODS)].level != "edge":
        raise InputError(f"method={method!r} scores nodes; a circuit needs an edge method such as 'eap-ig'")
    if choose("selection", selection, SELECTIONS) == "balanced" and not absolute:
        raise InputError(
            "absolute=False ranks by signed score, but selection='balanced' (the default) weighs the signs itself; "
            "use selection='top-n' or 'connected'"
        )
    if edges is not None and faithfulness is not None:
        raise InputError(f"edges={edges} and faithfulness={faithfulness} are two ways to choose a size: give one")


def _size(edges: int | float, graph: ComputationalGraph) -> int:
    return max(1, int(edges * graph.n_edges)) if isinstance(edges, float) else edges


def _rules(
    model: Any,
    task: Task,
    scores: Scores,
    sizes: Sequence[int],
    selection: str,
    absolute: bool,
    shared: dict[str, Any],
) -> list[Select]:
    """For each size what takes a circuit from scores; balanced ones have been measured on these scores."""
    graph = scores.graph
    if selection == "balanced":
        found = balanced(model, task, scores.values, graph, sizes, **shared)
        return [partial(circuit_at, one.helping, graph, n) for one, n in zip(found, sizes, strict=True)]
    return [partial(RULES[selection], graph=graph, n=n, absolute=absolute) for n in sizes]


def _of_faithfulness(
    model: Any,
    task: Task,
    sizes: Sequence[int],
    masks: list[Bool[Tensor, "source target"]],
    goal: float,
    shared: dict[str, Any],
    seed: int,
    confidence: float,
) -> tuple[int, list[dict[str, Any]]]:
    """Which is the smallest circuit that reaches the goal on the scoring prompts; what each reached."""
    values = measure(model, task, torch.stack(masks), **shared)
    reached = estimate_faithfulness(values, confidence=confidence, seed=seed)
    rungs = [
        {"size": size, "edges": int(mask.sum()), "faithfulness": estimate.value}
        for size, mask, estimate in zip(sizes, masks, reached, strict=True)
    ]
    # the full circuit is the model itself: the last rung always reaches the goal, unless there is no behaviour
    best = next((i for i, estimate in enumerate(reached) if estimate.value >= goal), len(masks) - 1)
    return best, rungs


def _report(
    model: Any,
    scoring: Task,
    held_out: Task,
    scores: Scores,
    mask: Bool[Tensor, "source target"],
    rungs: list[dict[str, Any]],
    shared: dict[str, Any],
    others: list[Bool[Tensor, "source target"]],
    confidence: float,
    seed: int,
) -> Report:
    """Measure the circuit, and random ones of its size, on prompts that nothing was chosen on."""
    graph, n_edges = scores.graph, int(mask.sum())
    objectives = (shared["objective"], *OUTPUT_OBJECTIVES)
    rest = {name: value for name, value in shared.items() if name != "objective"}
    values, *output = measure_all(model, held_out, torch.stack([mask, *others]), objectives=objectives, **rest)
    estimate, *random = estimate_faithfulness(values, confidence=confidence, seed=seed)
    # the mean circuit's faithfulness is the mean of theirs: the ratio is linear in M(circuit)
    mean_random = None
    if random:
        pooled = type(values)(values.clean, values.empty, values.circuits[1:].mean(0, keepdim=True))
        (mean_random,) = estimate_faithfulness(pooled, confidence=confidence, seed=seed)
    return Report(
        faithfulness=estimate.value,
        interval=(estimate.low, estimate.high),
        n_scoring=len(scoring),
        n_held_out=len(held_out),
        clean=float(values.clean.mean()),
        corrupted=float(values.empty.mean()),
        circuit=float(values.circuits[0].mean()),
        ablation=shared["ablation"],
        objective=scores.settings["objective"],
        edges=n_edges,
        nodes=Circuit(scores, mask).n_nodes,
        fraction=n_edges / graph.n_edges,
        ladder=rungs,
        random_faithfulness=None if mean_random is None else mean_random.value,
        random_interval=None if mean_random is None else (mean_random.low, mean_random.high),
        per_prompt={
            "clean": values.clean.tolist(),
            "empty": values.empty.tolist(),
            "circuit": values.circuits[0].tolist(),
        },
        output=OutputAgreement.of(*output, confidence=confidence, seed=seed).records(),
        notes=_notes(
            estimate.value, float((values.clean - values.empty).mean()), len(held_out), n_edges, graph.n_edges
        ),
    )


def _stability(
    drawn: ResampledScores, select: Select, mask: Bool[Tensor, "source target"], size: int, share: float
) -> dict[str, Any]:
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


def _notes(value: float, gap: float, n_held_out: int, n_edges: int, n_all: int) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = []
    if not math.isfinite(value) or gap <= 0:
        notes.append(
            "On the held-out prompts the model does no better clean than ablated: there is no behaviour to explain, "
            "and faithfulness means nothing. See task.check(model)."
        )
    if n_held_out < 16:
        notes.append(f"Only {n_held_out} held-out prompts: the interval is rough.")
    if n_edges == 0:
        notes.append(
            "The circuit holds no edges: none of those selected lie on a path from the input to the logits. Ask for "
            "more edges, for selection='connected', or, of a stable circuit, for a lower stable_share."
        )
    if n_edges > n_all // 2:
        notes.append("The circuit holds more than half of all edges: it says little about where the behaviour is.")
    for note in notes:
        logger.warning(note)
    return notes

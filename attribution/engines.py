"""`attribute`: one call for every method that scores edges or nodes of a computational graph."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from attribution.exact import exact_scores
from attribution.gradients import GradientScorer
from attribution.inside import AT_THE_CIRCUIT, Points, checked_inside, inside_scores, node_scores, shortfall
from attribution.methods import METHODS, Method
from attribution.paths import (
    CREDITS,
    Path,
    activation_path,
    check_rule,
    clean_corrupted_path,
    clean_path,
    input_path,
    quadrature_rule,
)
from attribution.rules.sets import RuleSet, rule_set
from attribution.scores import Level, Scores
from interp import numbers
from interp.anatomy import Anatomy
from interp.errors import InputError, choose
from interp.graph import KV, ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.ablation import Ablator
from interp.kernels.batching import plan
from interp.objectives import Objective
from interp.progress import progress
from interp.running import door
from interp.setting import judged_under
from interp.tasks.task import Task


@dataclass(frozen=True)
class Settings:
    """What a method may be told; checks itself."""

    steps: int = 5
    quadrature: str | None = None
    credit: str = "all"

    def __post_init__(self) -> None:
        check_rule(self.steps, self.quadrature or "left")
        choose("credit", self.credit, CREDITS)

    def path(self, method: Method, n_layers: int) -> Path:
        """Where the method takes its gradients."""
        if method.path == "inputs":
            return input_path(self.steps, self.quadrature or "left")
        if method.path == "activations":
            return activation_path(n_layers, self.steps, self.quadrature or "right", self.credit)
        return clean_corrupted_path() if method.path == "clean-corrupted" else clean_path()

    def weights(self, method: Method) -> Points:
        """How much of the circuit's edges there is where the method takes its gradients inside a circuit."""
        return (
            quadrature_rule(self.steps, self.quadrature or "gauss-legendre")
            if method.path == "mask"
            else AT_THE_CIRCUIT
        )


@numbers.checked(steps=numbers.STEPS, sample=numbers.COUNT)
@door
def attribute(
    model: Any,
    task: Task,
    method: str = "eap-ig",
    *,
    level: Level | None = None,
    inside: Any = None,
    rules: str | RuleSet | None = None,
    steps: int = 5,
    quadrature: str | None = None,
    credit: str = "all",
    ablation: str | None = None,
    objective: str | Objective | None = None,
    kv: KV = "head",
    edges: Sequence[str] | Bool[Tensor, "source target"] | None = None,
    sample: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    checkpointed: bool | None = None,
    memory: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Scores:
    """Score every edge (or node) of a model's computational graph on a task.

    A score estimates how much the objective falls, as a mean over prompts, when that edge alone is corrupted:
    positive means that the edge helps. Formulas, papers and costs of the methods: `attribution.methods()`.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour, with clean and corrupted prompts.
        method: `eap`, `eap-ig`, `eap-ig-activations`, `clean-corrupted`, `mask-ig`, `relp`, `gim`, `attnlrp`,
            `cp-lrp`, `exact`; for nodes `attribution-patching`, `activation-patching`.
        level: `edge` or `node`; None: the method's own. Every gradient method has both; a node's score is the sum
            over its edges.
        inside: for `eap`, `mask-ig` and `attribution-patching`: a circuit (bool mask `[source, target]` or anything
            with such a `.mask`) outside of which every edge is ablated; None: the whole model. An edge inside is
            scored by how much the circuit's objective falls when that edge is ablated too, to first order; an edge
            outside by how much it rises when that edge is added. Positive means in both cases that the edge helps.
        rules: backward rules for a gradient method that has none of its own, by name or as a `RuleSet`
            (`attribution.rules`): `eap-ig` with `rules="relp"` takes RelP's coefficients along the path.
        steps: points on the path of integrated gradients.
        quadrature: `left`, `right`, `midpoint` or `gauss-legendre`; None is what the authors' code does: `left`
            for `eap-ig` (it visits the corrupted end), `right` for `eap-ig-activations` (the clean end); and
            `gauss-legendre` for `mask-ig`.
        credit: for `eap-ig-activations`: `all` credits an edge in the passes of every sub-layer, as the authors'
            code does; `own` in those of its own source alone.
        ablation: what a corrupted source gives: `patch` (its value in the corrupted prompt), `zero`, `zero-token` (the
            input keeps its learned position, as in MIB), `mean` or `mean-positional` over the task's clean prompts.
            None: that of the circuit `inside`, or `patch`.
        objective: see `interp.objectives`. None: that of the circuit `inside`, or the task's own.
        kv: `head` scores a key and a value target per query head, `group` one per key-value head.
        edges: for `exact`: names of edges, or a mask, to patch instead of all.
        sample: for `exact`: so many random edges (drawn with `seed`) instead of all.
        seed: of `sample`.
        batch_size: prompts per pass; None lets the memory budget choose.
        checkpointed: recompute activations in the backward pass; None: when a prompt would not fit otherwise.
        memory: bytes a batch may take; None: 1 GiB on a CPU, half of the free memory on a GPU.
        resume: for `exact` and `activation-patching`: a file to keep partial results in, and to go on from. An
            objective of your own is known to it by its name alone.
        quiet: no progress bar.

    Returns:
        `Scores`; `.values` is float32 (float64 for a float64 model), `[source, target]` or `[source]`.

    Raises:
        InputError: unknown names, a method that the ablation or objective does not suit, NaN objectives.
    """
    chosen = METHODS[choose("method", method, METHODS)]
    judged = judged_under(inside, task, ablation, objective)
    ablation, goal = judged.ablation, judged.objective
    chosen.check_ablation(ablation)
    if chosen.path is not None and (resume is not None or edges is not None or sample is not None):
        raise InputError(f"edges, sample and resume are for patching methods; method={method!r} is quick: drop them")
    if chosen.level == "node" and chosen.path is None and (edges is not None or sample is not None):
        raise InputError(f"edges and sample choose edges, but method={method!r} scores nodes: drop them")
    chosen.check_rules(rules)
    chosen_level = _checked_level(chosen, level)
    settings = Settings(steps, quadrature, credit)
    anatomy = anatomy_of(model)
    backward = rule_set(chosen.rules if rules is None else rules).for_anatomy(anatomy)
    graph, prompts = ComputationalGraph.of_anatomy(anatomy, kv), task.prompts(model)
    mask = checked_inside(chosen, inside, rules, graph)
    started = time.perf_counter()
    ablator = Ablator.of(anatomy, ablation, prompts, batch_size, memory)
    recorded: dict[str, Any] = {"kv": kv, "objective": goal.name}
    whole = gap = None
    if mask is not None:
        points = settings.weights(chosen)
        flat = mask.equal(graph.edge_mask) and all(alpha == 1 for alpha, _ in points)
        check_objective(goal, method, flat)
        with progress(f"scoring edges ({method})", len(prompts), quiet) as bar:
            values = inside_scores(
                anatomy, graph, prompts, mask, points, ablator, goal,
                batch_size=batch_size, memory=memory, advance=bar.advance,
            )  # fmt: skip
        if chosen.path == "mask":
            run: dict[str, Any] = {"batch_size": batch_size, "memory": memory}
            whole, gap = shortfall(anatomy, graph, prompts, mask, ablator, goal, values, **run)
        values = node_scores(values, mask) if chosen_level == "node" else values
        recorded |= {} if inside is None else {"edges_inside": int(mask.sum())}
        recorded |= {"steps": steps, "quadrature": quadrature} if chosen.path == "mask" else {}
    elif chosen.path is not None:
        path = _checked_path(chosen, settings, anatomy, goal)
        planned = plan(
            anatomy,
            len(prompts),
            prompts.clean.shape[1],
            copies=path.n_points,
            batch_size=batch_size,
            checkpointed=checkpointed,
            memory=memory,
        )
        with progress(f"scoring edges ({method})", len(prompts), quiet) as bar:
            scorer = GradientScorer(anatomy, graph, goal, path, ablator, planned, backward)
            with torch.inference_mode(False):
                values = scorer.scores(prompts, bar.advance)
        # what a node does is the sum of what its edges do: the gradient at its output is that of all its readers
        values = values.sum(1) if chosen_level == "node" else values
        recorded |= asdict(settings) if chosen.path in ("inputs", "activations") else {}
        recorded |= {"rules": backward.to_dict()} if backward.rules else {}
    else:
        patched = None if chosen.level == "node" else _chosen_edges(graph, edges, sample, seed)
        recorded |= {} if patched is None else {"n_edges_patched": int(patched.sum())}
        fingerprint = {
            "model": anatomy.name,
            "task": task.to_dict(),
            "method": method,
            "ablation": ablation,
            "edges": None if patched is None else patched.nonzero().tolist(),
            **recorded,
        }
        count = len(graph.sources) if patched is None else int(patched.sum())
        with progress(f"patching ({method})", count * len(prompts), quiet) as bar:
            values = exact_scores(
                anatomy, graph, prompts, ablator, goal, patched, batch_size=batch_size, memory=memory,
                resume=resume, fingerprint=fingerprint, advance=bar.advance,
            )  # fmt: skip
    return Scores(
        values=values,
        graph=graph,
        method=method,
        level=chosen_level,
        ablation=ablation,
        settings=recorded,
        task=task.to_dict(),
        model=anatomy.name,
        seed=seed if sample is not None else None,
        seconds=time.perf_counter() - started,
        n_prompts=len(prompts),
        goal=goal,
        whole=whole,
        gap=gap,
    )


def _checked_level(method: Method, level: Level | None) -> Level:
    if level is None:
        return method.level
    choose("level", level, ("edge", "node"))
    if method.path is None and level != method.level:
        other = "activation-patching" if level == "node" else "exact"
        raise InputError(f"method={method.name!r} patches {method.level}s; for level={level!r} use method={other!r}")
    return level


def _checked_path(method: Method, settings: Settings, anatomy: Anatomy, objective: Objective) -> Path:
    path = settings.path(method, anatomy.n_layers)
    check_objective(objective, method.name, path.only_clean)
    return path


def check_objective(objective: Objective, method: str, only_clean: bool) -> None:
    """Raise `InputError` for an objective without a gradient where the method takes one."""
    if not objective.differentiable:
        raise InputError(f"objective={objective.name!r} has no gradient; use it to evaluate, or method='exact'")
    if objective.flat_at_clean and only_clean:
        raise InputError(
            f"objective={objective.name!r} has a gradient of zero at the clean run, which is all that "
            f"method={method!r} looks at; use method='eap-ig' or 'clean-corrupted'"
        )


def _chosen_edges(
    graph: ComputationalGraph,
    edges: Sequence[str] | Tensor | None,
    sample: int | None,
    seed: int,
) -> Bool[Tensor, "source target"]:
    if isinstance(edges, Tensor):
        mask = graph.check_mask(edges, "edges").clone()
    elif edges is not None:
        mask = torch.zeros_like(graph.edge_mask)
        for name in [edges] if isinstance(edges, str) else edges:
            mask[graph.edge_index(name)] = True
    else:
        mask = graph.edge_mask.clone()
    if not mask.any():
        raise InputError("edges names no edge; give at least one, or None for all")
    if sample is None:
        return mask
    available = mask.nonzero()
    advice = "it draws from the edges to choose from"
    numbers.whole("sample", sample, numbers.Limits(1, len(available), advice=advice))
    order = torch.randperm(len(available), generator=torch.Generator().manual_seed(seed), device="cpu")[:sample]
    result = torch.zeros_like(mask)
    result[tuple(available[order].T)] = True
    return result

"""What `compare_methods` compares: methods with settings, or scores that are there already; and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from attribution.methods import METHODS
from jaxtyping import Float
from torch import Tensor

from attribution.engines import attribute
from attribution.scores import Scores
from circuits.cost import Cost, measured
from circuits.find import SETTINGS
from interp.errors import InputError, choose
from interp.graph import KV, ComputationalGraph
from interp.inspection import anatomy_of
from interp.tasks.task import Task

Given = str | Scores | Tensor | Mapping[str, Any]
OWN_SETTINGS = ("method", "selection", *SETTINGS)  # that methods may differ in; all else is shared
CONTROLS = ("random", "inverted")  # what rows of our own are called, or begin with


@dataclass(frozen=True)
class Candidate:
    """A method to be compared: what `attribute` is told, or ready scores."""

    label: str
    settings: dict[str, Any]
    selection: str
    ready: Scores | Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """A candidate's scores over all edges, with what they took."""

    candidate: Candidate
    values: Float[Tensor, "source target"]
    graph: ComputationalGraph
    forwards: float
    backwards: float
    cost: Cost


def candidates(
    methods: Sequence[Given] | Mapping[str, Given], ablation: str, selection: str, allowed: Sequence[str]
) -> list[Candidate]:
    """Read the argument `methods`; raises `InputError` before any work for what could not be scored or compared."""
    if isinstance(methods, (str, Scores, Tensor)):
        methods = [methods]
    pairs = list(methods.items()) if isinstance(methods, Mapping) else [(_label(one), one) for one in methods]
    if not pairs:
        raise InputError("methods names no method; give at least one, such as 'eap-ig'")
    labels = [label for label, _ in pairs]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"methods has two of the name {label!r}; give a dictionary with a name for each")
        if label.split(" ")[0] in CONTROLS:
            raise InputError(f"methods names {label!r}, which is what a control is called; choose another name")
    return [_candidate(label, one, ablation, selection, allowed) for label, one in pairs]


def _label(given: Given) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, Scores):
        return given.method
    raise InputError(f"methods holds a {type(given).__name__} without a name; give a dictionary of name to settings")


def _candidate(label: str, given: Given, ablation: str, selection: str, allowed: Sequence[str]) -> Candidate:
    if isinstance(given, (Scores, Tensor)):
        return Candidate(label, {}, selection, given)
    if isinstance(given, str):
        given = {"method": given}
    if not isinstance(given, Mapping):
        raise InputError(
            f"methods[{label!r}] must be a method's name, its settings, or scores; got {type(given).__name__}"
        )
    settings = {"method": label, **given}
    for name in settings:
        choose(f"setting of methods[{label!r}]", name, OWN_SETTINGS)
    method = METHODS[choose(f"methods[{label!r}]", settings["method"], METHODS)]
    if method.level != "edge":
        raise InputError(f"methods names {label!r}, which scores nodes; circuits need an edge method such as 'eap-ig'")
    method.check_ablation(ablation)
    method.check_rules(settings.get("rules"))
    own = choose(f"selection of methods[{label!r}]", settings.pop("selection", selection), allowed)
    return Candidate(label, settings, own)


def score(model: Any, task: Task, candidate: Candidate, kv: KV, shared: dict[str, Any]) -> Scored:
    """Make the candidate's scores on the prompts, or take them as they are; time and memory only if made here."""
    anatomy, graph = anatomy_of(model), ComputationalGraph.of(model, kv)
    if candidate.ready is None:
        with measured(anatomy.device) as cost:
            scores = attribute(model, task, kv=kv, **candidate.settings, **shared)
        return Scored(candidate, scores.values, graph, *_passes(scores), cost)
    ready = candidate.ready
    values = ready.edge_values if isinstance(ready, Scores) else ready.detach().cpu().float()
    if tuple(values.shape) != graph.shape:
        raise InputError(
            f"methods[{candidate.label!r}] has scores of shape {tuple(values.shape)}; the graph with kv={kv!r} has "
            f"{graph.shape}"
        )
    if not isinstance(ready, Scores):
        return Scored(candidate, values * graph.edge_mask, graph, math.nan, math.nan, Cost())
    seconds = math.nan if ready.seconds is None else ready.seconds
    return Scored(candidate, values, graph, *_passes(ready), Cost(seconds))


def _passes(scores: Scores) -> tuple[float, float]:
    method = METHODS.get(scores.method)
    if method is None:
        return math.nan, math.nan
    graph = scores.graph
    return method.passes(
        steps=scores.settings.get("steps", 1),
        layers=graph.n_layers,
        edges=scores.settings.get("n_edges_patched", graph.n_edges),
        nodes=len(graph.sources),
    )


def noise(graph: ComputationalGraph, seed: int) -> Float[Tensor, "source target"]:
    """Scores drawn at random for every edge."""
    return (
        torch.rand(graph.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")
        * graph.edge_mask
    )

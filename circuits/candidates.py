"""What `compare_methods` compares: methods with settings, or scores that are there already; and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.method import Method, Passes
from attribution.edges.named import METHODS
from attribution.engines import ScoringKeywords, chosen_method
from attribution.scores import Scores
from circuits.cost import Cost, measured
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.keywords import names_of
from interp.selection import SELECTIONS, Selection
from interp.setting import Setting

Given = str | Method | Scores | Tensor | Mapping[str, Any]
CONTROLS = ("random", "inverted")  # what rows of our own are called, or begin with


@dataclass(frozen=True)
class Candidate:
    """A method to be compared, or ready scores, with the selection that takes circuits from the scores."""

    label: str
    selection: Selection
    method: Method | None = None
    ready: Scores | Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """A candidate's scores over all edges, with what they took."""

    candidate: Candidate
    values: Float[Tensor, "source target"]
    graph: ComputationalGraph
    passes: Passes
    cost: Cost


def candidates(methods: Given | Sequence[Given] | Mapping[str, Given], selection: Selection) -> list[Candidate]:
    """Read the argument `methods`; raises `InputError` before any work for what could not be scored or compared."""
    if isinstance(methods, Mapping):
        pairs = list(methods.items())
    else:
        several = [methods] if isinstance(methods, (str, Method, Scores, Tensor)) else methods
        pairs = [(_label(one), one) for one in several]
    if not pairs:
        raise InputError("methods names no method; give at least one, such as 'eap-ig'")
    labels = [label for label, _ in pairs]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"methods has two of the name {label!r}; give a dictionary with a name for each")
        if label.split(" ")[0] in CONTROLS:
            raise InputError(f"methods names {label!r}, which is what a control is called; choose another name")
    return [_candidate(label, one, selection) for label, one in pairs]


def _label(given: Given) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, Method):
        return given.name
    if isinstance(given, Scores):
        return given.method
    raise InputError(f"methods holds a {type(given).__name__} without a name; give a dictionary of name to settings")


def _candidate(label: str, given: Given, selection: Selection) -> Candidate:
    if isinstance(given, (Scores, Tensor)):
        return Candidate(label, selection, ready=given)
    if isinstance(given, (str, Method)):
        return Candidate(label, selection, chosen_method(given, level="edge"))
    if not isinstance(given, Mapping):
        raise InputError(
            f"methods[{label!r}] must be a method, by name or as an object, its settings, or scores; got "
            f"{type(given).__name__}"
        )
    settings = dict(given)
    method, own = settings.pop("method", label), settings.pop("selection", selection)
    for name in settings:
        choose(f"setting of methods[{label!r}]", name, ("method", "selection", *names_of(ScoringKeywords)))
    return Candidate(label, SELECTIONS.make(own), chosen_method(method, settings, level="edge"))


def score(setting: Setting, candidate: Candidate) -> Scored:
    """Make the candidate's scores on the prompts, or take them as they are; time and memory only if made here."""
    graph = setting.graph
    if candidate.method is not None:
        with measured(setting.anatomy.device) as cost:
            scores = candidate.method.scores(setting)
        return Scored(candidate, scores.values, graph, candidate.method.passes(graph), cost)
    ready = candidate.ready
    assert ready is not None
    values = ready.edge_values if isinstance(ready, Scores) else ready.detach().cpu().float()
    if tuple(values.shape) != graph.shape:
        raise InputError(
            f"methods[{candidate.label!r}] has scores of shape {tuple(values.shape)}; the graph with "
            f"kv={setting.kv!r} has {graph.shape}"
        )
    if not isinstance(ready, Scores):
        return Scored(candidate, values * graph.edge_mask, graph, Passes(math.nan, math.nan), Cost())
    seconds = math.nan if ready.seconds is None else ready.seconds
    return Scored(candidate, values, graph, passes_of(ready), Cost(seconds))


def passes_of(scores: Scores) -> Passes:
    """What scores cost to make, by the method and the settings that they remember; NaN where that is not known."""
    if scores.method not in METHODS.names():  # a name from a file imports nothing
        return Passes(math.nan, math.nan)
    known = {"sample": scores.settings.get("n_edges_patched"), **scores.settings, "level": scores.level}
    takes = METHODS.settings(scores.method) or []
    told = {name: known[name] for name in takes if isinstance(known.get(name), int | float | str)}
    return METHODS.make(scores.method, told).passes(scores.graph)


def noise(graph: ComputationalGraph, seed: int) -> Float[Tensor, "source target"]:
    """Scores drawn at random for every edge."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(graph.shape, generator=generator, dtype=torch.float32, device="cpu")
    return drawn * graph.edge_mask

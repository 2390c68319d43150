"""What `compare_methods` compares: methods with settings, or what is there already; and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.method import Method, Passes
from attribution.edges.named import METHODS
from attribution.edges.patched import Exact
from attribution.engines import ScoringKeywords
from attribution.scores import Scores
from attribution.units.nodes import passes_of_nodes
from circuits.cost import Cost, measured
from circuits.elsewhere import Circuits, Elsewhere, is_elsewhere, made_elsewhere
from circuits.formats.mib_folder import Entry
from circuits.levels import Asked, passes, scored
from interp.errors import InputError, choose
from interp.keywords import names_of
from interp.selection import Selection
from interp.selection.nodes import countable
from metrics.circuit.elements import Elements, Mask

Given = str | Method | Elsewhere | Mapping[str, Any]
CONTROLS = ("random", "inverted")  # what rows of our own are called, or begin with


@dataclass(frozen=True)
class Candidate:
    """A method to be compared, or ready scores, with the selection that takes circuits from the scores; or circuits."""

    label: str
    selection: Selection
    method: Method | None = None
    ready: Scores | Tensor | None = None
    circuits: Circuits = ()

    @property
    def single(self) -> bool:
        """Whether it is one circuit, which has a size and no curve."""
        return len(self.circuits) == 1


@dataclass(frozen=True)
class Scored:
    """A candidate's scores over all edges (nodes), with what they took."""

    candidate: Candidate
    values: Float[Tensor, "*axes"]
    passes: Passes
    cost: Cost


def candidates(
    methods: Given | Sequence[Given] | Mapping[str, Given], selection: Selection, asked: Asked
) -> list[Candidate]:
    """Read the argument `methods`; raises `InputError` before any work for what could not be scored or compared."""
    if isinstance(methods, Mapping):
        pairs = list(methods.items())
    else:
        several = methods if isinstance(methods, Sequence) and not isinstance(methods, str) else [methods]
        pairs = [(_label(one), one) for one in several]
    if not pairs:
        raise InputError("methods names no method; give at least one, such as 'eap-ig'")
    labels = [label for label, _ in pairs]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"methods has two of the name {label!r}; give a dictionary with a name for each")
        if label.split(" ")[0] in CONTROLS:
            raise InputError(f"methods names {label!r}, which is what a control is called; choose another name")
    found = [_candidate(label, one, selection, asked) for label, one in pairs]
    if all(one.single for one in found):
        raise InputError("methods holds single circuits alone; give at least one method to compare them with")
    return found


def _label(given: Given) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, Method):
        return given.name
    if isinstance(given, Scores):
        return given.method
    if isinstance(given, Entry):
        return given.name
    raise InputError(f"methods holds a {type(given).__name__} without a name; give a dictionary of name to settings")


def _candidate(label: str, given: Given, selection: Selection, asked: Asked) -> Candidate:
    if is_elsewhere(given):
        made = made_elsewhere(label, cast("Elsewhere", given))
        if isinstance(made, tuple):
            return Candidate(label, selection, circuits=made)
        return Candidate(label, selection, ready=made)
    if isinstance(given, (str, Method)):
        return Candidate(label, selection, asked.method(given, {}))
    if not isinstance(given, Mapping):
        raise InputError(
            f"methods[{label!r}] must be a method, by name or as an object, its settings, scores, or a circuit; got "
            f"{type(given).__name__}"
        )
    settings = dict(given)
    method, own = settings.pop("method", label), settings.pop("selection", selection)
    for name in settings:
        choose(f"setting of methods[{label!r}]", name, ("method", "selection", *names_of(ScoringKeywords)))
    return Candidate(label, asked.selection(own), asked.method(method, settings))


def score(elements: Elements, candidate: Candidate) -> Scored:
    """Make the candidate's scores on the prompts, or take them as they are; time and memory only if made here.

    Circuits are scored by how many of them hold an edge (node), which ranks those of a ladder as they are nested.
    """
    method, ready = candidate.method, candidate.ready
    if candidate.circuits:
        held = torch.stack(masks_of(elements, candidate)).sum(0, dtype=torch.float32)
        return Scored(candidate, held, Passes(math.nan, math.nan), Cost())
    if method is not None:
        with measured(elements.setting.anatomy.device) as cost:
            scores = scored(elements, method)
        return Scored(candidate, scores.values, passes(elements, method), cost)
    assert ready is not None
    if not isinstance(ready, Scores):
        values = _fitting(elements, candidate.label, ready.detach().cpu().float())
        return Scored(candidate, values * elements.full, Passes(math.nan, math.nan), Cost())
    if elements.level == "edge":
        values = ready.edge_values
    elif (ready.level, ready.spans) == (elements.level, elements.spans):
        values = ready.values
    else:
        raise InputError(
            f"methods[{candidate.label!r}] has scores of {ready.level}s, or of other positions than are compared; give "
            f"scores of {elements.level}s"
        )
    seconds = math.nan if ready.seconds is None else ready.seconds
    return Scored(candidate, _fitting(elements, candidate.label, values), passes_of(ready), Cost(seconds))


def masks_of(elements: Elements, candidate: Candidate) -> list[Mask]:
    """The circuits that a candidate is; raises `InputError` for those that are not of these edges (nodes)."""
    return [elements.read(one, f"methods[{candidate.label!r}]") for one in candidate.circuits]


def _fitting(elements: Elements, label: str, values: Tensor) -> Tensor:
    if values.shape == elements.full.shape:
        return values
    whose = f"the graph with kv={elements.setting.kv!r}" if elements.level == "edge" else "the model"
    raise InputError(
        f"methods[{label!r}] has scores of shape {tuple(values.shape)}; {whose} has {tuple(elements.full.shape)}"
    )


def passes_of(scores: Scores) -> Passes:
    """What scores cost to make, by the method and the settings that they remember; NaN where that is not known."""
    if scores.method not in METHODS.names():  # a name from a file imports nothing
        return Passes(math.nan, math.nan)
    level = "edge" if scores.level == "edge" else "node"
    known = {"sample": scores.settings.get("n_edges_patched"), **scores.settings, "level": level}
    takes = METHODS.settings(scores.method) or []
    told = {name: known[name] for name in takes if isinstance(known.get(name), int | float | str)}
    made = METHODS.make(scores.method, told)
    if level == "edge" or (scores.level == "node" and not isinstance(made, Exact)):
        return made.passes(scores.graph)
    return passes_of_nodes(made, scores.graph, len(countable(scores.values, scores.level, scores.exists)))


def noise(full: Bool[Tensor, "*axes"], seed: int) -> Float[Tensor, "*axes"]:
    """Scores drawn at random for every edge (node) of the mask that holds them all."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(full.shape, generator=generator, dtype=torch.float32, device="cpu")
    return drawn * full

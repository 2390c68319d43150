"""Interventions in an attribution graph: the real model is run with some units at other activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pandas as pd
import torch
from torch import Tensor

from attribution.tracing.changed import Attention, run_changed
from attribution.tracing.logits import logit_values, raw_logits
from attribution.tracing.units import Places
from circuits.tracing.changes import Intervention
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.subject import Subject
from interp import numbers
from interp.errors import InputError, choose, short
from interp.running import evaluated, settled

Place = tuple[int, int, int]
_WHERE = ["layer", "position", "unit"]


def subject(graph: AttributionGraph) -> Subject:
    """What the graph was made of. Raises `InputError` where that is not known."""
    if graph.subject is None:
        raise InputError("this graph was read from a file, which holds no model: graph.attached(model) has one")
    return graph.subject


def intervene(
    graph: AttributionGraph, scale: Mapping[Any, float], set: Mapping[Any, float], attention: Attention
) -> Intervention:
    """See `AttributionGraph.intervene`."""
    of = subject(graph)
    choose("attention", attention, get_args(Attention))
    places, values = _asked(graph, of, scale, set)
    rows = graph.nodes[graph.kinds().units.numpy() | graph.kinds().logits.numpy()]
    units = rows[rows["kind"] != "logit"]
    shown = Places.of(torch.from_numpy(units[_WHERE].to_numpy(copy=True)))
    after = torch.zeros(len(units), dtype=torch.float64, device="cpu")

    def hear(layer: int, activations: Tensor) -> None:
        here = (shown.layers == layer).nonzero()[:, 0]
        after[here] = activations[0].cpu()[shown.positions[here], shown.units[here]].double()

    with settled(), evaluated(of.model), torch.no_grad():
        raw = run_changed(
            of.held, of.units, places, torch.zeros(len(places), dtype=torch.long, device="cpu"), values, attention, hear
        )
        sides, anatomy = of.explained.sides, of.held.anatomy
        own = raw_logits(anatomy, of.held.stream[-1])
        logits = [logit_values(anatomy, x, sides, of.centred).double().cpu() for x in (own, raw[0])]
        cap = anatomy.cap or (lambda x: x)
        full = [cap(x).cpu() for x in (own, raw[0])]
    before = torch.cat((of.units.at(shown).double().cpu(), logits[0]))
    frame = rows[["name", "kind", *_WHERE]].reset_index(drop=True)
    frame = frame.assign(before=before.numpy(), after=torch.cat((after, logits[1])).numpy())
    names = _names(graph, of)
    return Intervention(
        logits=full[1],
        before=full[0],
        nodes=frame.assign(change=frame["after"] - frame["before"]),
        changed={names(place): float(value) for place, value in zip(_places(places), values, strict=True)},
        attention=attention,
        model=graph.model,
    )


def _asked(
    graph: AttributionGraph, of: Subject, scale: Mapping[Any, float], set: Mapping[Any, float]
) -> tuple[Places, Tensor]:
    """The units to be set, and their activations."""
    if not scale and not set:
        raise InputError("scale and set are both empty; name at least one unit, as scale={name: 0.0}")
    rows, factors = [], []
    for argument, given in (("scale", scale), ("set", set)):
        for node, value in given.items():
            rows.append(_place(argument, node, graph, of))
            factors.append((argument == "scale", numbers.real(f"{argument}[{short(node)}]", value)))
    if len({*rows}) < len(rows):
        raise InputError("scale and set name a unit twice; give each once")
    places = Places.of(torch.tensor(rows, device="cpu"))
    activations = of.units.at(places).cpu()
    values = [value * own if scaled else value for (scaled, value), own in zip(factors, activations, strict=True)]
    return places, torch.tensor([float(value) for value in values], dtype=of.held.words.dtype, device="cpu")


def _place(argument: str, node: Any, graph: AttributionGraph, of: Subject) -> Place:
    """Layer, position and unit of a node."""
    if isinstance(node, tuple):
        return _checked(argument, node, of)
    nodes = graph.nodes
    if isinstance(node, str):
        found = nodes.index[nodes["name"] == node].tolist()
        if not found:
            raise InputError(f"{argument} names {node!r}, which is no node of this graph; see graph.nodes['name']")
        row = found[0]
    else:
        row = numbers.whole(argument, node, numbers.Limits(0, len(nodes) - 1, advice="it is a row of graph.nodes"))
    if nodes["kind"][row] not in of.units.kinds:
        named = " or ".join(of.units.kinds)
        raise InputError(f"{argument} names {nodes['name'][row]!r}, which is no {named}: its value cannot be set")
    layer, position, unit = (int(nodes[column][row]) for column in _WHERE)
    return layer, position, unit


def _checked(argument: str, node: tuple[Any, ...], of: Subject) -> Place:
    parts = [numbers.read(part) for part in node]
    whole = [part for part in parts if isinstance(part, int)]
    if len(whole) == len(parts) == 3 and 0 <= whole[0] < of.held.n_layers and 0 <= whole[1] < of.held.n_positions:
        layer, position, unit = whole
        if of.units.has(layer, unit):
            return layer, position, unit
    raise InputError(
        f"{argument} names {short(node)}; a unit is (layer, position, unit), with layers up to {of.held.n_layers - 1} "
        f"and positions up to {of.held.n_positions - 1}"
    )


def _places(places: Places) -> Iterator[Place]:
    yield from map(tuple, places.rows().tolist())


def _names(graph: AttributionGraph, of: Subject) -> Any:
    units: pd.DataFrame = graph.nodes[graph.kinds().units.numpy()]
    known = dict(zip(units[_WHERE].itertuples(index=False, name=None), units["name"], strict=True))
    return lambda place: known.get(place, unit_name(of.units.kind_of(place[2]), place))


def unit_name(kind: str, place: Place) -> str:
    """What a unit is called.

    >>> unit_name("neuron", (3, 5, 17))
    'm3.n17@5'
    >>> unit_name("head", (3, 5, 1)), unit_name("mlp", (3, 5, -1))
    ('a3.h1@5', 'm3@5')
    """
    layer, position, unit = place
    if kind in ("head", "mlp"):
        return f"m{layer}@{position}" if kind == "mlp" else f"a{layer}.h{unit}@{position}"
    return f"m{layer}.{kind[0]}{unit}@{position}"

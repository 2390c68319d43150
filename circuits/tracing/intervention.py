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
    if "average_of" in graph.settings:
        raise InputError("this graph is the average of several prompts; run the model on the graph of one of them")
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
    shown, owners = members(graph, units)
    after = torch.zeros(len(shown), dtype=torch.float64, device="cpu")
    rerouted = list[tuple[int, int]]()

    def hear(layer: int, activations: Tensor) -> None:
        here = (shown.layers == layer).nonzero()[:, 0]
        after[here] = activations[0].cpu()[shown.positions[here], shown.units[here]].double()
        rerouted.extend((layer, position) for position in of.units.rerouted(layer, activations[0]))

    with settled(), evaluated(of.model), torch.no_grad():
        raw = run_changed(
            of.held, of.units, places, torch.zeros(len(places), dtype=torch.long, device="cpu"), values, attention, hear
        )
        sides, anatomy = of.explained.sides, of.held.anatomy
        own = raw_logits(anatomy, of.held.stream[-1])
        logits = [logit_values(anatomy, x, sides, of.centred).double().cpu() for x in (own, raw[0])]
        cap = anatomy.cap or (lambda x: x)
        full = [cap(x).cpu() for x in (own, raw[0])]
    own = torch.stack((of.units.at(shown).double().cpu(), after))
    before, after = own.new_zeros(2, len(units)).index_add_(1, owners, own)
    before = torch.cat((before, logits[0]))
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
        rerouted=rerouted,
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
            named = _places_of(argument, node, graph, of)
            rows += named
            factors += [(argument == "scale", numbers.real(f"{argument}[{short(node)}]", value))] * len(named)
    if len({*rows}) < len(rows):
        raise InputError("scale and set name a unit twice; give each once")
    places = Places.of(torch.tensor(rows, device="cpu"))
    activations = of.units.at(places).cpu()
    values = [value * own if scaled else value for (scaled, value), own in zip(factors, activations, strict=True)]
    return places, torch.tensor([float(value) for value in values], dtype=of.held.words.dtype, device="cpu")


def members(graph: AttributionGraph, rows: pd.DataFrame) -> tuple[Places, Tensor]:
    """The units that some rows of `graph.nodes` are, each of a group's too, and which of the rows each belongs to."""
    found, owners = list[list[int]](), list[int]()
    for number, row in enumerate(rows[["name", "kind", *_WHERE]].to_dict("records")):
        own = graph.settings["groups"][row["name"]]["places"] if row["kind"] == "group" else None
        found += own if own is not None else [[row[column] for column in _WHERE]]
        owners += [number] * (len(found) - len(owners))
    places = Places.of(torch.tensor(found, dtype=torch.long, device="cpu"))
    return places, torch.tensor(owners, dtype=torch.long, device="cpu")


def _places_of(argument: str, node: Any, graph: AttributionGraph, of: Subject) -> list[Place]:
    """Layer, position and unit of a node, or of all units of a group."""
    if isinstance(node, tuple):
        return [_checked(argument, node, of)]
    nodes = graph.nodes
    if isinstance(node, str):
        found = nodes.index[nodes["name"] == node].tolist()
        if not found:
            raise InputError(f"{argument} names {node!r}, which is no node of this graph; see graph.nodes['name']")
        row = found[0]
    else:
        row = numbers.whole(argument, node, numbers.Limits(0, len(nodes) - 1, advice="it is a row of graph.nodes"))
    if nodes["kind"][row] == "group":
        if argument == "set":
            raise InputError(f"set names the group {nodes['name'][row]!r}; its units have no one activation: use scale")
        return list(_places(members(graph, nodes.iloc[[row]])[0]))
    if nodes["kind"][row] not in of.units.kinds:
        named = " or ".join(of.units.kinds)
        raise InputError(f"{argument} names {nodes['name'][row]!r}, which is no {named}: its value cannot be set")
    layer, position, unit = (int(nodes[column][row]) for column in _WHERE)
    return [(layer, position, unit)]


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
    units = graph.nodes[graph.nodes["kind"].isin(of.units.kinds)]
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

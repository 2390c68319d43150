"""Groups in an attribution graph: units joined to one node, by whatever they mean together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from circuits.tracing.graph import UNITS, AttributionGraph
from circuits.tracing.influence import cumulative
from circuits.tracing.joining import joined, magnitude_of, summed
from interp.errors import InputError, short

_WHERE = ["layer", "position", "unit"]


def group(graph: AttributionGraph, groups: Mapping[str, Sequence[Any]]) -> AttributionGraph:
    """See `AttributionGraph.group`."""
    members = _members(graph, groups)
    nodes, inside = graph.nodes, set().union(*members.values())
    if taken := [name for name in members if name in set(nodes["name"].drop(list(inside)))]:
        raise InputError(f"groups names a group {taken[0]!r}, which is a node of this graph; give it another name")
    goes = {row: min(rows) for rows in members.values() for row in rows}
    first = np.array([goes.get(row, row) for row in range(len(nodes))])
    kept, to = np.unique(first, return_inverse=True)
    adjacency, hidden = joined(graph, torch.from_numpy(to), len(kept))
    frame, about = nodes.iloc[kept].reset_index(drop=True), {}
    for column in ("activation", "influence", "score"):
        frame[column] = summed(nodes[column], to, len(kept))
    for name, rows in members.items():
        at = int(to[rows[0]])
        own = nodes.iloc[rows]
        about[name] = {
            "members": own["name"].tolist(),
            "places": _places(graph, own),
            "inside": float(adjacency[at, at]),
        }
        adjacency[at, at] = 0.0
        top = own.sort_values(["layer", "position"]).iloc[-1]
        frame.loc[at, ["name", "kind", "unit", "layer", "position"]] = [
            name,
            "group",
            -1,
            top["layer"],
            top["position"],
        ]
    frame = frame.astype(dict.fromkeys(_WHERE, "int64"))
    frame["cumulative"] = cumulative(torch.from_numpy(frame["influence"].to_numpy(copy=True))).numpy()
    found = replace(
        graph,
        nodes=frame,
        adjacency=adjacency.to(graph.adjacency),
        magnitude=magnitude_of(adjacency, frame, hidden).to(graph.magnitude),
        weights=graph.weights[torch.from_numpy(kept)],
        settings={**graph.settings, "groups": {**graph.settings.get("groups", {}), **about}},
    )
    return found.about(graph.subject)


def checked_groups(groups: Any, graph: AttributionGraph) -> Mapping[str, Sequence[str]]:
    """Names of nodes by group; raises `InputError` for what is none, for no nodes and for those of another graph."""
    if not isinstance(groups, Mapping) or not groups:
        raise InputError(f'groups must be a dictionary as {{"capital": ["m3.n17@5", ...]}}; got {short(groups)}')
    known = set(graph.nodes["name"])
    for name, given in groups.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"groups has the name {short(name)}; give each group a name that is a string")
        if isinstance(given, str) or not isinstance(given, Sequence) or not len(given):
            raise InputError(f"groups[{name!r}] must be a list of names of units, one at least; got {short(given)}")
        if missing := [one for one in given if one not in known]:
            raise InputError(
                f"groups[{name!r}] names {short(missing[0])}, which is no node of this graph; see graph.nodes['name']"
            )
    return groups


def _members(graph: AttributionGraph, groups: Any) -> dict[str, list[int]]:
    """The rows of each group."""
    rows = {name: row for row, name in enumerate(graph.nodes["name"])}
    kinds, found = graph.nodes["kind"].tolist(), dict[str, list[int]]()
    for name, given in checked_groups(groups, graph).items():
        if wrong := [one for one in given if kinds[rows[one]] not in UNITS]:
            raise InputError(
                f"groups[{name!r}] names {wrong[0]!r}, a {kinds[rows[wrong[0]]]}; groups are made of units"
            )
        found[name] = [rows[one] for one in given]
    everything = [row for members in found.values() for row in members]
    if len(set(everything)) < len(everything):
        raise InputError("groups name a unit twice; each belongs to one group at most, once")
    return found


def _places(graph: AttributionGraph, rows: pd.DataFrame) -> list[list[int]]:
    """Layer, position and unit of all that is in a group, those of groups in it too."""
    found = list[list[int]]()
    for row in rows.to_dict("records"):
        inner = graph.settings["groups"][row["name"]]["places"] if row["kind"] == "group" else None
        found += inner if inner is not None else [[int(row[column]) for column in _WHERE]]
    return found

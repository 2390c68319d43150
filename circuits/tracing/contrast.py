"""Two attribution graphs of aligned prompts: what of the one is different in the other."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from attribution.tracing.units import Places
from circuits.tracing.graph import AttributionGraph
from interp import theme
from interp.errors import InputError
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_BARS = 20
_MUST_AGREE = ("units", "centred")  # without which values are not of one kind


@dataclass(frozen=True, eq=False, repr=False)
class GraphComparison(Result):
    """What of a graph changes in another; made by `graph.compare(other)`. A change is this less the other.

    Attributes:
        nodes: those of either, by falling |change of influence|: name, kind, layer, position, unit, shown (`both`,
            `this`, `other`), activation, other_activation, activation_change, influence, other_influence,
            influence_change. What a graph does not show it does not know (NaN), but for activations of units where it
            still has its model.
        edges: those of either, by falling |change|: source, target, weight, other_weight, change; NaN where a graph
            does not show both ends, 0 where it does and has no such edge.
        tokens, other_tokens: both prompts.
        model: its name.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
    tokens: list[str]
    other_tokens: list[str]
    model: str

    def to_frame(self) -> pd.DataFrame:
        """The nodes; a copy."""
        return self.nodes.copy()

    def headline(self) -> str:
        shown = self.nodes["shown"].value_counts()
        return (
            f"{shown.get('both', 0):,} nodes in both graphs, {shown.get('this', 0):,} in this one only, "
            f"{shown.get('other', 0):,} in the other only; {len(self.edges):,} edges, {self.model}"
        )

    def figure(self) -> Figure:
        """The influence in both of the nodes for which it changes most."""
        import plotly.graph_objects as go

        rows = self.nodes.head(_BARS).iloc[::-1]
        names = [theme.label(name) for name in rows["name"]]
        bars = [
            go.Bar(y=names, x=rows[column], name=name, orientation="h", marker={"color": colour})
            for column, name, colour in (
                ("other_influence", "in the other", theme.CONTROL),
                ("influence", "in this graph", theme.OWN),
            )
        ]
        height = 160 + 28 * len(rows)
        return theme.styled(go.Figure(bars), self.headline(), xaxis={"title": "influence"}, height=height)


def compare(graph: AttributionGraph, other: AttributionGraph) -> GraphComparison:
    """See `AttributionGraph.compare`."""
    _check(graph, other)
    keys = [_keys(one) for one in (graph, other)]
    union = list(dict.fromkeys([*keys[0], *keys[1]]))
    rows = [{key: row for row, key in enumerate(own)} for own in keys]
    at = [np.array([own.get(key, -1) for key in union]) for own in rows]
    nodes = _nodes(graph, other, at)
    edges = _edges(graph, other, at, nodes["name"].to_numpy())
    order = nodes["influence_change"].abs().fillna(nodes[["influence", "other_influence"]].max(axis=1))
    nodes = nodes.loc[order.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)
    return GraphComparison(nodes, edges, graph.tokens, other.tokens, graph.model)


def _check(graph: AttributionGraph, other: Any) -> None:
    if not isinstance(other, AttributionGraph):
        raise InputError(f"other must be an AttributionGraph, as circuits.trace makes it; got {type(other).__name__}")
    if graph.model != other.model:
        raise InputError(f"other was made of the model {other.model!r}, this graph of {graph.model!r}")
    if len(graph.tokens) != len(other.tokens):
        raise InputError(
            f"other has {len(other.tokens)} tokens, this graph {len(graph.tokens)}; give prompts of equal lengths"
        )
    for name in _MUST_AGREE:
        if graph.settings.get(name) != other.settings.get(name):
            raise InputError(
                f"other was traced with {name}={other.settings.get(name)!r}, this graph with "
                f"{graph.settings.get(name)!r}; trace both alike"
            )


def _keys(graph: AttributionGraph) -> list[Hashable]:
    """What a node is in either graph: a token is its position, a logit the tokens that it is of."""
    sides, logits, found = graph.settings.get("sides"), 0, list[Hashable]()
    columns = graph.nodes[["name", "kind", "layer", "position", "unit", "place"]]
    for name, kind, layer, position, unit, place in columns.itertuples(index=False, name=None):
        if kind == "logit":
            found.append((kind, repr(sides[logits]) if sides else unit))
            logits += 1
        elif kind == "group":
            found.append((kind, name))
        else:
            found.append((kind, layer, position, -1 if kind == "token" else unit, place))
    return found


def _nodes(graph: AttributionGraph, other: AttributionGraph, at: list[np.ndarray]) -> pd.DataFrame:
    both = [one.nodes.assign(name=_names(one)) for one in (graph, other)]
    here = at[0] >= 0
    where = ["name", "kind", "layer", "position", "unit"]
    own, theirs = (frame[where].iloc[np.maximum(rows, 0)].reset_index(drop=True) for frame, rows in zip(both, at, strict=True))  # fmt: skip # noqa: E501
    nodes = own.where(pd.Series(here), theirs).astype({"layer": "int64", "position": "int64", "unit": "int64"})
    nodes["shown"] = np.select([here & (at[1] >= 0), here], ["both", "this"], "other")
    for column in ("activation", "influence"):
        for frame, rows, before in zip(both, at, ("", "other_"), strict=True):
            values = frame[column].to_numpy()[np.maximum(rows, 0)]
            nodes[before + column] = np.where(rows >= 0, values, np.nan)
    for one, rows, column in ((graph, at[0], "activation"), (other, at[1], "other_activation")):
        _measure(one, nodes, rows < 0, column)
    for column in ("activation", "influence"):
        nodes[f"{column}_change"] = nodes[column] - nodes[f"other_{column}"]
    order = [*where, "shown"]
    order += [
        name for column in ("activation", "influence") for name in (column, f"other_{column}", f"{column}_change")
    ]
    found: pd.DataFrame = nodes[order]
    return found


def _names(graph: AttributionGraph) -> list[str]:
    """Names that mean the same in two graphs: logits by what they are of."""
    logits = iter(graph.target_tokens)
    pairs = zip(graph.nodes["name"], graph.nodes["kind"], strict=True)
    return [f"logit {next(logits)!r}" if kind == "logit" else str(name) for name, kind in pairs]


def _measure(graph: AttributionGraph, nodes: pd.DataFrame, missing: np.ndarray, column: str) -> None:
    """The activations of units that a graph does not show, where it knows its model."""
    if graph.subject is None:
        return
    chosen = np.flatnonzero(missing & nodes["kind"].isin(graph.subject.units.kinds).to_numpy())
    if len(chosen):
        rows = torch.from_numpy(nodes[["layer", "position", "unit"]].to_numpy(copy=True)[chosen])
        values = graph.subject.units.at(Places.of(rows)).cpu().double().numpy()
        nodes.loc[chosen, column] = values


def _edges(graph: AttributionGraph, other: AttributionGraph, at: list[np.ndarray], names: np.ndarray) -> pd.DataFrame:
    parts = []
    for one, rows, column in ((graph, at[0], "weight"), (other, at[1], "other_weight")):
        number = np.zeros(len(one.nodes), dtype=np.int64)
        number[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        target, source = one.adjacency.nonzero().T
        weights = one.adjacency[target, source].double().numpy()
        parts.append(pd.DataFrame({"s": number[source.numpy()], "t": number[target.numpy()], column: weights}))
    found = parts[0].merge(parts[1], on=["s", "t"], how="outer")
    for rows, column in zip(at, ("weight", "other_weight"), strict=True):
        known = (rows[found["s"]] >= 0) & (rows[found["t"]] >= 0)
        found[column] = np.where(known, found[column].fillna(0.0), np.nan)
    found["change"] = found["weight"] - found["other_weight"]
    found = found.assign(source=names[found["s"]], target=names[found["t"]])
    order = found["change"].abs().fillna(found[["weight", "other_weight"]].abs().max(axis=1))
    found = found.loc[order.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)
    return found[["source", "target", "weight", "other_weight", "change"]]

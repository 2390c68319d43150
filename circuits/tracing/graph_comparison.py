"""`GraphComparison`: what of an attribution graph is different in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from interp import theme
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_BARS = 20


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
        prompts = ["".join(tokens) for tokens in (self.tokens, self.other_tokens)]
        title = theme.named(self.model, f"{prompts[0]!r} against {prompts[1]!r}")
        axes = {"xaxis_title": "influence", "yaxis_title": "node"}
        return theme.styled(go.Figure(bars), title, self.headline(), **axes, height=height)

"""Plain plotly figures of a circuit and of two: a few traces whatever the number of edges, nothing to filter.

The interactive picture is the page's (`page.py`); both look as `look.py` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool

from circuits.circuit import Circuit, CircuitComparison
from circuits.node_circuit import NodeCircuit
from circuits.node_comparison import NodeComparison
from circuits.viewer import look
from circuits.viewer.adjacency import Adjacency, adjacency
from circuits.viewer.headings import facts, title
from circuits.viewer.layout import MLP_GAP, column_labels, curves, edge_ends, node_position, row_labels
from interp import theme
from interp.errors import InputError
from interp.graph import ComputationalGraph

LABELLED_LIMIT = 160  # nodes, beyond which names would run into each other


@dataclass(frozen=True)
class Tone:
    """A colour, what it says, which edges have it, and how they are dashed."""

    label: str
    colour: str
    edges: Bool[np.ndarray, " edge"]
    dash: str = "solid"


def figure(circuit: Circuit | NodeCircuit) -> go.Figure:
    """The circuit as a plain plotly figure: rows are layers, columns heads, MLPs at the right, edges run upwards.

    Colour is the sign of an edge's score, width its strength; click the legend to hide a sign. At most `DRAWN_LIMIT`
    edges are drawn, the strongest; the subtitle then says how many of how many. Of nodes: `NodeCircuit.figure`.
    """
    if isinstance(circuit, NodeCircuit):
        return circuit.figure()
    edges = adjacency(circuit, look.DRAWN_LIMIT)
    negative = edges.score < 0
    tones = [Tone(*named, of) for named, of in zip(look.SIGNS.items(), (~negative, negative), strict=True)]
    return _drawn(circuit, edges, tones, title(circuit), facts(circuit))


def comparison_figure(comparison: CircuitComparison | NodeComparison) -> go.Figure:
    """Both circuits as one plain plotly figure, edges coloured by which of them has it, width by the larger score.

    Edges of negative score are dashed; the score is the first circuit's where it has the edge.
    Of nodes: `NodeComparison.figure`.
    """
    if isinstance(comparison, NodeComparison):
        return comparison.figure()
    both, edges = union(comparison, look.DRAWN_LIMIT)
    here, there = comparison.here, comparison.there
    inside = [circuit.mask.numpy()[edges.source, edges.target] for circuit in (here, there)]
    parts = (inside[0] & inside[1], inside[0] & ~inside[1], ~inside[0])
    labels = ("both", *(f"only {name}" for name in comparison.names))
    own = there.scores.edge_values.double().numpy()[edges.source, edges.target]
    negative = np.where(inside[0], edges.score, own) < 0
    tones = [
        Tone(label, colour, part & sign, dash)
        for label, colour, part in zip(labels, look.MEMBERS, parts, strict=True)
        for sign, dash in ((~negative, "solid"), (negative, "dash"))
    ]
    lines = [", ".join([name, *facts(circuit)]) for name, circuit in zip(comparison.names, (here, there), strict=True)]
    heading = f"{' and '.join(comparison.names)}: {title(here)}"
    return _drawn(both, edges, tones, heading, [comparison.headline(), "dashed: hurts", *lines])


def union(comparison: CircuitComparison, limit: int) -> tuple[Circuit, Adjacency]:
    """The edges of either circuit as one, and the strongest of them by the larger of their two |scores|.

    Raises `InputError` for what is no comparison.
    """
    if not isinstance(comparison, CircuitComparison):
        raise InputError(f"comparison must be what compare(here, there) gives; got {type(comparison).__name__}")
    here, there = comparison.here, comparison.there
    both = Circuit(here.scores, here.mask | there.mask, here.report, here.provenance)
    values = [circuit.scores.edge_values.double().numpy() for circuit in (here, there)]
    return both, adjacency(both, limit, np.maximum(*map(np.abs, values)))


def _drawn(circuit: Circuit, edges: Adjacency, tones: list[Tone], heading: str, lines: list[str]) -> go.Figure:
    tones = [tone for tone in tones if tone.edges.any()]
    graph, drawn = circuit.graph, len(edges.score)
    scatter, points = (go.Scatter, look.SVG_POINTS) if drawn <= look.SVG_LIMIT else (go.Scattergl, look.DENSE_POINTS)
    if edges.total > drawn:
        lines = [*lines, f"drawn: the strongest {drawn:,} of {edges.total:,}"]
    across, up = (dict(zip(("tickvals", "ticktext"), of(graph), strict=True)) for of in (column_labels, row_labels))
    axis = {"showgrid": False, "zeroline": False}
    lined = _lines(edges, tones, graph, scatter, points)
    result = go.Figure([*lined, *_legend(tones), _absent(circuit), _nodes(circuit, scatter)])
    theme.styled(
        result,
        heading,
        " · ".join(lines),
        xaxis={**axis, **across, "title": "head", "range": [-0.8, graph.n_heads + MLP_GAP + 1.9]},
        yaxis={**axis, **up, "range": [-1.7, graph.n_layers + 0.7], "title": "layer"},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        hovermode="closest",
        modebar={"remove": list(look.REFUSED_BUTTONS)},
        margin={"l": 64, "r": 16, "b": 48},
        height=max(560, min(1100, 26 * graph.n_layers + 260)),
    )
    if not drawn:
        result.add_annotation(
            text="This circuit has no edges.", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper"
        )
    return result


def _lines(edges: Adjacency, tones: list[Tone], graph: ComputationalGraph, scatter: type, points: int) -> Iterator[Any]:
    """A trace per tone and strength that occurs; the strongest last, on top."""
    x, y = (axis.astype(np.float32) for axis in curves(edge_ends(edges, graph), graph, points))
    strength = edges.strength / max(edges.strength.max(initial=0.0), np.finfo(float).tiny)
    level = np.select([strength >= share for share, _, _ in look.LEVELS], range(len(look.LEVELS)))
    for index, (share, width, opacity) in reversed(list(enumerate(look.LEVELS))):
        if share < look.WEAK:
            opacity *= min(1.0, math.sqrt(look.SVG_LIMIT / max(1, len(edges.score))))
        for tone in tones:
            chosen = np.flatnonzero(tone.edges & (level == index))
            if len(chosen):
                yield scatter(
                    x=x[chosen].ravel(),
                    y=y[chosen].ravel(),
                    mode="lines",
                    line={"color": tone.colour, "width": width, "dash": tone.dash},
                    opacity=opacity,
                    hoverinfo="skip",
                    legendgroup=tone.label,
                    showlegend=False,
                )


def _legend(tones: list[Tone]) -> Iterator[go.Scatter]:
    """An entry per tone, which stands for all its traces."""
    for tone in {tone.label: tone for tone in tones}.values():
        line = {"color": tone.colour, "width": 4}
        yield go.Scatter(
            x=[None], y=[None], mode="lines", line=line, name=theme.label(tone.label), legendgroup=tone.label
        )


def _absent(circuit: Circuit) -> go.Scatter:
    """Faint dots where the model has a node and the circuit does not."""
    graph, present = circuit.graph, set(circuit.nodes)
    places = [node_position(name, graph) for name in (*graph.sources, "logits") if name not in present]
    return go.Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        marker={"color": theme.FAINT, "size": 4},
        hoverinfo="skip",
        showlegend=False,
    )


def _nodes(circuit: Circuit, scatter: type) -> Any:
    """Markers with names; of the class of the edges, because WebGL is painted over all SVG."""
    graph, nodes = circuit.graph, list(circuit.nodes)
    places = [node_position(name, graph) for name in nodes]
    return scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers+text" if len(nodes) <= LABELLED_LIMIT else "markers",
        marker={
            "color": "white",
            "size": look.node_size(graph.n_layers),
            "symbol": [look.SYMBOLS[look.kind(name)] for name in nodes],
            "line": {"color": theme.INK, "width": 1.6},
            "opacity": 1,
        },
        # input and logits have their row's label
        text=["" if name in ("input", "logits") else name for name in nodes],
        textposition="top right",
        textfont={"size": 10, "color": theme.INK},
        hovertext=nodes,
        hoverinfo="text",
        showlegend=False,
    )

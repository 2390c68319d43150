"""The plotly figure of a circuit: few traces whatever the number of edges."""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from circuits.circuit import Circuit
from circuits.viewer.layout import (
    MLP_GAP,
    DrawnEdges,
    column_labels,
    curves,
    drawn_edges,
    node_position,
    row_labels,
)
from interp import theme

SVG_LIMIT = 1_500  # beyond it edges are drawn by WebGL
DRAWN_LIMIT = 20_000  # beyond it only the strongest are drawn

POSITIVE, NEGATIVE = theme.POSITIVE, theme.NEGATIVE
INK, FAINT = "#2b303b", "#d5d9e0"
_HALO = ", ".join(f"{x}px {y}px 1px white" for x in (-1, 0, 1) for y in (-1, 0, 1))

# strength, as a share of the largest |score|, from which an edge gets this width and opacity
LABELLED_LIMIT = 160  # nodes, beyond which names would run into each other

STRENGTHS = ((0.3, 5.0, 0.95), (0.1, 3.2, 0.8), (0.03, 2.0, 0.6), (0.01, 1.2, 0.45), (0.0, 0.8, 0.3))


@dataclass(frozen=True)
class Bucket:
    """Which edges a trace draws, strongest first, with `points` entries of x and y for each."""

    trace: int
    edges: np.ndarray
    points: int


@dataclass(frozen=True)
class Picture:
    """A figure with what the page needs to filter it: its edges, and which trace draws which of them."""

    figure: go.Figure
    edges: DrawnEdges
    buckets: list[Bucket]
    nodes: list[str]
    node_trace: int


def figure(circuit: Circuit) -> go.Figure:
    """The circuit as a plotly figure: rows are layers, columns heads, MLPs at the right, edges run upwards.

    Colour is the sign of an edge's score, width its strength. Hover over a node for its degrees and sums of
    scores, over the middle of an edge for its name, score and rank; click the legend to hide a sign. At most
    `DRAWN_LIMIT` edges are drawn, the strongest; the subtitle then says "N of M".
    """
    return draw(circuit).figure


def draw(circuit: Circuit) -> Picture:
    """The figure of `figure`, and what its traces hold."""
    edges = drawn_edges(circuit, DRAWN_LIMIT)
    trace_class, points = (go.Scatter, 21) if len(edges.names) <= SVG_LIMIT else (go.Scattergl, 7)
    x, y = (axis.astype(np.float32) for axis in curves(edges.ends, circuit.graph, points))
    traces: list[Any] = []
    buckets: list[Bucket] = []
    for trace, chosen in _lines(edges, x, y, trace_class):
        buckets.append(Bucket(len(traces), chosen, points + 1))
        traces.append(trace)
    for trace, chosen in _middles(edges, x[:, points // 2], y[:, points // 2], trace_class):
        buckets.append(Bucket(len(traces), chosen, 1))
        traces.append(trace)
    traces += _legend(edges)
    traces.append(_absent_nodes(circuit))
    traces.append(_nodes(circuit, trace_class))
    result = go.Figure(traces, _layout(circuit, edges))
    return Picture(result, edges, buckets, list(circuit.nodes), len(traces) - 1)


def title(circuit: Circuit) -> str:
    """Model, task and method, as plain text."""
    task = circuit.provenance["task"]
    name = task.get("name") if isinstance(task, dict) else task
    parts = [circuit.provenance["model"], name, circuit.provenance["method"]]
    return " · ".join(str(part) for part in parts if part) or "Circuit"


def facts(circuit: Circuit) -> list[str]:
    """Size and faithfulness, as plain text."""
    parts = [f"{circuit.n_edges:,} of {circuit.graph.n_edges:,} edges", f"{circuit.n_nodes:,} nodes"]
    report = circuit.report
    if report.faithfulness is not None:
        text = f"faithfulness {report.faithfulness:.2f}"
        if report.interval is not None:
            text += f" (95 % interval {report.interval[0]:.2f} to {report.interval[1]:.2f})"
        parts.append(text)
    return parts


def subtitle(circuit: Circuit, edges: DrawnEdges) -> str:
    """Size and faithfulness, and how many edges are drawn when not all are; as plain text."""
    parts = facts(circuit)
    if edges.total > len(edges.names):
        parts.append(f"drawn: the strongest {len(edges.names):,} of {edges.total:,}")
    return " · ".join(parts)


def _escaped(text: str) -> str:
    """Text that plotly shows as it is; plotly knows the entities of <, > and & alone."""
    return html.escape(text, quote=False)


def _signs(edges: DrawnEdges) -> Iterator[tuple[np.ndarray, str, str]]:
    """Which edges have a sign, its colour and its label, for each sign that occurs."""
    negative = edges.score < 0
    for of_sign, colour, label in (
        (~negative, POSITIVE, "helps (positive score)"),
        (negative, NEGATIVE, "hurts (negative score)"),
    ):
        if of_sign.any():
            yield of_sign, colour, label


def _lines(edges: DrawnEdges, x: np.ndarray, y: np.ndarray, trace_class: type) -> Iterator[tuple[Any, np.ndarray]]:
    """A trace per sign and strength that occurs, and the edges it draws; the strongest last, on top."""
    strength = np.abs(edges.score) / max(np.abs(edges.score).max(initial=0.0), np.finfo(float).tiny)
    level = np.select([strength >= share for share, _, _ in STRENGTHS], range(len(STRENGTHS)))
    for index, (share, width, opacity) in reversed(list(enumerate(STRENGTHS))):
        if share < 0.1:  # weak edges are many: in a dense picture they must not hide the strong ones
            opacity *= min(1.0, math.sqrt(SVG_LIMIT / max(1, len(edges.names))))
        for of_sign, colour, label in _signs(edges):
            chosen = np.flatnonzero(of_sign & (level == index))
            if len(chosen):
                trace = trace_class(
                    x=x[chosen].ravel(),
                    y=y[chosen].ravel(),
                    mode="lines",
                    line={"color": colour, "width": width},
                    opacity=opacity,
                    hoverinfo="skip",
                    legendgroup=label,
                    showlegend=False,
                )
                yield trace, chosen


def _middles(edges: DrawnEdges, x: np.ndarray, y: np.ndarray, trace_class: type) -> Iterator[tuple[Any, np.ndarray]]:
    """A trace per sign of invisible markers, which carry what is shown on hovering over an edge."""
    for of_sign, colour, label in _signs(edges):
        chosen = np.flatnonzero(of_sign)
        trace = trace_class(
            x=x[chosen],
            y=y[chosen],
            mode="markers",
            marker={"color": colour, "size": 9, "opacity": 0},
            text=[_escaped(edges.names[index].replace("->", " → ")) for index in chosen],
            customdata=np.stack([edges.score[chosen], chosen + 1], axis=1).astype(np.float32),
            hovertemplate="<b>%{text}</b><br>score %{customdata[0]:+.4g}"
            f"<br>rank %{{customdata[1]:,}} of {edges.total:,}<extra></extra>",
            hoverlabel={"bgcolor": colour, "font": {"color": "white"}},
            legendgroup=label,
            showlegend=False,
        )
        yield trace, chosen


def _legend(edges: DrawnEdges) -> list[go.Scatter]:
    """An entry per sign, which stands for all traces of that sign."""
    return [
        go.Scatter(x=[None], y=[None], mode="lines", line={"color": colour, "width": 4}, name=label, legendgroup=label)
        for _, colour, label in _signs(edges)
    ]


def _absent_nodes(circuit: Circuit) -> go.Scatter:
    """Faint dots where the model has a node and the circuit does not."""
    graph, present = circuit.graph, set(circuit.nodes)
    places = [node_position(name, graph) for name in (*graph.sources, "logits") if name not in present]
    return go.Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        marker={"color": FAINT, "size": 4},
        hoverinfo="skip",
        showlegend=False,
    )


def _nodes(circuit: Circuit, trace_class: type) -> Any:
    """Markers with names; of the class of the edges, because WebGL is painted over all SVG."""
    graph, nodes = circuit.graph, list(circuit.nodes)
    score_of = circuit.edge_scores()
    degree_in, degree_out = defaultdict[str, int](int), defaultdict[str, int](int)
    sum_in, sum_out = defaultdict[str, float](float), defaultdict[str, float](float)
    for source, target, reader in circuit.links():
        score = score_of[f"{source}->{target}"]
        degree_out[source] += 1
        degree_in[reader] += 1
        sum_out[source] += score
        sum_in[reader] += score
    places = [node_position(name, graph) for name in nodes]
    size = int(np.clip(420 / (graph.n_layers + 2), 7, 16))  # pixels: as large as the rows allow
    symbols = {"m": "square", "i": "diamond", "l": "diamond"}
    named = len(nodes) <= LABELLED_LIMIT
    shadow = {"shadow": _HALO} if trace_class is go.Scatter else {}
    return trace_class(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers+text" if named else "markers",
        marker={
            "color": "white",
            "size": size,
            "symbol": [symbols.get(name[0], "circle") for name in nodes],
            "line": {"color": INK, "width": 1.6},
            "opacity": 1,
        },
        # input and logits have their row's label
        text=["" if name in ("input", "logits") else name for name in nodes],
        textposition="top right",
        textfont={"size": 10, "color": INK, **shadow},
        hovertext=[
            f"<b>{_escaped(name)}</b><br>in: {degree_in[name]:,} edges, sum of scores {sum_in[name]:+.4g}"
            f"<br>out: {degree_out[name]:,} edges, sum of scores {sum_out[name]:+.4g}"
            for name in nodes
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        hoverlabel={"bgcolor": INK, "font": {"color": "white"}},
        showlegend=False,
    )


def _layout(circuit: Circuit, edges: DrawnEdges) -> go.Layout:
    graph = circuit.graph
    rows, row_names = row_labels(graph)
    columns, column_names = column_labels(graph)
    heading, below = _escaped(title(circuit)), _escaped(subtitle(circuit, edges))
    axis = {"showgrid": False, "zeroline": False, "tickfont": {"color": INK}}
    notes = []
    if not edges.names:
        middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
        notes.append({"text": "This circuit has no edges.", "showarrow": False, **middle})
    return go.Layout(
        template="plotly_white",
        title={
            "text": heading,
            "subtitle": {"text": below},
            "x": 0.02,
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 18},
            "font": {"color": INK},
        },
        xaxis={
            **axis,
            "tickvals": columns,
            "ticktext": column_names,
            "range": [-0.8, graph.n_heads + MLP_GAP + 1.9],
        },
        yaxis={
            **axis,
            "tickvals": rows,
            "ticktext": row_names,
            "range": [-1.7, graph.n_layers + 0.7],
            "title": {"text": "layer", "standoff": 4},
        },
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        hovermode="closest",
        hoverdistance=12,
        dragmode="pan",
        # plotly offers to upload a chart to its cloud: unpublished models must not leave by a stray click
        modebar={"remove": ["sendChartToCloud", "select2d", "lasso2d"]},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 64, "r": 16, "t": 112, "b": 36},
        height=max(560, min(1100, 26 * graph.n_layers + 260)),
        annotations=notes,
    )

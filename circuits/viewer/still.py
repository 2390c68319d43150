"""What a page shows where scripts are blocked: a still picture and a table, as HTML without scripts."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from circuits.circuit import Circuit
from circuits.viewer import look
from circuits.viewer.adjacency import Adjacency
from circuits.viewer.layout import curves, edge_ends, node_position, row_labels
from interp import theme

DRAWN = 200  # edges, the strongest
LISTED = 20  # rows of the table
WIDE, TALL, POINTS = 900, 640, 12
_MARGIN = (64, 24)  # pixels left and above


def still(circuit: Circuit, edges: Adjacency) -> str:
    """The strongest edges as one image of a data address, and as a table."""
    edges = edges.first(DRAWN)
    picture = base64.b64encode(_svg(circuit, edges).encode()).decode()
    told = f"The {len(edges.score):,} strongest of {edges.total:,} edges: rows are layers, blue helps, orange hurts."
    image = f'<img alt="{html.escape(told)}" src="data:image/svg+xml;base64,{picture}">'
    return f"<p>{html.escape(told)}</p>{image}{still_table(circuit.to_frame())}"


def still_table(frame: pd.DataFrame) -> str:
    """The first rows of a table, as text."""
    return str(frame.head(LISTED).to_html(index=False, border=0, float_format=lambda value: f"{value:+.4g}"))


def _svg(circuit: Circuit, edges: Adjacency) -> str:
    graph, nodes = circuit.graph, list(circuit.nodes)
    # whatever numbers the layout has are stretched over the picture
    places = {name: node_position(name, graph) for name in (*graph.sources, "logits")}
    across = np.array([x for x, _ in places.values()])
    to_x = (WIDE - _MARGIN[0] - 90) / max(float(np.ptp(across)) + look.BEND["margin"], 1.0)
    to_y = (TALL - 2 * _MARGIN[1] - 16) / (graph.n_layers + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        return _MARGIN[0] + (x - across.min()) * to_x, TALL - _MARGIN[1] - (y + 1) * to_y

    parts = [f'<rect width="{WIDE}" height="{TALL}" fill="white"/>', *_lines(edges, circuit, at)]
    for row, name in zip(*row_labels(graph), strict=True):
        _, y = at(0.0, row)
        parts.append(f'<text x="{_MARGIN[0] - 22}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
    for name in nodes:
        x, y = at(*places[name])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="white" stroke="{theme.INK}"/>')
        if name not in ("input", "logits") and len(nodes) <= DRAWN:
            parts.append(f'<text x="{x + 6:.1f}" y="{y - 5:.1f}" font-size="10">{name}</text>')
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {TALL}" width="{WIDE}" height="{TALL}" '
        f'font-family="sans-serif" font-size="12" fill="{theme.INK}">{body}</svg>'
    )


def _lines(edges: Adjacency, circuit: Circuit, at: Callable[[float, float], tuple[float, float]]) -> Iterator[str]:
    """The weakest first, so that the strongest lie on top."""
    xs, ys = curves(edge_ends(edges, circuit.graph), circuit.graph, POINTS)
    largest = max(float(edges.strength.max(initial=0.0)), np.finfo(float).tiny)
    for x, y, score in reversed(list(zip(xs, ys, edges.score, strict=True))):
        share = abs(float(score)) / largest
        width, opacity = next((width, opacity) for least, width, opacity in look.LEVELS if share >= least)
        points = " ".join("{:.1f},{:.1f}".format(*at(*one)) for one in zip(x[:-1], y[:-1], strict=True))
        colour = theme.NEGATIVE if score < 0 else theme.POSITIVE
        yield (
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" opacity="{opacity}"/>'
        )

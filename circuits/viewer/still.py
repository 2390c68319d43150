"""What shows a circuit where scripts are blocked: a still picture and a table, as HTML without scripts."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from circuits.circuit import Circuit
from circuits.viewer import look
from circuits.viewer.adjacency import Adjacency, adjacency
from circuits.viewer.layout import curves, edge_ends, node_position, row_labels
from circuits.viewer.sketch import TALL, WIDE, Line, Mark, Place, Sketch, Words
from interp import theme

DRAWN = 200  # edges, the strongest
LISTED = 20  # rows of the table
POINTS = 12
_MARGIN = (64, 24)  # pixels left and above


def still(sketch: Sketch, frame: pd.DataFrame) -> str:
    """A sketch as one image of a data address, and the first rows of a table."""
    picture = sketch.image("svg+xml", sketch.svg().encode())
    return f"<p>{html.escape(sketch.told)}</p>{picture}{still_table(frame)}"


def still_table(frame: pd.DataFrame) -> str:
    """The first rows of a table, as text."""
    return str(frame.head(LISTED).to_html(index=False, border=0, float_format=lambda value: f"{value:+.4g}"))


def circuit_sketch(circuit: Circuit, edges: Adjacency | None = None) -> Sketch:
    """The strongest edges of a circuit: rows are layers, columns heads; `edges` are its own, strongest first."""
    edges = (adjacency(circuit.at_any_position(), DRAWN) if edges is None else edges).first(DRAWN)
    graph, nodes = circuit.graph, list(circuit.nodes)
    sketch = Sketch(
        f"The {len(edges.score):,} strongest of {edges.total:,} edges: rows are layers, blue helps, orange hurts."
    )
    # whatever numbers the layout has are stretched over the picture
    places = {name: node_position(name, graph) for name in (*graph.sources, "logits")}
    across = np.array([x for x, _ in places.values()])
    to_x = (WIDE - _MARGIN[0] - 90) / max(float(np.ptp(across)) + look.BEND["margin"], 1.0)
    to_y = (TALL - 2 * _MARGIN[1] - 16) / (graph.n_layers + 1)

    def at(x: float, y: float) -> Place:
        return _MARGIN[0] + (x - across.min()) * to_x, TALL - _MARGIN[1] - (y + 1) * to_y

    sketch.add(_lines(edges, circuit, at))
    for row, name in zip(*row_labels(graph), strict=True):
        sketch.add([Words((_MARGIN[0] - 22, at(0.0, row)[1] + 4), name, "end")])
    for name in nodes:
        x, y = at(*places[name])
        sketch.add([Mark((x, y), 4.5)])
        if name not in ("input", "logits") and len(nodes) <= DRAWN:
            sketch.add([Words((x + 6, y - 5), name, size=10)])
    return sketch


def _lines(edges: Adjacency, circuit: Circuit, at: Callable[[float, float], Place]) -> Iterator[Line]:
    """The weakest first, so that the strongest lie on top."""
    xs, ys = curves(edge_ends(edges, circuit.graph), circuit.graph, POINTS)
    largest = max(float(edges.strength.max(initial=0.0)), np.finfo(float).tiny)
    for x, y, score in reversed(list(zip(xs, ys, edges.score, strict=True))):
        width, opacity = look.level(abs(float(score)) / largest)
        places = [at(*one) for one in zip(x[:-1].tolist(), y[:-1].tolist(), strict=True)]
        yield Line(places, theme.NEGATIVE if score < 0 else theme.POSITIVE, width, opacity)

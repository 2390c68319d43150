"""Where nodes and edges of a circuit are drawn: rows are layers, columns are heads, MLPs at the right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from circuits.links import node_layer
from circuits.viewer.adjacency import Adjacency
from circuits.viewer.look import BEND, PORT_OFFSETS
from interp.graph import ComputationalGraph

MLP_GAP = 0.5  # columns between the last head and the MLPs
MLP_LIFT = 0.45  # rows from a layer's heads up to its MLP, which comes after them


def node_position(name: str, graph: ComputationalGraph) -> tuple[float, float]:
    """Column and row of a node."""
    row = float(node_layer(name, graph))
    if name in ("input", "logits"):
        return (graph.n_heads - 1 + MLP_GAP) / 2, row
    if name.startswith("m"):
        # in a parallel block the MLP does not read the heads of its layer: it stands beside them
        return graph.n_heads + MLP_GAP, row + (0 if graph.parallel else MLP_LIFT)
    return float(name.partition(".h")[2]), row


def edge_ends(edges: Adjacency, graph: ComputationalGraph) -> Float[np.ndarray, "edge 4"]:
    """The start and the end of each edge as x0, y0, x1, y1; an edge into a head lands at its port."""
    places = np.array([node_position(name, graph) for name in (*graph.sources, "logits")])
    offsets = np.array([PORT_OFFSETS[name[-2]] if name.endswith(">") else 0.0 for name in graph.targets])
    ends = np.hstack([places[edges.source], places[edges.reader]])
    ends[:, 2] += offsets[edges.target]
    return ends


def curves(
    ends: Float[np.ndarray, "edge 4"], graph: ComputationalGraph, points: int
) -> tuple[Float[np.ndarray, "edge points+1"], Float[np.ndarray, "edge points+1"]]:
    """Each edge as `points` points of a curve that leaves and arrives upright, then a NaN that lifts the pen.

    Edges within a column bend aside, else they would hide behind the nodes between their ends: MLPs have the
    free margin on the right, heads half a column.
    """
    t = (1 - np.cos(np.linspace(0, np.pi, points))) / 2  # denser at the ends, where the curve bends
    x0, y0, x1, y1 = (column[:, None] for column in ends.T)
    rise = np.abs(y1 - y0)
    straight = np.clip(1 - np.abs(x1 - x0) / BEND["near"], 0, 1) * (rise > 1)
    room = np.where(x0 >= graph.n_heads, BEND["margin"], BEND["room"])
    bend = straight * room * np.minimum(1, np.sqrt(rise / max(BEND["rows"], graph.n_layers)))
    smooth = t * t * (3 - 2 * t)
    x = x0 + (x1 - x0) * smooth + bend * 4 * t * (1 - t)
    y = y0 + (y1 - y0) * t
    gap = np.full((len(ends), 1), np.nan)
    return np.hstack([x, gap]), np.hstack([y, gap])


def row_labels(graph: ComputationalGraph) -> tuple[list[int], Sequence[str]]:
    """Rows with a label, thinned out in deep models, and their labels; input and logits have one always."""
    step = 1 if graph.n_layers <= 40 else 2 if graph.n_layers <= 80 else 5
    layers = list(range(0, graph.n_layers, step))
    return [-1, *layers, graph.n_layers], ["input", *map(str, layers), "logits"]


def column_labels(graph: ComputationalGraph) -> tuple[list[float], Sequence[str]]:
    """Columns with a label, thinned out in wide models, and their labels; MLPs have one always."""
    step = 1 if graph.n_heads <= 32 else 4
    heads = list(range(0, graph.n_heads, step))
    return [*map(float, heads), graph.n_heads + MLP_GAP], [*(f"h{head}" for head in heads), "MLP"]

"""What the page holds: the graph, its edges as base64 arrays, layouts, the curve, and the views of one prompt."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from circuits.circuit import Circuit
from circuits.found import Found
from circuits.viewer.adjacency import Adjacency
from circuits.viewer.layout import MLP_GAP, column_labels, node_position, row_labels
from circuits.viewer.linked import LinkedViews, linked_views
from circuits.viewer.positions import (
    PositionLayout,
    check_positions,
    has_slope,
    position_layout,
    scores_by_position,
)
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.setting import Setting
from interp.tasks.task import Task

EMBEDDED_LIMIT = 200_000  # edges in a page: 2.7 MB, so that all data stay below 5 MB
CURVE_COLUMNS = ("edges", "faithfulness", "low", "high")


def page_data(
    circuit: Circuit,
    edges: Adjacency,
    *,
    model: Any = None,
    task: Task | None = None,
    example: int = 0,
    positions: ArrayLike | None = None,
    curve: Any = None,
) -> dict[str, Any]:
    """Everything about one circuit that the page's scripts read, as JSON can hold it."""
    if (model is None) != (task is None):
        raise InputError("model and task go together: the page runs one prompt of the task through the model")
    graph = circuit.graph
    linked = None
    if model is not None and task is not None:
        check_model(model, circuit)
        linked = linked_views(model, task, _strongest_nodes(circuit, edges), example)
        judged = Setting.of(model, task, {}, circuit)
        if positions is None and has_slope(judged.goal):
            # the mean of one prompt is that prompt: means are no ablation of it
            ablation = "patch" if "mean" in str(judged.ablation) else str(judged.ablation)
            own = task.with_objective(judged.goal)
            positions = scores_by_position(model, own, example, ablation=ablation)
    scores = None if positions is None else check_positions(positions, graph)
    tokens = None if linked is None else linked.clean
    return {
        "nodes": [*graph.sources, "logits"],
        "targets": list(graph.targets),
        "edges": packed_edges(edges),
        "layers": graph.n_layers,
        "layouts": {
            "layer": _layer_layout(circuit),
            "position": None if scores is None else _position_layout(circuit, scores, tokens),
        },
        "curve": _curve(circuit, curve),
        "linked": None if linked is None else _linked(linked),
        "provenance": {key: circuit.provenance[key] for key in ("model", "task", "method", "seed", "created")},
    }


def packed(values: ArrayLike, dtype: Any) -> str:
    """An array as base64 of its little-endian bytes."""
    array = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode("ascii")


def packed_edges(edges: Adjacency) -> dict[str, Any]:
    """The edges as the page's scripts take them."""
    return {
        "source": packed(edges.source, np.uint16),
        "reader": packed(edges.reader, np.uint16),
        "target": packed(edges.target, np.uint16),
        "score": packed(edges.score, np.float32),
        "total": edges.total,
    }


def check_model(model: Any, circuit: Found) -> None:
    """Raise `InputError` for a model of another graph than the circuit's."""
    own, given = circuit.graph, ComputationalGraph.of(model, kv=circuit.graph.kv)
    if own != given:
        raise InputError(f"model has another graph than the circuit: {given}, {own}; give the model it was found in")


def _strongest_nodes(circuit: Circuit, edges: Adjacency) -> list[str]:
    """The circuit's nodes by the sum of |score| of their edges: what is shown of them first."""
    names = [*circuit.graph.sources, "logits"]
    weight = np.zeros(len(names))
    np.add.at(weight, edges.source, np.abs(edges.score))
    np.add.at(weight, edges.reader, np.abs(edges.score))
    present = set(circuit.nodes)
    return [names[index] for index in np.argsort(-weight, kind="stable") if names[index] in present]


def _layer_layout(circuit: Circuit) -> dict[str, Any]:
    graph = circuit.graph
    places = [node_position(name, graph) for name in (*graph.sources, "logits")]
    rows, row_names = row_labels(graph)
    columns, column_names = column_labels(graph)
    return {
        "x": [x for x, _ in places],
        "y": [y for _, y in places],
        "columns": [columns, list(column_names)],
        "rows": [rows, list(row_names)],
        "xRange": [-0.8, graph.n_heads + MLP_GAP + 1.9],
        "yRange": [-1.7, graph.n_layers + 0.7],
        "margin": graph.n_heads,  # from this column on an edge that stays in it has room to bend
    }


def _position_layout(
    circuit: Circuit, scores: Float[np.ndarray, "node pos"], tokens: list[str] | None
) -> dict[str, Any]:
    length = scores.shape[1]
    names = tokens if tokens is not None and len(tokens) == length else [str(place) for place in range(length)]
    return layout_data(position_layout(circuit, scores), circuit.graph, len(circuit.graph.sources) + 1, names)


def layout_data(
    layout: PositionLayout, graph: ComputationalGraph, n_nodes: int, names: Sequence[str]
) -> dict[str, Any]:
    """A layout by columns of these names, as the page's scripts take it."""
    rows, row_names = row_labels(graph)
    places = [layout.main.get(node) for node in range(n_nodes)]
    return {
        "x": [None if place is None else round(layout.x[place], 4) for place in places],
        "y": [None if place is None else layout.y[place] for place in places],
        "marks": {
            "node": layout.node,
            "position": layout.position,
            "x": [round(x, 4) for x in layout.x],
            "y": layout.y,
            "score": [float(f"{score:.6g}") for score in layout.score],
        },
        "columns": [layout.columns, list(names)],
        "rows": [rows, list(row_names)],
        "xRange": [-0.3, layout.width + 0.3],
        "yRange": [-1.7, graph.n_layers + 0.7],
        "margin": layout.width,
    }


def _curve(circuit: Circuit, curve: Any) -> list[dict[str, float]]:
    """Points of a faithfulness curve by edges: what was given, or the report's ladder."""
    rows = circuit.report.ladder if curve is None else _rows(curve)
    points = [{key: row[key] for key in CURVE_COLUMNS if row.get(key) is not None} for row in rows]
    known = [point for point in points if {"edges", "faithfulness"} <= point.keys()]
    if curve is not None and not known:
        raise InputError("curve has no rows with edges and faithfulness; give what metrics.faithfulness_curve returns")
    # where one prompt has no interval, the point stays
    finite = [{key: value for key, value in point.items() if math.isfinite(value)} for point in known]
    return sorted((one for one in finite if {"edges", "faithfulness"} <= one.keys()), key=lambda one: one["edges"])


def _rows(curve: Any) -> Iterable[dict[str, Any]]:
    frame = curve.to_frame() if hasattr(curve, "to_frame") else pd.DataFrame(curve)
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _linked(views: LinkedViews) -> dict[str, Any]:
    return {
        "example": views.example,
        "clean": views.clean,
        "corrupted": views.corrupted,
        "correct": views.correct,
        "incorrect": views.incorrect,
        "heads": views.heads,
        "patterns": packed(views.patterns, np.uint8),
        "leftOut": views.left_out,
        "effects": {
            name: {
                "direct": _short(effect.direct),
                "promotes": [[token, _short(value)] for token, value in effect.promotes],
                "suppresses": [[token, _short(value)] for token, value in effect.suppresses],
            }
            for name, effect in views.effects.items()
        },
        "logits": _short(views.logits),
        "rest": _short(views.rest),
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")

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
from circuits.viewer.knocked import knocked
from circuits.viewer.layout import MLP_GAP, column_labels, node_position, row_labels
from circuits.viewer.measuring import Prompts, measured, prompts_of
from circuits.viewer.positions import (
    PositionLayout,
    check_positions,
    has_slope,
    position_layout,
    scores_by_position,
)
from circuits.viewer.quality import other_prompts, quality
from circuits.viewer.shown_prompts import Shown, shown_prompts
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.tasks.task import Task

EMBEDDED_LIMIT = 200_000  # edges in a page: 2.7 MB, so that all data stay below 5 MB
CURVE_COLUMNS = ("edges", "faithfulness", "low", "high", "random", "random_low", "random_high")


def page_data(
    circuit: Circuit,
    edges: Adjacency,
    *,
    model: Any = None,
    task: Task | None = None,
    example: int = 0,
    positions: ArrayLike | None = None,
    curve: Any = None,
    knock: Sequence[Sequence[str]] | None = (),
) -> dict[str, Any]:
    """Everything about one circuit that the page's scripts read, as JSON can hold it."""
    if (model is None) != (task is None):
        raise InputError("model and task go together: the page runs one prompt of the task through the model")
    graph = circuit.graph
    shown: list[Shown] = []
    prompts = None
    if model is not None and task is not None:
        check_model(model, circuit)
        prompts = prompts_of(model, task, circuit)
        nodes = _strongest_nodes(circuit, edges)
        shown = shown_prompts(model, task, nodes, [name for name in graph.sources if name not in nodes], example)
        judged = prompts.setting
        if positions is None and has_slope(judged.goal):
            # the mean of one prompt is that prompt: means are no ablation of it
            ablation = "patch" if "mean" in str(judged.ablation) else str(judged.ablation)
            own = task.with_objective(judged.goal)
            positions = scores_by_position(model, own, example, ablation=ablation)
    scores = None if positions is None else check_positions(positions, graph)
    tokens = shown[0].views.clean if shown else None
    return {
        "nodes": [*graph.sources, "logits"],
        "targets": list(graph.targets),
        "edges": packed_edges(edges),
        "layers": graph.n_layers,
        "layouts": {
            "layer": _layer_layout(circuit),
            "position": None if scores is None else _position_layout(circuit, scores, tokens),
        },
        **_curves(circuit, edges, prompts, curve),
        "quality": quality(circuit),
        "notes": [note] if (note := other_prompts(circuit, task)) else [],
        "linked": _linked(shown[0]) if shown else None,
        "others": [_linked(one) for one in shown[1:]],
        "knocked": None if prompts is None or knock is None else _knocked(circuit, prompts, nodes, knock),
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
        "chosen": edges.chosen,
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
        "opening": layout.opening,
        "yRange": [-1.7, graph.n_layers + 0.7],
        "margin": layout.width,
    }


def _curves(circuit: Circuit, edges: Adjacency, prompts: Prompts | None, given: Any) -> dict[str, Any]:
    """The faithfulness curve by edges, whose it is, and the sizes that the search visited where others are drawn.

    It is what was given, or what is measured for the slider where there are prompts, or what the search visited.
    """
    visited = _points(circuit.report.ladder)
    if given is not None:
        points = _points(_rows(given))
        if not points:
            raise InputError(
                "curve has no rows with edges and faithfulness; give what metrics.faithfulness_curve returns"
            )
        return {"curve": points, "curveOf": "the curve that was given", "visited": []}
    if prompts is not None and "flattened" not in circuit.provenance:  # by position it runs otherwise
        of = f"{len(prompts.setting):,} {prompts.of}"
        return {"curve": measured(circuit, edges, prompts), "curveOf": of, "visited": visited if prompts.same else []}
    n = circuit.report.n_scoring
    return {"curve": visited, "curveOf": f"{'' if n is None else f'{n:,} '}scoring prompts", "visited": []}


def _points(rows: Iterable[dict[str, Any]]) -> list[dict[str, float]]:
    """Points of a curve, by edges; where one prompt has no interval, the point stays."""
    points = [{key: row[key] for key in CURVE_COLUMNS if row.get(key) is not None} for row in rows]
    finite = [{key: value for key, value in point.items() if math.isfinite(value)} for point in points]
    return sorted((one for one in finite if {"edges", "faithfulness"} <= one.keys()), key=lambda one: one["edges"])


def _rows(curve: Any) -> Iterable[dict[str, Any]]:
    frame = curve.to_frame() if hasattr(curve, "to_frame") else pd.DataFrame(curve)
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _knocked(circuit: Circuit, prompts: Prompts, nodes: list[str], sets: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What the objective loses without nodes; the input is none, and the logits are what is measured."""
    place = {name: index for index, name in enumerate(circuit.graph.sources) if name != "input"}
    return knocked(prompts, "node", None, place, [name for name in nodes if name in place], sets)


def _linked(shown: Shown) -> dict[str, Any]:
    views = shown.views
    return {
        "example": views.example,
        "clean": views.clean,
        "corrupted": views.corrupted,
        "correct": views.correct,
        "incorrect": views.incorrect,
        "heads": views.heads,
        "patterns": packed(views.patterns, np.uint8),
        "corruptedPatterns": packed(shown.corrupted, np.uint8),
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

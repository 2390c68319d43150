"""What the page of an attribution graph holds: nodes as columns, links as base64 arrays, and what is known of nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from circuits.tracing.graph import AttributionGraph
from circuits.tracing.viewer.contexts import Context
from circuits.viewer.data import packed
from circuits.viewer.promoted import Moved
from metrics.agreement_table import AgreementTable

EMBEDDED_LIMIT = 20_000  # links, of which a page cuts off what it does not show; of more it holds what `prune()` keeps
_ENDS = ("", "_low", "_high")
DEFAULTS = {"nodes": 0.8, "edges": 0.98}  # of `AttributionGraph.prune`


def graph_data(graph: AttributionGraph) -> dict[str, Any]:
    """The graph as JSON can hold it. Biases are no nodes of the page: each node has what they add up to."""
    small = graph if graph.pruned or _n_links(graph) <= EMBEDDED_LIMIT else graph.prune()
    kept = (small.nodes["kind"] != "bias").to_numpy()
    rows = small.nodes[kept]
    weights = small.adjacency.double().numpy()
    links = weights[kept][:, kept]
    target, source = np.nonzero(links)
    texts = _texts(small)
    return {
        "nodes": {
            **{name: rows[name].tolist() for name in ("name", "kind", "layer", "position", "unit")},
            **{name: [_short(value) for value in rows[name]] for name in ("activation", "influence", "score")},
            "text": [texts.get(name, "") for name in rows["name"]],
            "weight": small.weights.double().numpy()[kept].tolist(),
            "magnitude": _magnitudes(small)[kept].tolist(),
            "bias": None if graph.pruned else [_short(value) for value in weights[kept][:, ~kept].sum(1)],
        },
        "links": {
            "source": packed(source, np.uint16),
            "target": packed(target, np.uint16),
            "weight": packed(links[target, source], np.float32),
            "total": _n_links(graph),
        },
        "tokens": graph.tokens,
        "layers": int(small.nodes.loc[small.nodes["kind"] == "logit", "layer"].max()),
        "pruned": small.pruned,
        "defaults": DEFAULTS,
        "groups": [
            {"label": name, "nodes": members} for name, members in graph.settings.get("supernodes", {}).items()
        ],
        "scores": {"replacement": _short(graph.replacement_score), "completeness": _short(graph.completeness_score)},
        "provenance": {"model": graph.model, "prompt": graph.tokens, "targets": graph.target_tokens},
    }  # fmt: skip


def _n_links(graph: AttributionGraph) -> int:
    biases = (graph.nodes["kind"] == "bias").to_numpy()
    return int((graph.adjacency.numpy()[:, ~biases] != 0).sum())


def _magnitudes(graph: AttributionGraph) -> Float[np.ndarray, " node"]:
    """What rows are normalised by; of graphs that do not know, what they show."""
    known, shown = graph.magnitude.double().numpy(), graph.adjacency.abs().double().sum(1).numpy()
    return np.where(known > 0, known, shown)


def _texts(graph: AttributionGraph) -> dict[str, str]:
    texts = {f"token@{i}": token for i, token in enumerate(graph.tokens)}
    return texts | {f"logit{i}": token for i, token in enumerate(graph.target_tokens)}


def moved_data(moved: Mapping[str, tuple[Moved, Moved]]) -> dict[str, Any]:
    """Promoted and suppressed tokens, by node."""
    return {name: [[[token, _short(value, 3)] for token, value in end] for end in ends] for name, ends in moved.items()}


def context_data(found: Mapping[str, list[Context]]) -> dict[str, Any]:
    """Activations, places and tokens, by node; nodes that are active nowhere have an empty list."""
    return {
        name: [
            [_short(one.activation, 4), one.prompt, one.position, one.before, one.token, one.after] for one in contexts
        ]
        for name, contexts in found.items()
    }


def measured_data(table: AgreementTable) -> dict[str, Any]:
    """What silencing was predicted to do and did, by unit, and how well the two agree, by group.

    Points of a group that is not called top are drawn as random ones, whose units the graph need not show.
    """
    points, frame = table.points, table.to_frame()
    frame = frame[frame["dropped"] == 0]
    groups = points[table.column] if table.column else ["top"] * len(points)
    name = str(frame["method"].iloc[0])
    rows = [
        [str(row["label"]), _short(row[name]), _short(row["reference"]), str(group)]
        for row, group in zip(points.to_dict("records"), groups, strict=True)
    ]
    agreed = [
        [str(row.get(table.column, "top")), int(row["n"]), *(_short(row[f"pearson{end}"], 3) for end in _ENDS)]
        for row in frame.to_dict("records")
    ]
    return {"points": rows, "agreement": agreed, "confidence": table.confidence}


def _short(value: float, digits: int = 6) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None

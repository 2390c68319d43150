"""What the page of a circuit of nodes holds: nodes as columns, sums by row, the report, and what is known of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from circuits.node_circuit import NodeCircuit
from circuits.report import Report
from circuits.viewer.data import packed
from circuits.viewer.nodes.known import Known
from circuits.viewer.nodes.standing import GRID_LEVELS, Standing, grid, standing
from circuits.viewer.promoted import Moved

EMBEDDED_LIMIT = 20_000  # nodes in a page, the strongest: half a megabyte


def node_data(circuit: NodeCircuit, known: Known) -> dict[str, Any]:
    """The circuit as JSON can hold it; of more nodes than a page has room for the strongest. Sums are over all."""
    nodes = standing(circuit, EMBEDDED_LIMIT)
    held = slice(len(nodes.names))
    return {
        "level": circuit.level,
        "rows": {"name": nodes.rows, **{name: values.tolist() for name, values in nodes.sums().items()}},
        "nodes": {
            "name": nodes.names,
            "row": packed(nodes.row[held], np.uint16),
            "unit": packed(nodes.unit[held], np.uint32),
            "span": None if nodes.span is None else packed(nodes.span[held], np.uint16),
            "score": packed(nodes.score[held], np.float32),
            "total": len(nodes),
            "mass": float(np.abs(nodes.score).sum()),
        },
        "spans": None if circuit.spans is None else _spans(circuit.spans, nodes, known.clean),
        "grid": _grid(circuit) if circuit.level in GRID_LEVELS else None,
        "known": _known(known),
        "report": _report(circuit.report),
        "provenance": _provenance(circuit),
    }


def _spans(spans: tuple[int | str, ...], nodes: Standing, tokens: list[str]) -> dict[str, Any]:
    """The positions that are told apart, what stands there in the prompt that was run, and the sums of each."""
    assert nodes.span is not None
    positive = np.where(nodes.score > 0, nodes.score, 0.0)
    count = len(spans)
    return {
        "position": list(spans),
        "token": [tokens[place] if isinstance(place, int) and place < len(tokens) else None for place in spans],
        "nodes": np.bincount(nodes.span, minlength=count).tolist(),
        "helps": np.bincount(nodes.span, weights=positive, minlength=count).tolist(),
        "hurts": np.bincount(nodes.span, weights=nodes.score - positive, minlength=count).tolist(),
    }


def _grid(circuit: NodeCircuit) -> dict[str, Any]:
    scores, inside = grid(circuit)
    return {
        "heads": circuit.graph.n_heads,
        "units": scores.shape[1],
        "score": packed(scores, np.float32),
        "inside": packed(inside, np.uint8),
    }


def _known(known: Known) -> dict[str, Any]:
    """Values to a few digits: thousands of them stand in a page."""
    return {
        "moved": {name: [_moved(end) for end in ends] for name, ends in known.moved.items()},
        "direct": {name: _short(value) for name, value in known.direct.items()},
        "activations": {
            name: [[_short(value) for value in run] for run in runs] for name, runs in known.activations.items()
        },
        "example": known.example,
        "clean": known.clean,
        "corrupted": known.corrupted,
    }


def _moved(tokens: Moved) -> list[tuple[str, float]]:
    return [(token, _short(value, 3)) for token, value in tokens]


def _report(report: Report) -> dict[str, Any]:
    """The report as lines, its intervals as points to draw, and its ladder."""
    points = {
        "circuit": (report.faithfulness, report.interval),
        f"random {report.level}s": (report.random_faithfulness, report.random_interval),
        "all but the circuit": (report.complement, report.complement_interval),
    }
    return {
        "lines": list(report.rows()),
        "points": [[name, value, interval] for name, (value, interval) in points.items() if value is not None],
        "ladder": [
            [row["nodes"], row["faithfulness"]]
            for row in report.ladder
            if row.get("nodes") and row.get("faithfulness") is not None
        ],
    }


def _provenance(circuit: NodeCircuit) -> list[tuple[str, str]]:
    """Where the circuit came from, in lines."""
    of, setting = circuit.provenance, circuit.setting
    task = of["task"]
    versions = of["versions"] or {}
    lines = {
        "model": of["model"],
        "task": task.get("name") if isinstance(task, dict) else task,
        "method": of["method"],
        "selection": of.get("selection"),
        "ablation": setting.ablation,
        "objective": setting.to_dict().get("objective"),
        "seed": of["seed"],
        "created": of["created"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [(name, str(value)) for name, value in lines.items() if value not in (None, "")]


def _short(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")

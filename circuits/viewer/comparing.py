"""Two circuits in one page: every edge of either, coloured by which of them has it."""

from __future__ import annotations

import os
from typing import Any, TypedDict, Unpack

import numpy as np

from circuits.beside import BOTH, HERE, THERE, Beside
from circuits.circuit import Circuit, CircuitComparison
from circuits.node_circuit import NodeCircuit
from circuits.node_comparison import NodeComparison
from circuits.report import with_interval
from circuits.viewer.data import EMBEDDED_LIMIT, check_model, packed, page_data
from circuits.viewer.figures import union
from circuits.viewer.headings import facts, title
from circuits.viewer.measuring import both_measured, prompts_of
from circuits.viewer.page import circuit_shell
from circuits.viewer.shell import show_page
from circuits.viewer.still import circuit_sketch, still
from interp.errors import InputError
from interp.keywords import check_keywords
from interp.tasks.task import Task


def compare(
    here: Circuit | NodeCircuit, there: Circuit | NodeCircuit, names: tuple[str, str] = ("here", "there")
) -> Beside:
    """Two circuits of the same edges or nodes: `compare(a, b).show()`, `.to_frame()`, `.jaccard`.

    See `CircuitComparison` and `NodeComparison`. Raises `InputError` for circuits of different things.
    """
    return here.compare(there, names)  # type: ignore[arg-type]  # refused there


class PromptKeywords(TypedDict, total=False):
    """What the page of two circuits is told beside them."""

    model: Any
    task: Task | None
    example: int


def comparison_to_html(
    comparison: CircuitComparison | NodeComparison,
    path: str | os.PathLike[str] | None = None,
    **views: Unpack[PromptKeywords],
) -> str:
    """The page that draws both circuits; edges are ordered by the larger of their two |scores|.

    With `model=` and `task=` it has prompts (the first is `example=`) as a circuit's page has, and the faithfulness of
    both circuits on the same ones. Of circuits by position their edges at any position are drawn, and the page says so.
    Of nodes: the page of `NodeComparison.to_html`. Raises `InputError` for a model that does not fit, and for one of
    model and task alone.
    """
    check_keywords("comparison_to_html", views, PromptKeywords)
    if isinstance(comparison, NodeComparison):
        if views:
            raise InputError(
                f"{next(iter(views))} is for circuits of edges; the page of two circuits of nodes has no prompts"
            )
        return comparison.to_html(path)
    both, edges = union(comparison, EMBEDDED_LIMIT)
    here, there = circuits = comparison.here, comparison.there
    other = there.scores.edge_values.double().numpy()
    model, task, rows = views.get("model"), views.get("task"), None
    if model is not None and task is not None and not any("flattened" in one.provenance for one in circuits):
        check_model(model, here)
        rows = both_measured(circuits, prompts_of(model, task, here))
    data = page_data(both, edges, **views, curve=rows, knock=None)
    data |= {"compare": _compared(comparison, edges.index, other, rows)}
    data["quality"] |= {"lines": [], "held": None}  # of one circuit: what is known of both stands in the comparison
    first, second = comparison.names
    heading = f"{first}: {title(here)} \N{EM DASH} {second}: {title(there)}"
    lines = [f"{name}: {', '.join(facts(circuit))}" for name, circuit in zip(comparison.names, circuits, strict=True)]
    shown = still(circuit_sketch(both, edges), both.to_frame())
    return circuit_shell().render(heading, [*lines, f"Jaccard {comparison.jaccard:.3f}"], data, path, shown)


def _compared(
    comparison: CircuitComparison, index: np.ndarray, other: np.ndarray, rows: list[dict[str, float]] | None
) -> dict[str, Any]:
    inside = [circuit.mask.numpy()[index[:, 0], index[:, 1]] for circuit in (comparison.here, comparison.there)]
    note = (
        "" if comparison.same_scale else "The scores are of different methods or objectives: they differ in scale too."
    )
    return {
        "names": list(comparison.names),
        "member": packed(np.select([inside[0] & inside[1], inside[0]], [0, 1], 2), np.uint8),
        "other": packed(other[index[:, 0], index[:, 1]], np.float32),
        "jaccard": comparison.jaccard,
        "counts": [comparison.counts[name] for name in (BOTH, HERE, THERE)],
        "note": note,
        "faithfulness": [_faithfulness(one) for one in (comparison.here, comparison.there)],
        "samePrompts": rows and [_told(row["faithfulness"], row.get("low"), row.get("high")) for row in rows],
    }


def _faithfulness(circuit: Circuit) -> str:
    report = circuit.report
    return _told(report.faithfulness, *(report.interval or (None, None)))


def _told(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not measured"
    return with_interval(value, None if low is None or high is None else (low, high))


def show_comparison(comparison: CircuitComparison, **views: Unpack[PromptKeywords]) -> None:
    """Show the page of `comparison_to_html`, in a notebook's cell or else in the browser."""
    both, edges = union(comparison, EMBEDDED_LIMIT)
    show_page(comparison_to_html(comparison, **views), circuit_sketch(both, edges))

"""Two circuits in one page: every edge of either, coloured by which of them has it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from circuits.beside import BOTH, HERE, THERE, Beside
from circuits.circuit import Circuit, CircuitComparison
from circuits.node_circuit import NodeCircuit
from circuits.node_comparison import NodeComparison
from circuits.viewer.data import EMBEDDED_LIMIT, packed, page_data
from circuits.viewer.figures import union
from circuits.viewer.headings import facts, title
from circuits.viewer.page import circuit_shell
from circuits.viewer.still import circuit_sketch, still


def compare(
    here: Circuit | NodeCircuit, there: Circuit | NodeCircuit, names: tuple[str, str] = ("here", "there")
) -> Beside:
    """Two circuits of the same edges or nodes: `compare(a, b).show()`, `.to_frame()`, `.jaccard`.

    See `CircuitComparison` and `NodeComparison`. Raises `InputError` for circuits of different things.
    """
    return here.compare(there, names)  # type: ignore[arg-type]  # refused there


def comparison_to_html(
    comparison: CircuitComparison | NodeComparison, path: str | os.PathLike[str] | None = None
) -> str:
    """The page that draws both circuits; edges are ordered by the larger of their two |scores|.

    Of nodes: the page of `NodeComparison.to_html`.
    """
    if isinstance(comparison, NodeComparison):
        return comparison.to_html(path)
    both, edges = union(comparison, EMBEDDED_LIMIT)
    here, there = comparison.here, comparison.there
    other = there.scores.edge_values.double().numpy()
    data = page_data(both, edges) | {"compare": _compared(comparison, edges.index, other)}
    first, second = comparison.names
    heading = f"{first}: {title(here)} \N{EM DASH} {second}: {title(there)}"
    lines = [f"{name}: {facts(circuit)[0]}" for name, circuit in zip(comparison.names, (here, there), strict=True)]
    shown = still(circuit_sketch(both, edges), both.to_frame())
    return circuit_shell().render(heading, [*lines, f"Jaccard {comparison.jaccard:.3f}"], data, path, shown)


def _compared(comparison: CircuitComparison, index: np.ndarray, other: np.ndarray) -> dict[str, Any]:
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
    }

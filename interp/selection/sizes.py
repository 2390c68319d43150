"""The sizes at which circuits are measured."""

from __future__ import annotations

from interp.graph import ComputationalGraph

LADDER_FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def ladder(graph: ComputationalGraph) -> tuple[int, ...]:
    """Circuit sizes at which MIB measures faithfulness: int(p n) for each of `LADDER_FRACTIONS`.

    In a graph of fewer than 1,000 edges the first sizes are 0 and sizes may repeat.

    >>> ladder(ComputationalGraph(n_layers=12, n_heads=12))
    (32, 64, 162, 324, 649, 1624, 3249, 6498, 16245, 32491)
    """
    return tuple(int(fraction * graph.n_edges) for fraction in LADDER_FRACTIONS)

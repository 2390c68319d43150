"""Scores by position: which spans a method tells apart in a setting, and whether they fit into memory."""

from __future__ import annotations

import os
from typing import Any

from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.setting import Setting
from interp.spans import Placed

_BYTES = 24  # of one score while it is found: the sum in float64, and a batch's beside it
_UNKNOWN = 8 << 30  # memory of a machine that does not say


def placed_in(setting: Setting, positions: Any) -> Placed | None:
    """The spans that `positions=` means; None where none are told apart.

    Raises `InputError` as `interp.spans.asked_spans` does, and for more spans than memory holds.
    """
    if positions is None:
        return None
    placed = setting.placed_at(positions)
    _check_memory(len(placed.spans), setting.graph, setting.run.memory)
    return placed


def told_of(placed: Placed | None) -> dict[str, Any]:
    """What scores remember of their spans: the spans, and which of them attention joins."""
    return {} if placed is None else {"spans": placed.spans, "span_order": placed.order().to_dict()}


def refuse_nodes(level: str, positions: Any) -> None:
    """Raise `InputError` for nodes by position, which others score."""
    if level == "node" and positions is not None:
        raise InputError(
            "level='node' and positions= do not go together here: give level='edge', or find circuits of nodes by "
            "position with find_circuit(level='node', positions=)"
        )


def _check_memory(n_spans: int, graph: ComputationalGraph, memory: int | None) -> None:
    needed = _BYTES * n_spans * graph.shape[0] * graph.shape[1]
    most = _half_of_memory() if memory is None else memory
    if needed > most:
        raise InputError(
            f"positions tells {n_spans:,} spans apart, and scores of {graph.shape[0]:,} sources x {graph.shape[1]:,} "
            f"targets at each take {needed / 2**30:,.2f} GiB, more than the {most / 2**30:,.2f} GiB that there are; "
            "name fewer positions, or spans of several"
        )


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN

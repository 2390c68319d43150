"""What a trace takes, before it is made: operations, memory, and seconds at the speed of a matrix product."""

from __future__ import annotations

import time
from dataclasses import dataclass

from attribution.tracing.components import Components
from attribution.tracing.held import Held
from attribution.tracing.units import Units


@dataclass(frozen=True)
class TraceCost:
    """What `circuits.trace` will take, about.

    Attributes:
        rows: of units and logits.
        candidates: units among which those that are shown are chosen.
        operations: floating-point operations of the rows.
        bytes: what is held of the rows; the model and one batch of gradients come on top.
        seconds: the operations at the speed of a matrix product of the model's width, measured for some milliseconds.
    """

    rows: int
    candidates: int
    operations: float
    bytes: float
    seconds: float

    def __str__(self) -> str:
        size = f"{self.rows:,} rows over {self.candidates:,} units"
        return f"{size}: about {self.seconds:.0f} s and {self.bytes / 1e9:.2f} GB"


def row_operations(held: Held) -> float:
    """Of one row through one layer: the output and value matrices and the pattern of held attention."""
    anatomy, length = held.anatomy, held.n_positions
    queries, values = anatomy.n_heads * anatomy.d_head, anatomy.n_kv_heads * anatomy.d_head
    return 2.0 * length * (anatomy.d_model * (queries + values) + queries * length)


def estimate(units: Units, n_rows: int, n_candidates: int, counted: bool) -> TraceCost:
    """Of rows that pass all layers; `counted`: whether all units of a layer are counted beside the candidates."""
    held = units.held
    anatomy, length = held.anatomy, held.n_positions
    if isinstance(units, Components):  # nothing lies between them
        heads = anatomy.n_heads * anatomy.d_head
        each = 2.0 * (anatomy.d_model * (heads + length) + length * heads) * held.n_layers
    else:
        width = max(map(units.width, range(held.n_layers))) if counted else 0
        beside = 2.0 * length * anatomy.d_model * width
        each = (row_operations(held) + beside) * held.n_layers + 2.0 * anatomy.d_model * n_candidates
    operations = n_rows * each
    held_bytes = float(n_rows * (n_candidates + n_rows + length) * held.words.element_size())
    return TraceCost(n_rows, n_candidates, operations, held_bytes, operations * _seconds_each(held))


def _seconds_each(held: Held) -> float:
    """Of an operation in a matrix product of the model's width."""
    like, width = held.words, held.anatomy.d_model
    a, b = like.new_ones(512, width), like.new_ones(width, width)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        float((a @ b)[0, 0])  # waits for a GPU
        taken.append(time.perf_counter() - started)
    return min(taken) / (2 * 512 * width * width)

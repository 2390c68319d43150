"""What a trace takes, before it is made: operations, memory, and seconds at the speed of a matrix product."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from attribution.tracing.held import Held


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of the rows, and the bytes that are held of them."""

    operations: float
    bytes: float
    held: Held

    def seconds(self) -> float:
        """At the speed of a matrix product of the model's width, which is measured in a few milliseconds."""
        like, width = self.held.words, self.held.anatomy.d_model
        a, b = like.new_ones(512, width), like.new_ones(width, width)
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            product = a @ b
            if product.is_cuda:
                torch.cuda.synchronize(product.device)
            taken.append(time.perf_counter() - started)
        return self.operations * min(taken) / (2 * 512 * width * width)


def row_operations(held: Held) -> float:
    """Of one row through one layer: the output and value matrices and the pattern of held attention."""
    anatomy, length = held.anatomy, held.n_positions
    queries, values = anatomy.n_heads * anatomy.d_head, anatomy.n_kv_heads * anatomy.d_head
    return 2.0 * length * (anatomy.d_model * (queries + values) + queries * length)


def estimate(held: Held, n_rows: int, n_candidates: int, width: int) -> Cost:
    """Of rows that pass all layers; `width`: how many units of a layer are counted beside the candidates, if any."""
    counted = 2.0 * held.n_positions * held.anatomy.d_model * width
    each = (row_operations(held) + counted) * held.n_layers + 2.0 * held.anatomy.d_model * n_candidates
    bytes_held = n_rows * (n_candidates + n_rows + held.n_positions) * held.words.element_size()
    return Cost(n_rows * each, float(bytes_held), held)

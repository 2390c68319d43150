"""The contraction of `eap` without a shared prefix, beside the bare matrix products that it is made of.

Two floors: the passes (two forwards and a backward of the unmodified model), and the products, timed on buffers of the
very shapes. What is left is the expansion of heads and ports to the width of the model, norms, and the kernels' own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from attribution import attribute
from benchmarks.common import Plain, contraction_timed, load, random_task
from interp import ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.contract import chunk_rows

SHAPES = ((8, 128), (8, 512))  # prompts and tokens
REPEATS, AIM = 3, 1.25


class Products:
    """The products of one contraction of some rows: each layer's ports, and the other targets, with the sources."""

    def __init__(self, model: Any, rows: int) -> None:
        anatomy, self.graph = anatomy_of(model), ComputationalGraph.of(model)
        self.n_layers, self.rows = anatomy.n_layers, rows
        sources = len(self.graph.sources)
        self.step = chunk_rows(anatomy, sources, rows, 4)
        self.ports = self.graph.targets_per_layer - 1
        width = self.step * anatomy.d_model
        self.expanded, self.reads = torch.randn(sources, width), torch.randn(self.ports, width)
        self.others = torch.randn(anatomy.n_layers + 1, width)

    def run(self) -> None:
        """All of them, chunk by chunk."""
        for _ in range(-(-self.rows // self.step)):
            for layer in range(self.n_layers):
                self.expanded[: self.graph.sources_before_attention(layer)] @ self.reads.T
            self.expanded @ self.others.T

    @property
    def operations(self) -> float:
        """Floating-point operations of what is needed, without the edges that causality leaves out."""
        seen = sum(self.graph.sources_before_attention(layer) for layer in range(self.n_layers))
        pairs = seen * self.ports + len(self.expanded) * len(self.others)
        return 2.0 * pairs * self.rows * (self.expanded.shape[1] // self.step)


def clock(work: Callable[[], Any]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def contracting(model: Any, task: Any) -> tuple[float, float]:
    """Seconds of `eap`, and of these those of the contraction."""
    with contraction_timed() as taken:
        whole = clock(lambda: attribute(model, task, "eap", quiet=True))
    return whole, sum(taken)


def row(model: Any, plain: Plain, n: int, length: int) -> None:
    """Print one shape."""
    task = random_task(n, length, model.cfg.d_vocab)
    prompts = task.prompts(model)
    products = Products(model, n * (length - 1))

    def passes() -> None:
        plain.forward(prompts.corrupted)
        plain.forward_backward(prompts.clean)

    kinds: list[list[float]] = [[], [], [], []]
    for repeat in range(REPEATS + 1):
        found = *contracting(model, task), clock(passes), clock(products.run)
        if repeat:
            for kind, seconds in zip(kinds, found, strict=True):
                kind.append(seconds)
    whole, contraction, floor, bare = map(statistics.median, kinds)
    print(
        f"{n} x {length:4d} tokens: eap {whole:6.2f} s = passes {whole - contraction:6.2f} + contraction "
        f"{contraction:6.2f}; floors {floor:6.2f} + {bare:6.2f} ({products.operations / bare / 1e9:.0f} GFLOP/s); "
        f"contraction over its products {contraction / bare:.2f}, all over both floors {whole / (floor + bare):.2f} "
        f"(aim {AIM})",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    model, plain = load()
    print("eap without a shared prefix, SmolLM2-135M (30 layers), random prompts that differ from the second token on")
    for n, length in SHAPES:
        row(model, plain, n, length)


if __name__ == "__main__":
    main()

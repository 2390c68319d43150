"""The contraction of `eap` without a shared prefix, beside the bare matrix products that it is made of.

Two floors: the passes (two forwards and a backward of the unmodified model), and the products, timed on buffers of the
very shapes. What is left is the expansion of heads and ports to the width of the model, norms, and the kernels' own.
The same with products in bfloat16, and their error. `python -m benchmarks.contraction PROMPTS TOKENS`: another shape.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from attribution import attribute
from benchmarks.common import Plain, contraction_timed, load, random_task
from benchmarks.half import Error
from interp import ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.contract import chunk_rows, group_sources, group_targets, layer_groups, most_targets

SHAPES = ((8, 128), (8, 512))  # prompts and tokens
REPEATS, AIM = 3, 1.25


class Products:
    """The products of one contraction of some rows: groups of layers' targets with the sources that they read."""

    def __init__(self, model: Any, rows: int) -> None:
        anatomy, self.graph = anatomy_of(model), ComputationalGraph.of(model)
        self.groups, self.rows = layer_groups(self.graph), rows
        self.d_model, self.d_head = anatomy.d_model, anatomy.d_head
        sources, targets = len(self.graph.sources), most_targets(self.graph)
        self.step = chunk_rows(anatomy, sources + targets, rows, 4)
        width = self.step * anatomy.d_model
        self.expanded, self.reads = torch.randn(sources, width), torch.randn(targets, width)

    def run(self) -> None:
        """All of them, chunk by chunk."""
        for _ in range(-(-self.rows // self.step)):
            for layers in self.groups:
                columns = group_targets(self.graph, layers)
                self.expanded[: group_sources(self.graph, layers)] @ self.reads[: columns.stop - columns.start].T

    @property
    def operations(self) -> float:
        """Floating-point operations of the edges alone, without what a group computes of pairs that are no edge."""
        return 2.0 * self.graph.n_edges * self.rows * self.d_model

    @property
    def expansion(self) -> float:
        """Operations that bring heads and ports to the width of the model."""
        vectors = self.graph.n_layers * (self.graph.n_heads + self.graph.targets_per_layer - 1)
        return 2.0 * vectors * self.rows * self.d_head * self.d_model


def now() -> float:
    """Seconds by the clock where there is a GPU; else of the processor, so that others on the machine count less."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def clock(work: Callable[[], Any]) -> float:
    """Seconds of one run."""
    started = now()
    work()
    return now() - started


def contracting(model: Any, task: Any, **told: Any) -> tuple[float, float]:
    """Seconds of `eap`, and of these those of the contraction."""
    with contraction_timed(now) as taken:
        whole = clock(lambda: attribute(model, task, "eap", quiet=True, **told))
    return whole, sum(taken)


def row(model: Any, plain: Plain, n: int, length: int) -> None:
    """Print one shape, in seconds and in forward passes of the unmodified model."""
    task = random_task(n, length, model.cfg.d_vocab)
    prompts = task.prompts(model)
    products = Products(model, n * (length - 1))
    kinds: list[list[float]] = [[] for _ in range(7)]
    for repeat in range(REPEATS + 1):
        found = (
            clock(lambda: plain.forward(prompts.corrupted)),
            clock(lambda: plain.forward_backward(prompts.clean)),
            clock(products.run),
            *contracting(model, task),
            *contracting(model, task, products="bfloat16"),
        )
        if repeat:
            for kind, seconds in zip(kinds, found, strict=True):
                kind.append(seconds)
    forward, both, bare, whole, contraction, _, rounded = map(statistics.median, kinds)
    floor = forward + both + bare
    needed, expanding = products.operations, products.expansion
    print(
        f"{n} x {length} tokens: eap {whole:.2f} s, {whole / forward:.2f} forward passes (of {forward:.2f} s), of them "
        f"contraction {contraction / forward:.2f}\n"
        f"  floors: passes {(forward + both) / forward:.2f}, products {bare / forward:.2f} at "
        f"{needed / bare / 1e9:.0f} GFLOP/s; eap over both {whole / floor:.2f} (aim {AIM})\n"
        f"  contraction: {needed / 1e9:.0f} GFLOP of products and {expanding / 1e9:.0f} of expansion, "
        f"{(needed + expanding) / contraction / 1e9:.0f} GFLOP/s; over its products {contraction / bare:.2f}",
        flush=True,
    )
    exact = attribute(model, task, "eap", quiet=True)
    other = attribute(model, task, "eap", products="bfloat16", quiet=True)
    error = Error.of(*(one.values[one.graph.edge_mask] for one in (other, exact)))
    print(f"  products in bfloat16: contraction {rounded / contraction:.2f} times as long; {error}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Print the table; of one shape where prompts and tokens are given."""
    model, plain = load()
    print("eap without a shared prefix, SmolLM2-135M (30 layers), random prompts that differ from the second token on")
    shapes = [(int(arguments[0]), int(arguments[1]))] if arguments else SHAPES
    for n, length in shapes:
        row(model, plain, n, length)


if __name__ == "__main__":
    main(sys.argv[1:])

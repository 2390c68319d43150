"""Time of edge scores over their floors: `eap` over two forwards and one backward, `eap-ig` with S steps over
one forward and S forwards and backwards, all of the unmodified model on whole prompts; rule sets over `eap`; scores
inside a circuit of half of the edges over the same floors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch

from attribution import attribute
from benchmarks.common import HEADER, Plain, Row, golden_task, interleave, line, load
from interp import ComputationalGraph

STEPS = 5


def rows(model: Any, plain: Plain) -> Iterator[Row]:
    """Each method beside its floor."""
    task = golden_task()
    prompts = task.prompts(model).to(next(plain.module.parameters()).device)

    def floor_eap() -> None:
        plain.forward(prompts.corrupted)
        plain.forward_backward(prompts.clean)

    def floor_ig() -> None:
        plain.forward(prompts.clean)
        for _ in range(STEPS):
            plain.forward_backward(prompts.clean)

    def score(method: str) -> None:
        attribute(model, task, method, quiet=True)

    graph = ComputationalGraph.of(model)
    half = graph.edge_mask & (torch.rand(graph.shape, generator=torch.Generator().manual_seed(0)) < 0.5)

    def inside(method: str, ablation: str = "patch", **settings: int) -> None:
        attribute(model, task, method, inside=half, ablation=ablation, quiet=True, **settings)

    yield "eap", interleave(lambda: attribute(model, task, "eap", quiet=True), floor_eap), "<= 1.5"
    yield "eap-ig, 5 steps", interleave(lambda: attribute(model, task, "eap-ig", quiet=True), floor_ig), "<= 1.3"
    yield "eap inside a circuit", interleave(functools.partial(inside, "eap"), floor_eap), "<= 3"
    yield "the same, zero ablation", interleave(functools.partial(inside, "eap", "zero"), floor_eap), ""
    yield "mask-ig inside, 5 steps", interleave(functools.partial(inside, "mask-ig", steps=STEPS), floor_ig), "<= 3"
    for method in ("relp", "attnlrp", "cp-lrp", "gim"):
        yield f"{method} over its floor", interleave(functools.partial(score, method), floor_eap), "<= 1.5"
        over = interleave(functools.partial(score, method), functools.partial(score, "eap"))
        yield f"{method} over eap", over, "<= 1.1"


def main() -> None:
    """Print the table."""
    print("Scoring 123,211 edges of SmolLM2-135M on 16 IOI prompts of 15 tokens")
    print(HEADER)
    for row in rows(*load()):
        line(*row)


if __name__ == "__main__":
    main()

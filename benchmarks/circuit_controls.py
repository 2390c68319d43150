"""SaCo and the recursive curve on SmolLM2-135M, against inverted and random scores.

    python -m benchmarks.circuit_controls [--tasks ioi agreement] [--prompts 16] [--random 5]

Scores are made on one half of the prompts and judged on the other. Rows "again" are scored again inside what is left
at each share, by gradients at what is left (`circuits.rescorer`); the others once, on the whole model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attribution import attribute
from circuits import rescorer
from interp import ComputationalGraph, load_model, tasks
from metrics.circuit.recursive import recursive_curve
from metrics.circuit.saco import circuit_saco

COLUMNS = ("task", "scores", "SaCo", "pooled", "dealt at random", "area", "log area", "left after 1 %", "s")


def static_scores(model: Any, task: Any) -> dict[str, Tensor]:
    """Scores of the whole model by name, with their controls."""
    graph = ComputationalGraph.of(model)
    values = {name: attribute(model, task, name, quiet=True).values for name in ("eap", "eap-ig")}
    values["mask-ig"] = attribute(model, task, "mask-ig", quadrature="midpoint", quiet=True).values
    values["eap-ig, inverted"] = -values["eap-ig"]
    noise = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0))
    values["random"] = noise * graph.edge_mask
    return values


def recursive_scores(model: Any, task: Any) -> dict[str, Callable[[Tensor], Tensor]]:
    """Callables that score inside what is left, by name, with their control."""
    again = rescorer(model, task, "eap")
    return {
        "eap, again": again,
        "mask-ig, again": rescorer(model, task, "mask-ig", quadrature="midpoint"),
        "eap, again, inverted": lambda left: -again(left),
    }


def print_rows(model: Any, name: str, n: int, random: int) -> None:
    """A row for each way of scoring."""
    task = getattr(tasks, name)(n=2 * n, seed=0, model=model)
    scored, judged = task.select(range(n)), task.select(range(n, 2 * n))
    ways: dict[str, Any] = {**static_scores(model, scored), **recursive_scores(model, scored)}
    for way, score in ways.items():
        started = time.perf_counter()
        curve = recursive_curve(model, judged, score, n_random=random, quiet=True)
        cells = ["", "", ""]
        if isinstance(score, Tensor):
            saco = circuit_saco(model, judged, score, n_random=random, quiet=True)
            cells = [str(saco.mean), str(saco.pooled), str(saco.random)]
        left = curve.points[curve.shares.index(0.01)]
        row = [name, way, *cells, str(curve.area), str(curve.log_area), str(left)]
        print(f"| {' | '.join([*row, f'{time.perf_counter() - started:.0f}'])} |", flush=True)
    shown = ", ".join(f"{share:.1%} {one}" for share, one in zip(curve.shares, curve.random, strict=True))
    print(f"\nFaithfulness of what random edges leave, {name}: {shown}\n", flush=True)


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["ioi", "agreement"], choices=tasks.names())
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--random", type=int, default=5, help="random orders and deals")
    chosen = parser.parse_args()
    model = load_model("smollm2-135m")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for name in chosen.tasks:
        print_rows(model, name, chosen.prompts, chosen.random)


if __name__ == "__main__":
    main()

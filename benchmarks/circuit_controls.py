"""SaCo and the recursive curve on SmolLM2-135M: `eap` and `eap-ig` against inverted and random scores, on two tasks.

    python -m benchmarks.circuit_controls [--prompts 16] [--random 5]

Scores are made on one half of the prompts and judged on the other. They are not made again inside what is left:
`removal_scores`, which would be, runs a circuit for every edge. The recursive curve of a tiny random model, where
that is affordable, is in the tests.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import pandas as pd
import torch

from attribution import attribute
from interp import ComputationalGraph, load_model, tasks
from metrics.circuit.recursive import recursive_curve
from metrics.circuit.saco import circuit_saco

TASKS = {"ioi": tasks.ioi, "agreement": tasks.agreement}


def scores_of(model: Any, task: Any) -> dict[str, torch.Tensor]:
    """Scores by name, with their controls."""
    graph = ComputationalGraph.of(model)
    values = {name: attribute(model, task, name, quiet=True).values for name in ("eap", "eap-ig")}
    values["eap-ig inverted"] = -values["eap-ig"]
    noise = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0))
    values["random"] = noise * graph.edge_mask
    return values


def rows_of(model: Any, name: str, n: int, random: int) -> list[dict[str, Any]]:
    """A row for each method."""
    task = TASKS[name](n=2 * n, seed=0, model=model)
    scored, judged = task.select(range(n)), task.select(range(n, 2 * n))
    rows = []
    for method, values in scores_of(model, scored).items():
        started = time.perf_counter()
        saco = circuit_saco(model, judged, values, random=random, quiet=True)
        curve = recursive_curve(model, judged, values, random=random, quiet=True)
        rows.append(
            {
                "task": name,
                "scores": method,
                "saco": str(saco.mean),
                "saco dealt at random": str(saco.random),
                "saco pooled": str(saco.pooled),
                "recursive area": str(curve.area),
                "recursive log area": str(curve.log_area),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--random", type=int, default=5, help="random orders and deals")
    chosen = parser.parse_args()
    model = load_model("smollm2-135m")
    rows = [row for name in TASKS for row in rows_of(model, name, chosen.prompts, chosen.random)]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()

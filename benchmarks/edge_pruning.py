"""Learned masks against the scores they start from, on SmolLM2-135M: faithfulness by size on held-out prompts.

python -m benchmarks.edge_pruning [--tasks ioi greater_than] [--prompts 32] [--share 0.01] [--steps 40]
"""

from __future__ import annotations

import argparse

import torch

from attribution import Schedule, attribute, edge_pruning
from interp import ComputationalGraph, load_model, tasks
from interp.selection import top_n
from metrics.circuit.evaluate import faithfulness, measure

SHARES = (0.002, 0.005, 0.01, 0.02, 0.05)


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["ioi", "greater_than"], choices=tasks.names())
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--share", type=float, default=0.01, help="of all edges, learned for")
    parser.add_argument("--steps", type=int, default=40)
    chosen = parser.parse_args()
    model = load_model("smollm2-135m")
    graph = ComputationalGraph.of(model)
    print(f"| task | scores | {' | '.join(f'{share:.1%}' for share in SHARES)} | s |\n|{' --- |' * (len(SHARES) + 3)}")
    for name in chosen.tasks:
        task = getattr(tasks, name)(n=2 * chosen.prompts, seed=0, model=model)
        scored, judged = task.select(range(chosen.prompts)), task.select(range(chosen.prompts, 2 * chosen.prompts))
        start = attribute(model, scored, "eap-ig", quiet=True)
        learned = edge_pruning(model, scored, chosen.share, start, schedule=Schedule(steps=chosen.steps), quiet=True)
        random = torch.rand(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.edge_mask
        rows = {"eap-ig": start.values, "edge-pruning": learned.values, "random": random}
        for label, values in rows.items():
            masks = torch.stack([top_n(values, graph, int(share * graph.n_edges)) for share in SHARES])
            found = [str(one) for one in faithfulness(measure(model, judged, masks, quiet=True))]
            seconds = {"eap-ig": start.seconds, "edge-pruning": learned.seconds}.get(label) or 0.0
            print(f"| {' | '.join([name, label, *found, f'{seconds:.0f}'])} |", flush=True)
        print(f"\nLoss of {name}: {' '.join(f'{loss:.3f}' for loss in learned.settings['losses'][::5])}\n", flush=True)


if __name__ == "__main__":
    main()

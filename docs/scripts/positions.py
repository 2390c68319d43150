"""Faithfulness of circuits by position against plain ones of as many edges, counted at each span, held out.

    python docs/scripts/positions.py --write docs/positions-study.md
    python docs/scripts/positions.py --small

On each task EAP-IG scores half of the prompts; plain circuits and circuits by the task's spans, both connected, are
judged on the other half, at the same numbers of (span, source, target): a plain circuit has its edges at every span.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import metrics
from attribution import attribute
from interp import Task, load_model, tasks
from interp.files import write_text
from interp.interval import Estimate

SHARES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # of all edges at all spans
TASKS = ("ioi", "greater_than", "agreement")


def main() -> None:
    """Measure, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few prompts and sizes")
    parser.add_argument("--write", type=Path, help="the page to write")
    asked = parser.parse_args()
    n, shares = (8, SHARES[2:4]) if asked.small else (64, SHARES)
    model = load_model("smollm2-135m")
    parts = ["# Circuits by position against plain ones\n", _about(n)]
    for name in TASKS:
        task = getattr(tasks, name)(n=n, model=model, seed=0)
        frame = compared(model, task, shares)
        parts += [f"## {name}\n", frame.to_markdown(index=False), ""]
    text = "\n".join(parts)
    print(text) if asked.write is None else write_text(asked.write, text)


def compared(model: Any, task: Task, shares: Sequence[float], steps: int = 5) -> pd.DataFrame:
    """One row for each size: faithfulness of a plain circuit and of one by position on prompts that chose neither.

    Columns: edges (at spans, both), plain and by_position, each with its 95 % interval.
    """
    scoring, judging = task.split(0.5, 0)
    plain = attribute(model, scoring, "eap-ig", steps=steps, quiet=True)
    spread = attribute(model, scoring, "eap-ig", steps=steps, positions="spans", quiet=True)
    spans = len(spread.spans or ())
    rows = []
    for share in shares:
        edges = max(1, int(share * plain.graph.n_edges))
        masks = plain.mask(edges, selection="connected"), spread.mask(edges * spans, selection="connected")
        found = [metrics.faithfulness(metrics.measure(model, judging, mask, quiet=True))[0] for mask in masks]
        rows.append({"edges": edges * spans, "plain": _cell(found[0]), "by_position": _cell(found[1])})
    return pd.DataFrame(rows)


def _cell(found: Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _about(n: int) -> str:
    return (
        f"Made by `docs/scripts/positions.py`: SmolLM2-135M, EAP-IG on half of {n} prompts of each task (seed 0), "
        "connected circuits judged on the other half; 95 % bootstrap intervals over prompts. `edges` counts an edge at "
        "each span: a plain circuit has each of its edges at all of them.\n"
    )


if __name__ == "__main__":
    main()

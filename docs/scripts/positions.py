"""Writes docs/positions-study.md: circuits by position against plain ones of as many edges, each counted at each span.

    python docs/scripts/positions.py
    python docs/scripts/positions.py --tasks agreement --prompts 8 --folder trial   # writes elsewhere

On each task EAP-IG scores half of the prompts; plain circuits and circuits by the task's spans, both connected, are
judged on the other half, at the same numbers of (span, source, target): a plain circuit has its edges at every span.
What is done is kept in files until the page is written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from attribution import EAPIG, attribute
from interp import Interval, Run, Setting, load_model, tasks
from interp.files import write_text
from interp.interval import Estimate
from interp.kernels.evaluate import CircuitValues
from interp.span_mask import SpanMask
from interp.tables import markdown_table
from metrics.circuit.evaluate import faithfulness_in

DOCS = Path(__file__).parent.parent
SHARES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)  # of all edges at all spans
TOP = (100, 1_000, 10_000)
TASKS = ("ioi", "greater_than", "agreement")
PROMPTS = 64


def main(chosen: list[str], prompts: int, folder: Path) -> None:
    """Measure on every task, and write the page."""
    found: dict[str, dict[str, Any]] = {}
    model = None
    for name in chosen:
        kept = folder / f".positions-{name}.json"
        if not kept.exists():
            model = model or load_model("smollm2-135m")
            task = getattr(tasks, name)(n=prompts, model=model, seed=0)
            write_text(kept, json.dumps(measured(Setting(model, task, run=Run(quiet=True)), SHARES, TOP)))
        found[name] = json.loads(kept.read_text(encoding="utf-8"))
        print(name, found[name], flush=True)
    write_text(folder / "positions-study.md", page(found, prompts))
    for name in chosen:
        (folder / f".positions-{name}.json").unlink()


def measured(setting: Setting, shares: Sequence[float], top: Sequence[int], steps: int = 5) -> dict[str, Any]:
    """Both kinds of circuits at each size on prompts that chose neither, and how sums over positions misrank edges."""
    scoring, held_out = setting.split(0.5, 0)
    spread = attribute(scoring.model, scoring.task, EAPIG(steps=steps, positions="spans"), quiet=True)
    plain = attribute(scoring.model, scoring.task, EAPIG(steps=steps), quiet=True)
    assert spread.spans is not None
    sizes = [max(1, int(share * plain.graph.n_edges)) for share in shares]
    everywhere = [plain.mask(size, selection="connected") for size in sizes]
    by_position = [spread.mask(size * len(spread.spans), selection="connected") for size in sizes]
    values = held_out.measure(torch.stack(everywhere)), held_out.measure(by_position)
    return {
        "spans": [str(one) for one in spread.spans],
        "circuits": rows(sizes, by_position, values),
        "misranked": {
            f"{n:,}": f"{one:.0%}"
            for n, one in zip(top, misranked(spread.values[:, plain.graph.edge_mask], top), strict=True)
        },
    }


def rows(
    sizes: Sequence[int], by_position: Sequence[SpanMask], values: tuple[CircuitValues, CircuitValues]
) -> list[dict[str, str]]:
    """One row for each size: faithfulness of both, and the difference, prompts paired."""
    plain, apart = values
    # (difference - 0) / (clean - empty): put on the empty circuit it is read as a circuit's own value
    difference = CircuitValues(plain.clean, plain.empty, plain.empty + apart.circuits - plain.circuits)
    estimates = [faithfulness_in(one, Interval()) for one in (plain, apart, difference)]
    return [
        {
            "edges at spans": f"{mask.n_edges:,}",
            "plain": f"{size:,} edges",
            "faithfulness": cell(whole),
            "by position": cell(each),
            "by position less plain": cell(gain),
        }
        for size, mask, whole, each, gain in zip(sizes, by_position, *estimates, strict=True)
    ]


def misranked(values: Tensor, top: Sequence[int]) -> list[float]:
    """The share of the largest edges of [span, edge], by the sum of |score|, that |the sum| does not rank so high."""
    apart, summed = (one.argsort(descending=True) for one in (values.abs().sum(0), values.sum(0).abs()))
    return [1 - float(torch.isin(apart[:n], summed[:n]).float().mean()) for n in top]


def cell(found: Estimate) -> str:
    """A figure with its interval."""
    return f"{found.value:z.2f} [{found.low:z.2f}, {found.high:z.2f}]"


def page(found: dict[str, dict[str, Any]], prompts: int) -> str:
    """What was measured, and a table for each task."""
    parts = [INTRODUCTION.replace("HALF", str(prompts // 2))]
    for name, own in found.items():
        ranks = ", ".join(f"{share} of the {n} largest" for n, share in own["misranked"].items())
        parts += [
            f"\n## {name}\n",
            f"Spans: {', '.join(own['spans'])}. Misranked by the sum: {ranks}.\n",
            markdown_table(pd.DataFrame(own["circuits"])),
        ]
    return "\n".join(parts).rstrip() + "\n"


INTRODUCTION = """# Circuits by position against plain ones

Made by `docs/scripts/positions.py`: SmolLM2-135M, EAP-IG (5 steps) on HALF prompts of each task, connected circuits
of the largest |score| judged on HALF others; 95 % bootstrap intervals over prompts. Edges are counted at each span: a
plain circuit has each of its edges at all of them, one by position where its score there is large. `by position less
plain` is the difference of both, prompts paired. Misranked are edges that belong to the n largest by the sum over spans
of |score| and not by |the sum over spans|, which lets scores of opposite sign cancel."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), dest="chosen")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--folder", type=Path, default=DOCS)
    torch.set_num_threads(1)
    main(**vars(parser.parse_args()))

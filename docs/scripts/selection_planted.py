"""Writes docs/selection-planted.md: selections on the planted models, whose true circuits are known.

    python docs/scripts/selection_planted.py

EAP-IG scores 64 prompts, which balanced selection measures on, too; curves are of 64 others. At each size of the ladder
the table counts how many of the true edges are in the circuit.
"""

from __future__ import annotations

from pathlib import Path

import metrics
from attribution import attribute
from circuits import planted
from interp import Run, Setting
from interp.files import write_text
from interp.selection import SELECTIONS, ladder

DOCS = Path(__file__).parent.parent
SELECTED = ("top-n", "connected", "program", "balanced")


def main() -> None:
    """Measure all models and write the page."""
    parts = [
        "# Selections where the circuit is known\n",
        "Made by `docs/scripts/selection_planted.py`: EAP-IG on 64 prompts, curves on 64 others, the planted models "
        "of [the ground-truth study](ground-truth.md); 95 % bootstrap intervals over prompts. A cell is faithfulness "
        "(true edges in the circuit).\n",
    ]
    parts.extend(section(planted.load(name, n=64, seed=0)) for name in planted.names())
    parts.append(
        "Curves of top-n do not dip here, unlike on [SmolLM2](selection.md): few edges harm, and from the size of the "
        "true circuit on every selection holds all of it. What helps below that size is to count edges after pruning "
        "(`connected`); balancing adds nothing to it.\n"
    )
    write_text(DOCS / "selection-planted.md", "\n".join(parts))


def section(known: planted.Planted) -> str:
    """One model's tables."""
    judged = known.draw(n=64, seed=1)
    scores = attribute(known.model, known.task, "eap-ig", quiet=True)
    graph = scores.graph
    sizes = [size for size in dict.fromkeys(ladder(graph)) if size]
    setting = Setting(known.model, known.task, run=Run(quiet=True))
    rules = {name: SELECTIONS.make(name).rules(setting, scores.values, sizes) for name in SELECTED}
    masks = {name: [take(scores.values) for take in own] for name, own in rules.items()}
    lines = [
        f"## {known.name}\n",
        f"{int(known.mask.sum())} of {graph.n_edges} edges are true.\n",
        f"| selection | {' | '.join(f'{n} edges' for n in sizes)} |",
        f"|{' --- |' * (len(sizes) + 1)}",
    ]
    for name, circuits in masks.items():
        cells = []
        for mask in circuits:
            values = metrics.measure(known.model, judged, mask, quiet=True)
            (estimate,) = metrics.faithfulness(values)
            cells.append(f"{estimate} ({int((mask & known.mask).sum())})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

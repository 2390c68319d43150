"""Writes docs/agreement.md and .png: EAP, EAP-IG and RelP against exact patching on the real SmolLM2-135M.

    python docs/scripts/agreement.py

Takes about twenty minutes on two CPU cores; the exact scores of edges are kept in a file until the page is written, so
that an interrupted run goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pictures import draw

from circuits import agreement
from interp import load_model, tasks
from interp.files import write_text
from metrics.agreement_table import AgreementTable, combine

DOCS = Path(__file__).parent.parent
TASKS = ("ioi", "greater_than", "agreement")
METHODS: dict[str, dict[str, Any]] = {
    "eap": {"method": "eap"},
    "eap-ig": {"method": "eap-ig"},
    "relp": {"method": "relp"},
    "relp, pattern held": {"method": "eap", "rules": "relp-ah"},
    "attnlrp": {"method": "attnlrp"},
    "gim": {"method": "gim"},
}
PROMPTS, SAMPLE = 16, 600


def main() -> None:
    """Compare on every task, at both levels, and write the page."""
    model = load_model("smollm2-135m")
    edges: dict[str, AgreementTable] = {}
    nodes: dict[str, AgreementTable] = {}
    for name in TASKS:
        task = getattr(tasks, name)(n=PROMPTS, seed=0, model=model)
        kept = DOCS / f".agreement-{name}.safetensors"
        edges[name] = agreement(model, task, METHODS, "edge", sample=SAMPLE, resume=kept)
        nodes[name] = agreement(model, task, METHODS, "node")
    write_text(DOCS / "agreement.md", page(edges, nodes))
    figure = combine(edges, name="task").figure()
    figure.update_layout(width=1500, height=900)
    draw(figure, DOCS / "agreement.png")
    for name in TASKS:
        (DOCS / f".agreement-{name}.safetensors").unlink()


def page(edges: dict[str, AgreementTable], nodes: dict[str, AgreementTable]) -> str:
    """The page: what was compared, then a table for each level and task."""
    by_level = {"edges": edges, "nodes": nodes}
    parts = [
        "# How well do gradient methods agree with exact patching?\n",
        f"Made by `docs/scripts/agreement.py` on SmolLM2-135M, {PROMPTS} prompts a task, counterfactual ablation. "
        f"Edges: a sample of {SAMPLE}, stratified by kind of edge and band of magnitude, means over prompts. Nodes: "
        "attention output, MLP output and residual stream of every layer at every position of every prompt behind the "
        "first difference. `dropped` rows leave out the points that are largest by exact patching: one huge point can "
        "make a Pearson correlation. 95 % bootstrap intervals: over edges; for nodes over whole prompts.\n",
        "![Scores of sampled edges against exact patching](agreement.png)\n",
        "## What wins\n",
        verdict({f"{task}, {level}": t for level, tables in by_level.items() for task, t in tables.items()}) + "\n",
    ]
    for level, tables in by_level.items():
        for task, table in tables.items():
            parts += [f"## {level.capitalize()}: {task}\n", table.markdown() + "\n"]
    return "\n".join(parts)


def verdict(tables: dict[str, AgreementTable]) -> str:
    """A table of the best method by Pearson and by Spearman, with all points and without the five largest."""
    rows = ["| where | dropped | best by Pearson | best by Spearman |", "| --- | --- | --- | --- |"]
    for where, table in tables.items():
        frame = table.to_frame()
        groups = ["component", "dropped"] if "component" in frame else ["dropped"]
        for key, part in frame.groupby(groups, sort=False):
            *component, dropped = np.atleast_1d(np.array(key, object)).tolist()
            if int(dropped) == 1:
                continue
            best = [
                f"{part['method'].iloc[part[statistic].argmax()]} ({part[statistic].max():.3f})"
                for statistic in ("pearson", "spearman")
            ]
            rows.append(f"| {', '.join([where, *map(str, component)])} | {int(dropped)} | {' | '.join(best)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()

"""Writes docs/neurons-agreement.md: scores of neurons against neurons really patched, on the real SmolLM2-135M.

    python docs/scripts/neurons.py

Takes about half an hour on one CPU core; what is done is kept in files until the page is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuits import agreement
from interp import load_model, tasks
from interp.files import write_text
from metrics.agreement_table import AgreementTable

DOCS = Path(__file__).parent.parent
TASKS = ("ioi", "greater_than", "agreement")
PROMPTS, SAMPLE = 8, 180
OWN = {"method": "eap-ig-activations", "steps": 2, "credit": "own", "quadrature": "gauss-legendre"}
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "patch": {
        "gradient": {"method": "eap"},
        "relp": {"method": "relp"},
        "relp-ah": {"method": "eap", "rules": "relp-ah"},
        "clean-corrupted": {"method": "clean-corrupted"},
        "eap-ig": {"method": "eap-ig"},
        "relp-ah along the path": {"method": "eap-ig", "rules": "relp-ah"},
        "along the MLP's own output": OWN,
    },
    "zero": {
        "gradient": {"method": "eap"},
        "relp": {"method": "relp"},
        "relp-ah": {"method": "eap", "rules": "relp-ah"},
        "along the MLP's own output": OWN,
    },
}


def main() -> None:
    """Compare on every task under both baselines, and write the page."""
    model = load_model("smollm2-135m")
    found: dict[tuple[str, str], AgreementTable] = {}
    for name in TASKS:
        task = getattr(tasks, name)(n=PROMPTS, seed=0, model=model)
        for ablation, methods in METHODS.items():
            kept = DOCS / f".neurons-{name}-{ablation}.json"
            if not kept.exists():
                agreement(model, task, methods, "neuron", sample=SAMPLE, ablation=ablation).save(kept)
            found[name, ablation] = AgreementTable.load(kept)
    write_text(DOCS / "neurons-agreement.md", page(found))
    for name, ablation in found:
        (DOCS / f".neurons-{name}-{ablation}.json").unlink()


def page(found: dict[tuple[str, str], AgreementTable]) -> str:
    """What was compared, which method agrees best, and a table for each task and baseline."""
    parts = [
        "# How well do scores of neurons agree with patching them?\n",
        f"Made by `docs/scripts/neurons.py` on SmolLM2-135M, {PROMPTS} prompts a task. A sample of {SAMPLE} of the "
        "46,080 neurons, stratified by layer and band of magnitude, each at all positions together and a mean over "
        "prompts. `patch`: the neuron takes its value in the corrupted prompt; `zero`: it is silenced. `dropped` rows "
        "leave out the neurons that are largest by exact patching. 95 % bootstrap intervals over neurons.\n",
        "## What wins\n",
        "| task | baseline | dropped | best by Pearson | best by Spearman |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (name, ablation), table in found.items():
        for dropped, rows in table.to_frame().groupby("dropped"):
            best = [rows.loc[rows[statistic].idxmax()] for statistic in ("pearson", "spearman")]
            cells = [
                f"{row['method']}, {row[kind]:.3f} [{row[f'{kind}_low']:.3f}, {row[f'{kind}_high']:.3f}]"
                for row, kind in zip(best, ("pearson", "spearman"), strict=True)
            ]
            parts.append(f"| {name} | {ablation} | {dropped} | {' | '.join(cells)} |")
    for (name, ablation), table in found.items():
        parts += [f"\n## {name}, {ablation}\n", table.markdown()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()

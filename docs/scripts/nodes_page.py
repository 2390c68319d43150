"""Writes docs/nodes-light.png: the page of a circuit of SmolLM2's neurons.

    python docs/scripts/nodes_page.py

Takes about two minutes on one core, and a Chromium.
"""

from __future__ import annotations

from pathlib import Path

from pictures import photograph_view

from circuits import find_circuit
from interp import load_model, tasks

DOCS = Path(__file__).parent.parent
PROMPTS = 64


def main() -> None:
    """Find the neurons of subject-verb agreement, and photograph their page."""
    model = load_model("smollm2-135m")
    task = tasks.agreement(n=PROMPTS, seed=0, model=model)
    circuit = find_circuit(model, task, level="neuron", selection="top-n", quiet=True)
    page = circuit.to_html(model=model, task=task)
    photograph_view(page, DOCS / "nodes-light.png", "light", {"selection": circuit.nodes[1]})


if __name__ == "__main__":
    main()

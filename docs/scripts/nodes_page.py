"""Writes docs/nodes-light.png: the page of a circuit of SmolLM2's neurons.

    python docs/scripts/nodes_page.py
    python docs/scripts/nodes_page.py --prompts 8 --to picture.png   # a trial

Takes about two minutes on one core, and a Chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pictures import photograph_view

from circuits import find_circuit
from interp import load_model, tasks

DOCS = Path(__file__).parent.parent
PROMPTS = 64


def main(prompts: int, to: Path) -> None:
    """Find the neurons of subject-verb agreement, and photograph their page."""
    model = load_model("smollm2-135m")
    task = tasks.agreement(n=prompts, seed=0, model=model)
    circuit = find_circuit(model, task, level="neuron", selection="top-n", quiet=True)
    page = circuit.to_html(model=model, task=task)
    photograph_view(page, to, "light", {"selection": circuit.nodes[1]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--to", type=Path, default=DOCS / "nodes-light.png")
    main(**vars(parser.parse_args()))

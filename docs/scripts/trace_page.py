"""Writes docs/trace-light.png and docs/trace-dark.png: the page of an attribution graph of SmolLM2.

    python docs/scripts/trace_page.py

Takes about half a minute on one core, and a Chromium.
"""

from __future__ import annotations

from pathlib import Path

from pictures import photograph_view

from circuits import AttributionGraph, trace
from interp import load_model

DOCS = Path(__file__).parent.parent
PROMPT, CHECKED = "The capital of France is", 20
CONTEXTS = [
    "The Eiffel Tower is in the city of Paris, France.",
    "The capital of Germany is Berlin and the capital of Spain is Madrid.",
    "She went to the market to buy some bread and cheese.",
]


def main() -> None:
    """Trace, check, and photograph the page twice."""
    graph = trace(load_model("smollm2-135m"), PROMPT, top=64, leave_out=[0], quiet=True)
    page = graph.to_html(measured=CHECKED, prompts=CONTEXTS)
    photograph_view(page, DOCS / "trace-light.png", "light", {})
    photograph_view(page, DOCS / "trace-dark.png", "dark", {"selection": strongest(graph)})


def strongest(graph: AttributionGraph) -> str:
    """The neuron of largest influence."""
    neurons = graph.nodes[graph.nodes["kind"] == "neuron"]
    return str(neurons.loc[neurons["influence"].idxmax(), "name"])


if __name__ == "__main__":
    main()

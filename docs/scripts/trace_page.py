"""Writes docs/trace-light.png and docs/trace-dark.png: the page of an attribution graph of SmolLM2.

    python docs/scripts/trace_page.py

Takes about half a minute on one core, and a Chromium.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from pictures import photograph
from PIL import Image

from circuits import AttributionGraph, trace
from interp import load_model

DOCS = Path(__file__).parent.parent
PROMPT, CHECKED = "The capital of France is", 20
CONTEXTS = [
    "The Eiffel Tower is in the city of Paris, France.",
    "The capital of Germany is Berlin and the capital of Spain is Madrid.",
    "She went to the market to buy some bread and cheese.",
]
SIZE = (1280, 860)


def main() -> None:
    """Trace, check, and photograph the page twice."""
    graph = trace(load_model("smollm2-135m"), PROMPT, top=64, leave_out=[0], quiet=True)
    page = graph.to_html(measured=CHECKED, prompts=CONTEXTS)
    picture(page, "light", {})
    picture(page, "dark", {"selection": strongest(graph)})


def strongest(graph: AttributionGraph) -> str:
    """The neuron of largest influence."""
    neurons = graph.nodes[graph.nodes["kind"] == "neuron"]
    return str(neurons.loc[neurons["influence"].idxmax(), "name"])


def picture(page: str, theme: str, view: dict[str, Any]) -> None:
    """Photograph a page in a theme and a view, in few colours."""
    state = f'<script type="application/json" id="view-state">{json.dumps(view)}</script>'
    page = page.replace('<html lang="en">', f'<html lang="en" data-theme="{theme}">', 1)
    page = page.replace("<script>(() => {", f"{state}\n<script>(() => {{", 1)
    path = DOCS / f"trace-{theme}.png"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        if not photograph(file, path, *SIZE):
            return
    with Image.open(path) as taken:
        taken.convert("RGB").quantize(200).save(path, optimize=True)


if __name__ == "__main__":
    main()

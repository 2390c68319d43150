"""Writes docs/live/circuit.json.gz, docs/viewer-light.png and docs/viewer-dark.png: the circuit that `make demo` finds.

    python docs/scripts/live_page.py

The file is what the circuit's page holds; the site's build makes the page of it, with today's scripts (docs/conf.py).
Takes about a minute on one core, and a Chromium.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

from pictures import photograph_view

from circuits import find_circuit
from interp import load_model, tasks

DOCS = Path(__file__).parent.parent
PROMPTS = 64  # of `make demo`
HELD = re.compile(r'id="still">(.*?)</section>.*id="circuit-data">(.*?)</script>', re.DOTALL)


def main() -> None:
    """Find the circuit as the command does, keep what its page holds, and photograph it twice."""
    model = load_model("smollm2-135m")
    task = tasks.ioi(n=PROMPTS, seed=0, model=model)
    circuit = find_circuit(model, task)
    page = circuit.to_html(model=model, task=task)
    (DOCS / "live").mkdir(exist_ok=True)
    (DOCS / "live" / "circuit.json.gz").write_bytes(kept(page))
    head = next(name for name in circuit.to_frame()["source"] if ".h" in name)
    photograph_view(page, DOCS / "viewer-light.png", "light", {})
    photograph_view(page, DOCS / "viewer-dark.png", "dark", {"selection": head})
    print(circuit)


def kept(page: str) -> bytes:
    """What a page holds of a circuit: its data, and what it shows where scripts are blocked."""
    still, data = HELD.search(page).groups()  # type: ignore[union-attr]
    content: dict[str, Any] = {"still": still, "data": json.loads(data)}
    return gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0)


if __name__ == "__main__":
    main()

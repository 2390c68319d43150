"""The page of the full graph of SmolLM2 in headless Chromium: time to the first draw, and for each slider move.

    python -m benchmarks viewer

Chromium renders in software here (SwiftShader), so that the numbers are those of a machine without a GPU.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from attribution import attribute
from benchmarks.common import golden_task
from circuits import Circuit
from interp import load_model

FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-compositing")
REPEATS = 3
POSITIONS = (980, 900, 820, 700, 600, 500, 400, 650, 850, 1000)  # of the top-k slider, of 1000

# from the event until two frames after its result was drawn
MOVE = """async ([id, position]) => {
  const plot = document.getElementById("plot"), slider = document.getElementById(id);
  const before = plot.dataset.draws, started = performance.now();
  slider.value = position;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  while (plot.dataset.draws === before) await new Promise((done) => setTimeout(done, 0));
  for (let frame = 0; frame < 2; frame++) await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const dense = document.getElementById("dense").dataset.edges;
  return [performance.now() - started, Number(plot.dataset.shown), Number(dense)];
}"""


def full_page(path: Path) -> int:
    """Write the page of all 123,211 edges; returns its number of edges."""
    scores = attribute(load_model("smollm2-135m"), golden_task(), method="eap", quiet=True)
    circuit = Circuit(scores, scores.graph.edge_mask)
    circuit.to_html(path)
    return circuit.n_edges


def first_draw(page: Any, address: str) -> float:
    """Milliseconds from the start of loading until the circuit is drawn."""
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
    return page.evaluate("performance.now()")


def main() -> None:
    """Print the measured times."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("viewer: no Chromium on this machine, nothing was measured")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "full.html"
        print(f"The page of {full_page(path):,} edges, {path.stat().st_size / 1e6:.1f} MB with plotly.js")
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        loads, moves = [], []
        for _ in range(REPEATS):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            loads.append(first_draw(page, path.as_uri()))
            moves.append([page.evaluate(MOVE, ["top", position]) for position in POSITIONS])
            page.close()
        browser.close()
    print(f"{'first draw':34s} {statistics.median(loads):7.0f} ms  [{min(loads):.0f}, {max(loads):.0f}]")
    for at, (_, shown, dense) in enumerate(moves[0]):
        times = [repeat[at][0] for repeat in moves]
        what = f"slider to {shown:,.0f} edges, {dense:,.0f} by WebGL"
        print(f"{what:34s} {statistics.median(times):7.0f} ms  [{min(times):.0f}, {max(times):.0f}]")


if __name__ == "__main__":
    main()

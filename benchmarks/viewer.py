"""Pages of circuits of SmolLM2 in headless Chromium: first draw, a slider's move, a selection, for several sizes.

    python -m benchmarks viewer

Chromium renders in software here, so that the numbers are those of a machine without a GPU. Each is the median of 20
with its quartiles; a move ends two frames after its event, when its picture is on the screen.
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

FLAGS = ("--no-sandbox", "--disable-gpu")
SIZES = (5, 123, 5_000, 123_211)
REPEATS = 20

# until two frames after the event: then what it asked for is on the screen
TIMED = """async (act) => {
  const started = performance.now();
  act();
  for (let frame = 0; frame < 2; frame++) await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  return performance.now() - started;
}"""
# the top-k slider between two of its places: all edges, and about half of them
SLIDE = f"""(at) => ({TIMED})(() => {{
  const slider = document.getElementById("top");
  slider.value = at % 2 ? 1000 : 900;
  slider.dispatchEvent(new Event("input", {{ bubbles: true }}));
}})"""
SELECT = f"""(at) => ({TIMED})(() => {{
  const search = document.getElementById("search"), {{ nodes }} = document.getElementById("plot").seen();
  search.value = nodes[at % nodes.length].name;
  search.dispatchEvent(new Event("input", {{ bubbles: true }}));
  search.dispatchEvent(new KeyboardEvent("keydown", {{ key: "Enter", bubbles: true, cancelable: true }}));
}})"""


def pages(folder: Path) -> dict[tuple[int, bool], Path]:
    """Pages of the strongest edges by EAP, by size and whether they hold prompts; nothing is knocked out."""
    model, task = load_model("smollm2-135m"), golden_task()
    scores = attribute(model, task, method="eap", quiet=True)
    written = {}
    for size in SIZES:
        mask = scores.mask(size, pruned=False) if size < scores.graph.n_edges else scores.graph.edge_mask
        for prompts in (False, True):
            path = folder / f"{size}-{prompts}.html"
            Circuit(scores, mask).to_html(path, **({"model": model, "task": task, "knock": None} if prompts else {}))
            written[size, prompts] = path
    return written


def first_draw(browser: Any, address: str) -> float:
    """Milliseconds from the start of loading until the circuit is on the screen."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
    took: float = page.evaluate(f"({TIMED})(() => 0).then(() => performance.now())")
    page.close()
    return took


def told(times: list[float]) -> str:
    """The median and the quartiles."""
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{middle:6.0f} [{low:.0f}, {high:.0f}]"


def main() -> None:
    """Print the measured times."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("viewer: no Chromium on this machine, nothing was measured")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        written = pages(Path(folder))
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        print(f"{'edges':>8s} prompts      MB  {'first draw, ms':>20s}  {'slider, ms':>20s}  {'selection, ms':>20s}")
        for (size, prompts), path in written.items():
            draws = [first_draw(browser, path.as_uri()) for _ in range(REPEATS)]
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(path.as_uri() + "#top=all")
            page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
            acts = [[page.evaluate(act, at) for at in range(REPEATS)] for act in (SLIDE, SELECT)]
            page.close()
            rows = "  ".join(f"{told(times):>20s}" for times in (draws, *acts))
            print(f"{size:8,d} {'yes' if prompts else 'no':>7s}  {path.stat().st_size / 1e6:6.2f}  {rows}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()

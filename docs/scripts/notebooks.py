"""Runs the notebooks and keeps their outputs small enough to commit: `python docs/scripts/notebooks.py [NAME ...]`.

Interactive pictures become PNGs (a page may hold megabytes of attention patterns), progress bars and timings of the
kernel go. The tests run the same notebooks from top to bottom, with as few prompts and images as a cell's metadata name
under `nbmake`.
"""

from __future__ import annotations

import base64
import html
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
from nbclient import NotebookClient
from pictures import draw, photograph
from PIL import Image

from interp.files import write_text

NOTEBOOKS = Path(__file__).parent.parent.parent / "notebooks"
FRAME = re.compile(r'<iframe[^>]*\bsrcdoc="([^"]*)"')
WIDTH, HEIGHT = 1280, 860  # of a circuit's page
PLOTLY = "application/vnd.plotly.v1+json"


def main() -> None:
    """Run all notebooks, or those whose names begin so."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if sys.argv[1:] and not path.name.startswith(tuple(sys.argv[1:])):
            continue
        notebook = nbformat.read(path, as_version=4)
        started = time.perf_counter()
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}
        ).execute()
        seconds = time.perf_counter() - started
        for cell in notebook.cells:
            # what the tests run with fewer of
            cell.metadata = {key: value for key, value in cell.metadata.items() if key == "nbmake"}
            if cell.cell_type == "code":
                cell.outputs = [small(output) for output in cell.outputs if output.get("name") != "stderr"]
        notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        write_text(path, nbformat.writes(notebook) + "\n")
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1e3:.0f} kB")


def small(output: Any) -> Any:
    """The output with interactive pictures as PNGs."""
    data = output.get("data", {})
    page = FRAME.search(data.get("text/html", ""))
    if PLOTLY in data:
        output["data"] = {"image/png": of_figure(data[PLOTLY])}
    elif page:
        output["data"] = {"image/png": of_page(html.unescape(page[1]))}
    output.get("metadata", {}).clear()
    return output


def of_figure(data: dict[str, Any]) -> str:
    """A plotly figure as base64 PNG."""
    figure = plotly.io.from_json(plotly.io.json.to_json_plotly({key: data[key] for key in ("data", "layout")}))
    figure.update_layout(width=figure.layout.width or 900, height=figure.layout.height or 450)
    with tempfile.TemporaryDirectory() as folder:
        draw(figure, Path(folder) / "figure.png")
        return encoded(Path(folder) / "figure.png")


def of_page(text: str) -> str:
    """A whole page as base64 PNG."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(text, encoding="utf-8")
        photograph(source, source.with_suffix(".png"), WIDTH, HEIGHT)
        return encoded(source.with_suffix(".png"))


def encoded(path: Path) -> str:
    """A picture in 128 colours, as base64."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)
    return base64.b64encode(path.read_bytes()).decode()


if __name__ == "__main__":
    main()

"""The documentation site: `make docs` builds it into `docs/_build/html`, and any warning is an error."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

project = "Faithful Circuits"
author = copyright = "The Faithful Circuits authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["_build", "live", "scripts", "**/.ipynb_checkpoints"]

# notebooks are executed by the tests; the site shows what they were committed with
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
default_role = "code"  # docstrings put code in single backticks
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "Faithful Circuits"
html_static_path: list[str] = []
html_extra_path = ["_build/live"]  # made below: the live page of a circuit
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}


def copy_notebooks() -> None:
    """Bring the notebooks under the sources, where Sphinx looks for them."""
    target = DOCS / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(notebook, target)


def make_live_page(folder: Path) -> Path:
    """Make the page of a circuit from what it holds (docs/scripts/live_page.py), with today's scripts and plotly.js."""
    from circuits.viewer.page import circuit_shell

    folder.mkdir(parents=True, exist_ok=True)
    held = json.loads(gzip.decompress((DOCS / "live" / "circuit.json.gz").read_bytes()))
    data, path = held["data"], folder / "circuit.html"
    circuit_shell().render(data["title"], data["facts"], data, path, held["still"])
    return path


def plain_marks(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks: what else reStructuredText reads as markup is escaped."""
    del app, what, name, obj, options
    in_example = False
    for index, line in enumerate(lines):
        in_example = line.lstrip().startswith((">>>", "...")) or (in_example and bool(line.strip()))
        if in_example or line.lstrip().startswith(".."):
            continue
        field, text = re.match(r"(\s*:[^:]+:)?(.*)", line).groups(default="")  # type: ignore[union-attr]
        parts = re.split(r"(``.*?``|`[^`]*`)", text)
        parts[::2] = [re.sub(r"(?<!\\)([|*])|(?<=\w)_(?=\W|$)", lambda m: "\\" + m[0], part) for part in parts[::2]]
        lines[index] = field + "".join(parts)


def setup(app: object) -> None:
    """Called by Sphinx."""
    copy_notebooks()
    make_live_page(DOCS / "_build" / "live")
    app.connect("autodoc-process-docstring", plain_marks, priority=900)  # type: ignore[attr-defined]

"""The picture as one HTML file that needs neither a server nor a network.

The page holds plotly.js, the scripts and styles of `assets`, and the circuit as data: everything that is drawn,
filtered and traced is computed in the page. A content security policy forbids it to load anything. Text that came
from outside is escaped: in the shell here, in the page by `textContent`, and where plotly draws it by `plotlyText`
of `text.js`. The embedded JSON holds no `<`, so that no label can end its script element.
"""

from __future__ import annotations

import html
import importlib
import json
import logging
import os
import sys
import tempfile
import webbrowser
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from circuits.circuit import Circuit
from circuits.viewer.adjacency import adjacency
from circuits.viewer.data import EMBEDDED_LIMIT, page_data
from circuits.viewer.headings import facts, title
from circuits.viewer.look import LOOK
from interp.files import write_text

logger = logging.getLogger(__name__)

# in the order in which they are run: each uses those before it
SCRIPTS = (
    "text.js",
    "plotly.js",
    "graph.js",
    "filter.js",
    "reach.js",
    "state.js",
    "theme.js",
    "curves.js",
    "webgl.js",
    "picture.js",
    "hover.js",
    "controls.js",
    "faithfulness.js",
    "linked.js",
    "details.js",
    "groups.js",
    "comparison.js",
    "formats.js",
    "export.js",
    "keyboard.js",
    "main.js",
)
STYLES = ("theme.css", "layout.css", "panels.css")
FRAME_HEIGHT = 860


def to_html(circuit: Circuit, path: str | os.PathLike[str] | None = None, **views: Any) -> str:
    """The interactive picture of `circuit` as a self-contained page of about 5 MB, most of it plotly.js.

    Args:
        circuit: what is drawn; of more than `EMBEDDED_LIMIT` edges the page holds the strongest.
        path: where the page is also written; a kill or a full disk leaves what the file held before.
        **views: `model=` and `task=` (and `example=`, the number of a prompt) add that prompt's tokens, attention
            patterns, direct effects and the layout by position; `positions=` gives node scores `[node, pos]` of
            your own; `curve=` a faithfulness curve instead of the report's ladder.

    Raises `InputError` when the model does not fit the circuit, or only one of model and task is given.
    """
    edges = adjacency(circuit, EMBEDDED_LIMIT)
    data = page_data(circuit, edges, **views)
    return render(title(circuit), facts(circuit), data, path)


def render(heading: str, lines: list[str], data: dict[str, Any], path: str | os.PathLike[str] | None) -> str:
    """A page with this heading over this data, written to `path` when there is one."""
    page = Template(_asset("page.html")).substitute(
        title=html.escape(heading),
        subtitle=html.escape(" · ".join(lines)),
        plotly=get_plotlyjs(),
        data=_embedded({"title": heading, "facts": lines, **data}),
        script=f"(() => {{\nconst LOOK = {_embedded(LOOK)};\n" + "\n".join(map(_asset, SCRIPTS)) + "\n})();",
        style="\n".join(map(_asset, STYLES)),
    )
    if path is not None:
        write_text(path, page)
    return page


def show(circuit: Circuit, **views: Any) -> None:
    """Show the interactive picture: in a frame of its own inside a notebook, else in the browser.

    `views` are those of `to_html`. A notebook cell then holds the whole page; `figure` gives a lighter picture.
    """
    show_page(to_html(circuit, **views))


def show_page(page: str) -> None:
    """Show a page in a notebook's cell, or else in the browser; where there is none, a warning names the file."""
    if _in_notebook():
        notebook = importlib.import_module("IPython.display")  # there when a notebook is, else not needed
        style = f"width:100%;height:{FRAME_HEIGHT}px;border:0"
        frame = f'<iframe srcdoc="{html.escape(page)}" style="{style}" allow="fullscreen"></iframe>'
        notebook.display(notebook.HTML(frame))
        return
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", errors="backslashreplace", prefix="circuit-", suffix=".html", delete=False
    ) as file:
        file.write(page)
    if not webbrowser.open(Path(file.name).as_uri()):
        logger.warning("there is no browser here to show the picture in; it is in the file %s", file.name)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook's kernel has imported it
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def _asset(name: str) -> str:
    return resources.files("circuits.viewer").joinpath("assets", name).read_text(encoding="utf-8")


def _embedded(data: dict[str, Any]) -> str:
    """JSON that is safe inside a script element: no `<`, `>` or `&`, and no line separators of JavaScript."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

"""A page that needs neither a server nor a network: one shell, filled with scripts, styles and data.

A content security policy forbids it to load anything. Text that came from outside is escaped: in the shell here, in the
page by `textContent`. The embedded JSON holds no `<`, so that no label can end its script element.
"""

from __future__ import annotations

import html
import importlib
import logging
import os
import sys
import tempfile
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from circuits.viewer.sketch import Sketch
from interp.charts import embedded, library, plotly_js
from interp.errors import InputError
from interp.files import write_text

logger = logging.getLogger(__name__)

FRAME_HEIGHT = 860
_holder: list[str] = []  # the notebook's cell whose page holds the library for all others
STYLES = ("theme.css", "layout.css", "panels.css")


@dataclass(frozen=True)
class Shell:
    """What a kind of page is made of: files in `assets` of `circuits.viewer`, or of `package` as `package:name`.

    Attributes:
        help: what its sheet of help holds, one behind the other; `stage`: the picture's part of its body.
        scripts, styles: in the order in which they are run and read: each uses those before it.
        constants: what scripts know as `LOOK`.
        charts: whether the page holds plotly.js, which `library.js` unpacks.
    """

    help: tuple[str, ...]
    stage: str
    scripts: tuple[str, ...]
    styles: tuple[str, ...]
    constants: Mapping[str, Any]
    charts: bool = False

    def render(
        self, heading: str, lines: list[str], data: dict[str, Any], path: str | os.PathLike[str] | None, still: str
    ) -> str:
        """A page with this heading over this data, written to `path` when there is one.

        `still` is the HTML that it shows where scripts are blocked.
        """
        page = Template(asset("page.html")).substitute(
            title=html.escape(heading),
            subtitle=html.escape(" · ".join(lines)),
            help="".join(map(asset, self.help)),
            stage=asset(self.stage),
            still=still,
            library=library(plotly_js()) if self.charts else "",
            data=embedded({"title": heading, "facts": lines, **data}),
            script=f"(() => {{\nconst LOOK = {embedded(self.constants)};\n"
            + "\n".join(map(asset, self.scripts))
            + "\n})();",
            style="\n".join(map(asset, self.styles)),
        )
        if path is not None:
            write_text(path, page)
        return page


def show_page(page: str, sketch: Sketch | None = None) -> None:
    """Show a page in a notebook's cell, or else in the browser; where there is none, a warning names the file.

    `sketch` is what a notebook shows where it allows no page: untrusted, mailed, on GitHub, on paper.
    Raises `InputError` for what is no text.
    """
    if not isinstance(page, str):
        raise InputError(
            f"page must be the text of a page, as to_html gives it; got {type(page).__name__} (show takes it)"
        )
    if _in_notebook():
        notebook = importlib.import_module("IPython.display")  # there when a notebook is, else not needed
        page = _lighter(page)
        style = f"width:100%;height:{FRAME_HEIGHT}px;border:0"
        frame = f'<iframe srcdoc="{html.escape(page)}" style="{style}" allow="fullscreen"></iframe>'
        bundle: dict[str, Any] = {"text/html": frame}
        if sketch is not None:
            png = sketch.png()
            bundle |= {"text/html": frame + _instead(sketch, png), "image/png": png, "text/plain": sketch.told}
        notebook.display(bundle, raw=True)  # of a frame as HTML(...) IPython warns
        return
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", errors="backslashreplace", prefix="circuit-", suffix=".html", delete=False
    ) as file:
        file.write(page)
    if not webbrowser.open(Path(file.name).as_uri()):
        logger.warning("there is no browser here to show the picture in; it is in the file %s", file.name)


def _lighter(page: str) -> str:
    """The page without its library where another cell of this notebook shows one with it.

    A front end that does not say which cell runs gets whole pages: a cell that is run again replaces its own.
    """
    first, _, rest = page.partition(library("").removesuffix("</script>"))
    own, _, after = rest.partition("</script>")
    asked = sys.modules["IPython"].get_ipython()
    cell = asked.get_parent().get("metadata", {}).get("cellId") if hasattr(asked, "get_parent") else None
    if not own or cell is None:
        return page
    if not _holder:
        _holder.append(cell)
    return page if cell == _holder[0] else first + library("") + after


def _instead(sketch: Sketch, png: bytes) -> str:
    """The picture that is seen where a notebook takes frames away, and styles with them."""
    seen = f'<div class="circuit-still"><p>{html.escape(sketch.told)}</p>{sketch.image("png", png)}</div>'
    return f"{seen}<style>iframe + .circuit-still {{ display: none }}</style>"


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook's kernel has imported it
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def asset(name: str) -> str:
    """The text of a file, by `name` or `package:name`."""
    package, _, file = name.rpartition(":")
    return resources.files(package or "circuits.viewer").joinpath("assets", file).read_text(encoding="utf-8")

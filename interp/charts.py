"""Plotly figures in pages that need no network: plotly.js is in a page once, packed, and unpacked by the browser."""

from __future__ import annotations

import base64
import functools
import gzip
import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TALL = 450  # pixels, of a figure that has no height


def charts(figures: Sequence[Figure]) -> str:
    """Figures one below the other, as HTML for the body of a page (`interp.tables.page`); about 2 MB with plotly.js."""
    places = "".join(
        f'<div class="figure" id="chart-{at}" style="min-height:{figure.layout.height or TALL}px"></div>'
        for at, figure in enumerate(figures)
    )
    shown = json.dumps([json.loads(figure.to_json()) for figure in figures], separators=(",", ":"))
    scripts = "\n".join(map(script, ("library.js", "charts.js")))
    told = "<noscript><p>The pictures of this page are drawn by scripts, which are blocked here.</p></noscript>"
    return (
        f'{told}{places}{library(plotly_js())}<script type="application/json" id="charts">{harmless(shown)}</script>'
        f"<script>{scripts}</script>"
    )


def library(packed_script: str) -> str:
    """The element of a page that holds plotly.js for `library.js`; empty where another page of the notebook does."""
    return f'<script type="text/plain" id="library">{packed_script}</script>'


@functools.cache
def plotly_js() -> str:
    """plotly.js as text of a third of its size."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def script(name: str) -> str:
    """The text of a script of `interp/assets`."""
    return resources.files("interp").joinpath("assets", name).read_text(encoding="utf-8")


def embedded(data: Any) -> str:
    """Data as JSON that is safe inside a script element."""
    return harmless(json.dumps(data, separators=(",", ":"), allow_nan=False))


def harmless(text: str) -> str:
    """JSON without `<`, `>` or `&`, so that no label can end the script element that it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

"""The picture of a circuit as one HTML file that needs neither a server nor a network.

The page holds the scripts and styles of `assets` and the circuit as data: everything that is drawn, filtered and traced
is computed in the page.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from circuits.circuit import Circuit
from circuits.node_circuit import NodeCircuit
from circuits.viewer.adjacency import adjacency
from circuits.viewer.by_span import span_data
from circuits.viewer.data import EMBEDDED_LIMIT, page_data
from circuits.viewer.headings import facts, title
from circuits.viewer.look import LOOK
from circuits.viewer.measuring import GROWN_BY
from circuits.viewer.nodes.still import nodes_sketch
from circuits.viewer.shell import STYLES, Shell, show_page
from circuits.viewer.sketch import Sketch
from circuits.viewer.still import circuit_sketch, still

SCRIPTS = (
    "text.js",
    "graph.js",
    "strongest.js",
    "spelling.js",
    "naming.js",
    "filter.js",
    "reach.js",
    "address.js",
    "state.js",
    "theme.js",
    "svg.js",
    "png.js",
    "pen.js",
    "curves.js",
    "contract.js",
    "area.js",
    "picture.js",
    "tip.js",
    "hover.js",
    "choices.js",
    "sliders.js",
    "controls.js",
    "interp:library.js",
    "faithfulness.js",
    "cards.js",
    "quality.js",
    "prompts.js",
    "attention.js",
    "knock.js",
    "linked.js",
    "details.js",
    "groups.js",
    "comparison.js",
    "formats.js",
    "saving.js",
    "export.js",
    "nodekeys.js",
    "keyboard.js",
    "main.js",
)

SMALL = 450  # pixels across, of the picture that a circuit is shown by


def to_html(circuit: Circuit | NodeCircuit, path: str | os.PathLike[str] | None = None, **views: Any) -> str:
    """The interactive picture of `circuit` as a self-contained page of about 2 MB, most of it plotly.js, packed.

    Args:
        circuit: what is drawn; of more than `EMBEDDED_LIMIT` edges the page holds the strongest. By position: a column
            for each span, each edge in the columns where it is in. Of nodes: the page and the views of
            `NodeCircuit.to_html`.
        path: where the page is also written; a kill or a full disk leaves what the file held before.
        **views: `model=` and `task=` (and `example=`, the number of a prompt) add that prompt's tokens, attention
            patterns, direct effects and the layout by position; `positions=` gives node scores `[node, pos]` of
            your own; `curve=` a faithfulness curve instead of the one that is measured; `knock=` sets of nodes, such as
            `[("a2.h1", "m3")]`, that are knocked out together beside those that the page knows (every node of the
            circuit up to 40, and pairs of the strongest four); None: none is, and the page is made sooner.

    Raises `InputError` when the model does not fit the circuit, or only one of model and task is given.
    """
    if isinstance(circuit, NodeCircuit):
        return circuit.to_html(path, **views)
    plain = circuit.at_any_position()
    edges = adjacency(plain, EMBEDDED_LIMIT, more=GROWN_BY if circuit.spans is None else 0)
    data = page_data(plain, edges, **views)
    if circuit.spans is not None:
        data |= span_data(circuit, EMBEDDED_LIMIT)
    shown = still(circuit_sketch(plain, edges), plain.to_frame())
    return circuit_shell().render(title(circuit), facts(circuit), data, path, shown)


@functools.cache
def circuit_shell() -> Shell:
    """The shell of pages of circuits."""
    return Shell(("help.html", "glossary.html"), "stage.html", SCRIPTS, STYLES, LOOK, charts=True)


def show(circuit: Circuit | NodeCircuit, **views: Any) -> None:
    """Show the interactive picture: in a frame of its own inside a notebook, else in the browser.

    `views` are those of `to_html`. A notebook's cell then holds the whole page, and `sketch` where no page is allowed.
    """
    show_page(to_html(circuit, **views), sketch(circuit))


def sketch(circuit: Circuit | NodeCircuit) -> Sketch:
    """The strongest edges or nodes as a still picture."""
    return nodes_sketch(circuit) if isinstance(circuit, NodeCircuit) else circuit_sketch(circuit)


def small_picture(circuit: Circuit | NodeCircuit) -> str:
    """The still picture as HTML: what a notebook shows of a circuit by itself."""
    drawn = sketch(circuit)
    return drawn.image("png", drawn.png(), SMALL)

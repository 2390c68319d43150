"""The page of a circuit of nodes: one HTML file that needs neither a server nor a network, nor plotly.js."""

from __future__ import annotations

import os
from typing import Any, TypedDict, Unpack

from circuits.node_circuit import NodeCircuit
from circuits.viewer.headings import facts, title
from circuits.viewer.nodes.data import node_data
from circuits.viewer.nodes.known import known
from circuits.viewer.shell import STYLES, Shell
from circuits.viewer.still import still_table
from interp.keywords import check_keywords
from interp.tasks.task import Task

HERE = "circuits.viewer.nodes"
# in the order in which they are run; those without a package are shared with other pages
SCRIPTS = (
    "text.js",
    "strongest.js",
    "spelling.js",
    "naming.js",
    "address.js",
    f"{HERE}:nodes.js",
    f"{HERE}:state.js",
    "theme.js",
    "svg.js",
    "labels.js",
    f"{HERE}:places.js",
    f"{HERE}:rows.js",
    f"{HERE}:drawing.js",
    "tip.js",
    "moving.js",
    f"{HERE}:hover.js",
    "choices.js",
    "sliders.js",
    f"{HERE}:controls.js",
    "groups.js",
    "cards.js",
    f"{HERE}:report.js",
    f"{HERE}:details.js",
    f"{HERE}:table.js",
    "saving.js",
    f"{HERE}:export.js",
    "keyboard.js",
    f"{HERE}:main.js",
)
SHELL = Shell((f"{HERE}:help.html", "glossary.html"), f"{HERE}:stage.html", SCRIPTS, (*STYLES, f"{HERE}:nodes.css"), {})


class NodeViews(TypedDict, total=False):
    """What a page is told beside the circuit."""

    model: Any
    task: Task | None
    example: int


def to_html(circuit: NodeCircuit, path: str | os.PathLike[str] | None = None, **views: Unpack[NodeViews]) -> str:
    """See `NodeCircuit.to_html`."""
    check_keywords("to_html", views, NodeViews)
    data = node_data(circuit, known(circuit, **views))
    return SHELL.render(title(circuit), facts(circuit), data, path, still_table(circuit.to_frame()))

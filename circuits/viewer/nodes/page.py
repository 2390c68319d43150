"""The page of a circuit of nodes: one HTML file that needs neither a server nor a network, nor plotly.js."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from circuits.node_circuit import NodeCircuit
from circuits.viewer.headings import facts, title
from circuits.viewer.knocked import knocked
from circuits.viewer.measuring import prompts_of
from circuits.viewer.nodes.data import node_data
from circuits.viewer.nodes.known import known
from circuits.viewer.nodes.still import nodes_sketch
from circuits.viewer.quality import other_prompts
from circuits.viewer.shell import STYLES, Shell
from circuits.viewer.still import still
from interp.element_names import element_names
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
    "png.js",
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
    "quality.js",
    "knock.js",
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
    knock: Sequence[Sequence[str]] | None


def to_html(circuit: NodeCircuit, path: str | os.PathLike[str] | None = None, **views: Unpack[NodeViews]) -> str:
    """See `NodeCircuit.to_html`."""
    check_keywords("to_html", views, NodeViews)
    model, task, knock = views.get("model"), views.get("task"), views.get("knock", ())
    data = node_data(circuit, known(circuit, model, task, views.get("example", 0)))
    data["notes"] = [note] if (note := other_prompts(circuit, task)) else []
    data["knocked"] = None if model is None or task is None or knock is None else _knocked(circuit, model, task, knock)
    return SHELL.render(title(circuit), facts(circuit), data, path, still(nodes_sketch(circuit), circuit.to_frame()))


def _knocked(circuit: NodeCircuit, model: Any, task: Task, sets: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What the objective loses without nodes of the circuit, the strongest first."""
    scores, mask = circuit.scores.values.flatten().abs(), circuit.node_mask.flatten()
    order = scores.masked_fill(~mask, -1.0).argsort(descending=True, stable=True)[: int(mask.sum())]
    names = element_names(
        circuit.graph, circuit.level, circuit.spans, circuit.node_mask.shape, order, circuit.scores.settings
    )
    places = dict(zip(names, order.tolist(), strict=True))
    prompts = prompts_of(model, task, circuit)
    first = [name for name in names if name != "input"]
    return knocked(prompts, circuit.level, circuit.spans, places, first, sets)

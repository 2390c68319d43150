"""An attribution graph as one HTML file of some hundred kilobytes: no server, no network, no other library."""

from __future__ import annotations

import os
from typing import Any, Unpack

import pandas as pd

from circuits.tracing.graph import AttributionGraph
from circuits.tracing.viewer.contexts import contexts
from circuits.tracing.viewer.data import context_data, graph_data, measured_data, moved_data
from circuits.tracing.viewer.keywords import PageKeywords
from circuits.tracing.viewer.labels import labels_by_name
from circuits.tracing.viewer.moved import moved_tokens
from circuits.tracing.viewer.still import graph_sketch
from circuits.viewer.shell import STYLES, Shell, show_page
from circuits.viewer.still import still
from interp import numbers
from interp.errors import InputError, short
from interp.keywords import check_keywords
from metrics.agreement_table import AgreementTable

HERE = "circuits.tracing.viewer"
# in the order in which they are run; those without a package are shared with the pages of circuits
SCRIPTS = (
    "text.js",
    f"{HERE}:graph.js",
    f"{HERE}:cut.js",
    "spelling.js",
    "naming.js",
    "address.js",
    f"{HERE}:state.js",
    "theme.js",
    f"{HERE}:joined.js",
    "svg.js",
    "png.js",
    "labels.js",
    f"{HERE}:places.js",
    f"{HERE}:links.js",
    f"{HERE}:drawing.js",
    "tip.js",
    "moving.js",
    f"{HERE}:touch.js",
    "choices.js",
    f"{HERE}:controls.js",
    "groups.js",
    "cards.js",
    f"{HERE}:known.js",
    f"{HERE}:details.js",
    "saving.js",
    f"{HERE}:export.js",
    "keyboard.js",
    f"{HERE}:main.js",
)
SHELL = Shell((f"{HERE}:help.html", "glossary.html"), f"{HERE}:stage.html", SCRIPTS, (*STYLES, f"{HERE}:trace.css"), {})


def to_html(graph: AttributionGraph, path: str | os.PathLike[str] | None = None, **known: Unpack[PageKeywords]) -> str:
    """See `AttributionGraph.to_html`."""
    check_keywords("to_html", known, PageKeywords)
    data = graph_data(graph)
    data["moved"] = {} if graph.subject is None else moved_data(moved_tokens(graph))
    prompts, labels, measured = known.get("prompts"), known.get("labels"), known.get("measured")
    data["contexts"] = None if prompts is None else context_data(contexts(graph, prompts))
    data["labels"] = {} if labels is None else labels_by_name(labels, graph.nodes)
    data["measured"] = None if measured is None else measured_data(_table(graph, measured))
    return SHELL.render(_title(graph), _facts(graph), data, path, still(graph_sketch(graph), _strongest(graph)))


def show(graph: AttributionGraph, **known: Unpack[PageKeywords]) -> None:
    """See `AttributionGraph.show`."""
    show_page(to_html(graph, **known), graph_sketch(graph))


def _table(graph: AttributionGraph, measured: Any) -> AgreementTable:
    if isinstance(measured, AgreementTable):
        if measured.column not in (None, "group"):
            raise InputError(f"measured is a table by {measured.column}; give what graph.check() returns")
        return measured
    if numbers.read(measured) is None:
        raise InputError(
            f"measured must be a table of graph.check(), or how many units to check; got {short(measured)}"
        )
    return graph.check(measured)


def _title(graph: AttributionGraph) -> str:
    prompt = "".join(graph.tokens).strip()
    return f"{graph.model} · {prompt if len(prompt) <= 120 else prompt[:117] + '...'}"


def _strongest(graph: AttributionGraph) -> pd.DataFrame:
    """The nodes of largest influence, as a page without scripts lists them."""
    columns = ["name", "kind", "layer", "position", "activation", "influence"]
    return graph.nodes.sort_values("influence", ascending=False)[columns]


def _facts(graph: AttributionGraph) -> list[str]:
    kinds = graph.nodes["kind"].value_counts()
    counts = [f"{kinds[kind]:,} {kind}s" for kind in ("neuron", "feature", "head", "mlp") if kind in kinds]
    scores = (("replacement", graph.replacement_score), ("completeness", graph.completeness_score))
    known = [f"{name} {value:.3f}" for name, value in scores if value == value]
    return [f"what {', '.join(map(repr, graph.target_tokens[:3]))} is made of", *counts, *known]

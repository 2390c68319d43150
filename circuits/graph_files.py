"""Circuits in the formats of other graph programs: GraphML and Graphviz's DOT."""

from __future__ import annotations

import os
from pathlib import Path

import networkx as nx

from circuits.circuit import Circuit
from interp.files import atomic_path, write_text

POSITIVE, NEGATIVE = "#0072B2", "#D55E00"  # as in the viewer


def write_graphml(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write `circuit.to_networkx()` as GraphML, which Gephi, yEd and Cytoscape read."""
    graph = circuit.to_networkx()
    for key, value in list(graph.graph.items()):
        if value is None:  # GraphML has no null
            del graph.graph[key]
    with atomic_path(path) as temporary:
        nx.write_graphml(graph, temporary)
    return Path(path)


def write_dot(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write the circuit for Graphviz: `dot -Tsvg circuit.dot`. Colour is the sign of a score, width its size."""
    graph = circuit.to_networkx()
    scores = [abs(score) for *_, score in graph.edges(data="score")]
    largest = max(scores, default=0.0) or 1.0
    name = circuit.provenance["model"] or "circuit"
    lines = [f"digraph {_quoted(str(name))} {{", "  rankdir=BT;", '  node [shape=box, fontname="sans-serif"];']
    lines += [f"  {_quoted(node)};" for node in graph]
    for source, reader, known in graph.edges(data=True):
        score = known["score"]
        style = {
            "color": NEGATIVE if score < 0 else POSITIVE,
            "penwidth": f"{0.5 + 4.5 * abs(score) / largest:.2f}",
            "tooltip": f"{known['edge']} {score:+.4g}",
        }
        attributes = ", ".join(f"{key}={_quoted(value)}" for key, value in style.items())
        lines.append(f"  {_quoted(source)} -> {_quoted(reader)} [{attributes}];")
    return write_text(path, "\n".join([*lines, "}", ""]))


def _quoted(text: str) -> str:
    """A string as DOT takes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

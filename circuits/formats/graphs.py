"""Circuits as other graph programs take them: networkx, GraphML and Graphviz's DOT."""

from __future__ import annotations

import os
import re
from pathlib import Path

import networkx as nx

from circuits.circuit import Circuit
from circuits.links import links, node_layer
from interp import theme
from interp.files import atomic_path, write_text

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # no XML can hold these


def to_networkx(circuit: Circuit) -> nx.MultiDiGraph:
    """See `Circuit.to_networkx`."""
    result = nx.MultiDiGraph(model=circuit.provenance["model"], method=circuit.provenance["method"])
    for name in circuit.nodes:
        result.add_node(name, layer=node_layer(name, circuit.graph))
    scores = circuit.edge_scores()
    for span, part in circuit.by_span():
        for source, target, reader in links(part, circuit.graph):
            port = target[-2] if target.endswith(">") else "in"
            edge, key, told = f"{source}->{target}", port, {}
            if span is not None:
                edge, key, told = f"{edge}@{span}", f"{port}@{span}", {"span": str(span)}
            result.add_edge(source, reader, key=key, port=port, score=scores[edge], edge=edge, **told)
    return result


def write_graphml(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write the graph of `to_networkx` as GraphML, which Gephi, yEd and Cytoscape read."""
    graph = to_networkx(circuit)
    for key, value in list(graph.graph.items()):
        if value is None:  # GraphML has no null
            del graph.graph[key]
        else:
            graph.graph[key] = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))
    with atomic_path(path) as temporary:
        nx.write_graphml(graph, temporary)
    return Path(path)


def write_dot(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write the circuit for Graphviz: `dot -Tsvg circuit.dot`. Colour is the sign of a score, width its size."""
    graph = to_networkx(circuit)
    scores = [abs(score) for *_, score in graph.edges(data="score")]
    largest = max(scores, default=0.0) or 1.0
    name = circuit.provenance["model"] or "circuit"
    lines = [f"digraph {_quoted(str(name))} {{", "  rankdir=BT;", '  node [shape=box, fontname="sans-serif"];']
    lines += [f"  {_quoted(node)};" for node in graph]
    for source, reader, known in graph.edges(data=True):
        score = known["score"]
        style = {
            "color": theme.NEGATIVE if score < 0 else theme.POSITIVE,
            "penwidth": f"{0.5 + 4.5 * abs(score) / largest:.2f}",
            "tooltip": f"{known['edge']} {score:+.4g}",
        }
        attributes = ", ".join(f"{key}={_quoted(value)}" for key, value in style.items())
        lines.append(f"  {_quoted(source)} -> {_quoted(reader)} [{attributes}];")
    return write_text(path, "\n".join([*lines, "}", ""]))


def _quoted(text: str) -> str:
    """A string as DOT takes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

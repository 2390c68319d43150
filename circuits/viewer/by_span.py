"""Columns by span: a circuit by position as the page takes it, each edge in the column of the span where it acts.

A node is drawn once for each span at which an edge leaves or enters it. Attention carries what keys and values read at
one span to the head at every span that sees it; the page traces along these crossings, which are no edges.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.circuit import Circuit
from circuits.links import node_layer, readers
from circuits.viewer.adjacency import Adjacency
from circuits.viewer.data import layout_data, packed_edges
from circuits.viewer.positions import MOST_NODES, arranged
from interp.errors import InputError
from interp.spans import SpanOrder

_PARTS_NAMES = re.compile(r"[,@>]|--?")  # what the page's address and names of edges use themselves


@dataclass(frozen=True)
class SpanNodes:
    """Nodes at spans, in the order of the graph's sources, then of the spans: numbers of both."""

    component: list[int]
    span: list[int]

    @classmethod
    def of(cls, pairs: set[tuple[int, int]]) -> SpanNodes:
        """From pairs of a component and a span."""
        component, span = zip(*sorted(pairs), strict=True) if pairs else ((), ())
        return cls(list(component), list(span))


def span_data(circuit: Circuit, limit: int) -> dict[str, Any]:
    """What the page's scripts read of a circuit by position beside what they read of any: its `limit` strongest edges.

    Raises `InputError` for more nodes at spans than a page can number.
    """
    assert circuit.spans is not None
    edges, nodes = span_edges(circuit, limit)
    if len(nodes.span) > MOST_NODES:
        raise InputError(
            f"the circuit has {len(nodes.span):,} nodes at {len(circuit.spans):,} spans, more than the {MOST_NODES:,} "
            "of a page; draw circuit.at_any_position(), or one with fewer edges"
        )
    graph, names = circuit.graph, [*circuit.graph.sources, "logits"]
    components, spans = [names[one] for one in nodes.component], span_labels(circuit.spans)
    order = SpanOrder.of(circuit.spans, circuit.scores.settings.get("span_order"))
    cells: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
    for number, (name, span) in enumerate(zip(components, nodes.span, strict=True)):
        cells[node_layer(name, graph), span].append((number, 0.0))
    layout = arranged(cells, len(spans), components)
    drawn = layout_data(layout, graph, len(components), [str(one) for one in circuit.spans])
    del drawn["marks"]  # each node has one place
    return {
        "nodes": [f"{name}@{spans[span]}" for name, span in zip(components, nodes.span, strict=True)],
        "components": components,
        "spans": {"names": spans, "of": nodes.span, "sees": order.sees.int().tolist()},
        "edges": packed_edges(edges),
        "layouts": {"layer": drawn, "position": None},
    }


def span_edges(circuit: Circuit, limit: int) -> tuple[Adjacency, SpanNodes]:
    """The `limit` strongest edges at spans, over nodes at spans, and these nodes.

    An edge into a key-value group stands once for each of its heads that write at any position.
    """
    reading = readers(circuit.anywhere, circuit.graph)
    number = {name: index for index, name in enumerate((*circuit.graph.sources, "logits"))}
    links = [
        (span, source, target, number[reader])
        for span, source, target in circuit.mask.nonzero().tolist()
        for reader in reading[target]
    ]
    scores = circuit.scores.values.double().numpy()
    values = np.array([scores[span, source, target] for span, source, target, _ in links])
    order = np.argsort(-np.abs(values), kind="stable")[:limit]
    links, total = [links[at] for at in order], len(links)
    nodes = SpanNodes.of({(node, span) for span, source, _, reader in links for node in (source, reader)})
    place = {pair: at for at, pair in enumerate(zip(nodes.component, nodes.span, strict=True))}
    source, reader, target = (
        np.array(column, dtype=np.int64)
        for column in (
            [place[source, span] for span, source, _, _ in links],
            [place[reader, span] for span, _, _, reader in links],
            [target for _, _, target, _ in links],
        )
    )
    return Adjacency(source, reader, target, values[order], np.abs(values[order]), total, len(order)), nodes


def span_labels(spans: tuple[Any, ...]) -> list[str]:
    """What spans are called in names of nodes; by number where the page would take a name apart."""
    return [f"span {number}" if _PARTS_NAMES.search(str(one)) else str(one) for number, one in enumerate(spans)]

"""Circuits by position: a column for each span, edges where they act, and tracing across positions inside attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.viewer.by_span import span_edges, span_labels
from interp.graph import ComputationalGraph
from interp.spans import SpanOrder
from tests.circuits.viewer.test_viewer import embedded, numbers

SPANS = ("S1", "verb", "end")


def made(edges: dict[str, list[str]] | None = None, seed: int = 0, graph: ComputationalGraph | None = None) -> Circuit:
    """Of some edges at spans, or of random ones."""
    graph = graph or ComputationalGraph(3, 3)
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(3, *graph.shape, generator=draw) * graph.edge_mask
    mask = (torch.rand(values.shape, generator=draw) < 0.06) & graph.edge_mask
    if edges is not None:
        mask = torch.zeros_like(mask)
        for edge, spans in edges.items():
            for span in spans:
                mask[SPANS.index(span)][graph.edge_index(edge)] = True
    order = SpanOrder(torch.ones(3, 3, dtype=torch.bool).triu(), torch.tensor([False, False, True]))
    settings = {"span_order": order.to_dict()}
    return Circuit(Scores(values, graph, method="eap", spans=SPANS, settings=settings), mask)


def traced(circuit: Circuit, component: str, span: int) -> int:
    """How many edges lie upstream and downstream of a node at a span, walked edge by edge."""
    every = {
        (s, source, target, reader)
        for s, part in enumerate(circuit.mask)
        for source, target, reader in _links(part, circuit.graph)
    }
    crosses = {edge for edge in every if edge[2].endswith(("<k>", "<v>"))}
    lit: set = set()
    todo = [(component, span)]
    while todo:
        node, at = todo.pop()
        for edge in every - lit:
            if edge[3] == node and (edge[0] <= at if edge in crosses else edge[0] == at):
                lit.add(edge)
                todo.append((edge[1], edge[0]))
    down: set = set()
    todo = [(component, span)]
    while todo:
        node, at = todo.pop()
        for edge in every - down:
            if (edge[1], edge[0]) == (node, at):
                down.add(edge)
                todo += [(edge[3], later) for later in range(edge[0], 3 if edge in crosses else edge[0] + 1)]
    return len(lit | down)


def _links(mask, graph):
    for source, target in mask.nonzero().tolist():
        name = graph.targets[target]
        yield graph.sources[source], name, name.split("<")[0]


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return made()


def test_edges_stand_in_the_columns_of_their_spans(open_page, circuit):
    page = circuit.to_html()
    opened, data = open_page(page), embedded(page)
    assert opened.shown == circuit.n_edges
    assert opened.page.locator("#mode").count() == 0
    ticks, at, nodes, x = opened.page.evaluate(
        """() => { const { columns, nodes } = document.getElementById("plot").seen();
        const of = (list, key) => list.map((one) => one[key]);
        return [of(columns, "text"), of(columns, "x"), of(nodes, "name"), of(nodes, "x")]; }"""
    )
    assert ticks == list(SPANS)
    for node, place in zip(nodes, x, strict=True):
        assert node.split("@")[1] == ticks[int(np.abs(np.array(at) - place).argmin())]
    parts = [numbers(data, name, "<u2").tolist() for name in ("source", "reader", "target")]
    drawn = {}
    for source, reader, target, score in zip(*parts, numbers(data, "score", "<f4").tolist(), strict=True):
        span = data["spans"]["of"][source]
        assert span == data["spans"]["of"][reader]
        drawn[f"{data['components'][source]}->{data['targets'][target]}@{SPANS[span]}"] = score
    assert drawn == pytest.approx(circuit.edge_scores(), rel=1e-6)
    edge = next(iter(circuit.edge_scores()))
    opened.select(edge)
    assert opened.text("#selection").startswith(f"{edge.split('->')[0]}@{edge.split('@')[1]} →")


def test_tracing_follows_keys_and_values_to_later_spans_and_nothing_else(open_page, circuit):
    opened = open_page(circuit.to_html())
    names = embedded(circuit.to_html())["nodes"]
    for name in [one for one in names if ".h" in one][::3] + [one for one in names if one.startswith("m")][:3]:
        opened.again(f"#select={name}")
        opened.settled()
        component, span = name.split("@")
        told = int(opened.text("#traced").split("traces ")[1].split(" edge")[0].replace(",", ""))
        assert told == traced(circuit, component, SPANS.index(span)), name


def test_a_path_says_where_attention_crosses(open_page):
    edges = {"input->a0.h1<v>": ["S1"], "input->a0.h1<q>": ["verb"], "a0.h1->m1": ["verb"], "m1->logits": ["end"]}
    opened = open_page(made(edges).to_html())
    opened.select("m1@verb")
    assert "input@S1" in opened.text("#paths")
    assert "⇝" in opened.text("#paths")
    assert "a0.h1@verb" in opened.text("#paths")
    assert "traces 3 edges: 3 nodes upstream" in opened.text("#traced")
    opened.select("input->a0.h1<v>@S1")
    assert "traces 2 edges" in opened.text("#traced")
    # an MLP carries nothing to another position
    opened.select("m1@end")
    assert "traces 1 edge:" in opened.text("#traced")


def test_groups_of_keys_stand_once_for_each_head_that_writes_anywhere():
    graph = ComputationalGraph(2, 4, n_kv_heads=2, kv="group")
    edges = {"input->a0.h0<k>": ["S1"], "a0.h1->logits": ["end"], "input->a1.h1<v>": ["verb"]}
    circuit = made(edges, graph=graph)
    found, nodes = span_edges(circuit, 100)
    assert found.total == 4  # the second group writes nowhere: both its heads read
    assert [graph.sources[one] if one < len(graph.sources) else "logits" for one in nodes.component].count("a0.h0") == 0
    assert len(span_edges(circuit, 2)[0].score) == 2


def test_names_that_the_page_would_take_apart_are_numbered():
    assert span_labels(("S1", 4, "a, b", "x->y", "at@home")) == ["S1", "4", "span 2", "span 3", "span 4"]

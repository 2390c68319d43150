from __future__ import annotations

import itertools
import json
import math
from urllib.parse import parse_qs

import networkx as nx
import pytest

from circuits.circuit import Circuit


def score_text(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{float(f'{abs(value):.4g}'):g}"


def inflow_shares(circuit: Circuit) -> nx.MultiDiGraph:
    """The circuit with each edge's share of the |score| that flows into its reader."""
    graph = circuit.to_networkx()
    for node in graph:
        total = sum(abs(score) for *_, score in graph.in_edges(node, data="score"))
        for *_, known in graph.in_edges(node, data=True):
            known["share"] = abs(known["score"]) / total
    return graph


def test_hovering_over_an_edge_tells_name_score_rank_share_and_port(open_page, circuit, circuit_page):
    opened, shares = open_page(circuit_page), inflow_shares(circuit)
    frame = circuit.to_frame()
    rank, row = next((rank, row) for rank, row in frame.iterrows() if row["target"].endswith("<v>"))
    reader = row["target"][:-3]
    share = shares.edges[row["source"], reader, "v"]["share"]
    lines = opened.hover("edges", f"{row['source']} → {reader} (v)").splitlines()
    assert lines == [
        f"{row['source']} → {reader} (v)",
        f"score {score_text(row['score'])}",
        f"rank {rank + 1} of 120",
        f"{100 * share:.{1 if share < 0.1 else 0}f} % of the inflow of {reader}",
        "port: values (v)",
    ]


def test_hovering_over_a_node_tells_its_degrees_and_sums(open_page, circuit, circuit_page):
    opened, graph = open_page(circuit_page), circuit.to_networkx()
    lines = opened.hover("nodes", "m1").splitlines()
    assert lines[0] == "m1"
    for line, edges in zip(
        lines[1:], (graph.in_edges("m1", data="score"), graph.out_edges("m1", data="score")), strict=True
    ):
        total = sum(score for *_, score in edges)
        assert line.split(": ")[1] == f"{len(edges)} edges, sum of scores {score_text(total)}"
    opened.page.mouse.move(5, 5)
    assert opened.page.is_hidden("#tip")


def test_a_click_traces_everything_upstream_and_downstream(open_page, circuit, circuit_page):
    opened, graph = open_page(circuit_page), circuit.to_networkx()
    opened.click("nodes", "m1")
    up, down = nx.ancestors(graph, "m1"), nx.descendants(graph, "m1")
    upstream = sum(target in up | {"m1"} for _, target in graph.edges())
    downstream = sum(source in down | {"m1"} for source, _ in graph.edges())
    assert opened.text("#selection") == "m1"
    assert opened.text("#traced") == (
        f"It traces {upstream + downstream} edges: {len(up)} nodes upstream, {len(down)} downstream."
    )
    nodes = opened.page.evaluate("document.getElementById('plot').seen().nodes")
    assert {node["name"] for node in nodes if node["lit"]} == up | down | {"m1"}
    opened.page.keyboard.press("Escape")
    opened.settled()
    assert opened.page.locator("#selection").count() == 0


@pytest.mark.parametrize("through", ["m1", "a1.h2"])
def test_the_strongest_paths_are_those_of_the_largest_product_of_shares(open_page, circuit, circuit_page, through):
    opened, graph = open_page(circuit_page), inflow_shares(circuit)
    opened.select(through)
    told = [
        (" ".join(text.split()).split(" % ")[0], row.locator("button").all_inner_texts())
        for row in opened.page.locator("#paths li").all()
        for text in [row.inner_text()]
    ]
    roots, leaves = ["input"], ["logits"]
    assert "input" in nx.ancestors(graph, through)
    assert "logits" in nx.descendants(graph, through)
    products: list[tuple[float, list[str]]] = []
    for root, leaf in itertools.product(roots, leaves):
        for path in nx.all_simple_edge_paths(graph, root, leaf):
            nodes = [root, *(target for _, target, _ in path)]
            if through in nodes:
                products.append((math.prod(graph.edges[edge]["share"] for edge in path), nodes))
    products.sort(key=lambda each: -each[0])
    assert [nodes for _, nodes in told] == [nodes for _, nodes in products[:6]]
    for (text, _), (product, _) in zip(told, products, strict=False):
        assert float(text) == pytest.approx(100 * product, abs=0.5 if product >= 0.1 else 0.06)


def test_an_edge_can_be_selected_and_shows_its_figures(open_page, circuit, circuit_page):
    opened = open_page(circuit_page)
    row = circuit.to_frame().iloc[0]
    arrow = row["edge"].replace("->", " → ").replace("<", " (").replace(">", ")")
    opened.click("edges", arrow)
    assert opened.text("#selection") == arrow
    assert score_text(row["score"]) in opened.text("#selected .figures")
    assert opened.page.locator("#paths li").count() > 0


def test_pins_and_groups_live_in_the_address(open_page, circuit_page):
    opened = open_page(circuit_page, "#top=80")
    opened.click("nodes", "m1", shift=True)
    opened.click("nodes", "m2", shift=True)
    assert opened.page.locator("#pins .chip").all_inner_texts() == ["m1×", "m2×"]
    assert opened.page.locator("#selection").count() == 0, "shift-click does not select"
    opened.page.fill("#group-label", 'movers "&<b>')
    opened.page.click("#group")
    opened.settled()
    assert opened.page.locator("#pins .chip").count() == 0
    assert 'movers "&<b>' in opened.text("#legend")
    assert 'm1 · movers "&<b>' in opened.hover("nodes", "m1")
    opened.click("nodes", "m3", shift=True)
    fragment = opened.page.evaluate("location.hash")
    known = parse_qs(fragment[1:])
    assert known["pins"] == ["m3"]
    assert json.loads(known["groups"][0]) == [['movers "&<b>', "m1", "m2"]]

    again = open_page(circuit_page, fragment, fresh=True)
    assert again.shown == 80
    assert again.page.locator("#pins .chip").all_inner_texts() == ["m3×"]
    assert 'movers "&<b>' in again.text("#legend")
    again.page.click("#groups .remove")
    again.settled()
    assert "movers" not in again.text("#legend")


def test_a_damaged_address_shows_the_circuit(open_page, circuit_page):
    opened = open_page(circuit_page, "#top=x&groups=[1&sign=sideways&select=m99&pins=m99,m1&mode=position&ports=zz")
    assert opened.page.locator("#pins .chip").all_inner_texts() == ["m1×"]
    assert opened.shown == 0, "no known port is left on"
    opened.page.click("#reset")
    opened.settled()
    assert opened.shown == 120

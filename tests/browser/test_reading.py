"""Reading the graph: how much is drawn at first, spellings, labels, groups as nodes, a subgraph, sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from circuits.circuit import Circuit
from interp.graph import ComputationalGraph
from tests.browser.conftest import Opened, make_circuit


def seen(opened: Opened) -> dict[str, Any]:
    """What stands where in the picture."""
    return opened.page.evaluate("document.getElementById('plot').seen()")


def labels(opened: Opened) -> set[str]:
    """Names that are written in the picture."""
    return {node["label"] for node in seen(opened)["nodes"]} - {""}


def test_a_large_circuit_opens_at_its_strongest_edges_and_shows_more(open_page) -> None:
    opened = open_page(make_circuit(ComputationalGraph(12, 12), n=1_200).to_html())
    assert opened.shown == 200
    assert opened.text("#shown").startswith("200 of 1,200 edges")
    opened.page.click("#more")
    opened.settled()
    assert opened.shown == 500
    opened.page.click("#more")
    opened.settled()
    assert opened.shown == 1_200
    assert opened.page.is_hidden("#more")
    assert opened.page.evaluate("location.hash") == "#top=all"
    opened.page.click("#reset")
    opened.settled()
    assert opened.shown == 200


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a2.h3", "a2.h3"),
        ("a2h3", "a2.h3"),
        ("L2H3", "a2.h3"),
        ("2.3", "a2.h3"),
        ("m2", "m2"),
        ("MLP 2", "m2"),
        ("L2 mlp", "m2"),
    ],
)
def test_a_search_takes_the_spellings_of_the_field(open_page, circuit_page, text, name) -> None:
    opened = open_page(circuit_page)
    opened.page.fill("#search", text)
    assert opened.page.locator("#found button").first.inner_text() == name


def test_edges_are_found_by_any_spelling_too(open_page, circuit, circuit_page) -> None:
    edge = next(name for name in circuit.edges if name.startswith("m0->a"))
    reader = edge.partition("->")[2]
    layer, head = reader[1:].split("<")[0].split(".h")
    opened = open_page(circuit_page)
    opened.page.fill("#search", f"MLP 0 -> L{layer}H{head}")
    assert edge.replace("->", " → ") in opened.page.locator("#found button").all_inner_texts()


def test_labels_of_ones_own_stand_in_the_picture_the_address_and_what_is_saved(
    open_page, circuit_page, tmp_path
) -> None:
    opened = open_page(circuit_page, "#select=a2.h1")
    opened.page.fill("#label", "copies <b>names")
    opened.page.press("#label", "Enter")
    opened.settled()
    assert "a2.h1 · copies <b>names" in labels(opened)
    assert opened.text("#selection") == "a2.h1 · copies <b>names"
    address = opened.page.evaluate("location.hash")
    view = json.loads(opened.download("json", tmp_path).read_text())
    assert view["state"]["labels"] == {"a2.h1": "copies <b>names"}
    again = open_page(circuit_page, address)
    again.page.fill("#search", "copies")
    assert again.page.locator("#found button").all_inner_texts() == ["a2.h1"]
    again.page.fill("#search", "")
    again.page.fill("#label", "")
    again.page.press("#label", "Enter")
    again.settled()
    assert "labels" not in again.page.evaluate("location.hash")


GROUPED = '#groups=[["movers","a2.h0","a2.h1","a2.h2"]]'


def test_a_group_closes_to_one_node_with_the_sums_of_its_edges(open_page, circuit: Circuit, circuit_page: Path) -> None:
    opened = open_page(circuit_page, GROUPED)
    opened.page.click("#groups .close")
    opened.settled()
    names = labels(opened)
    assert "movers" in names
    assert "a2.h1" not in names
    members = {"a2.h0", "a2.h1", "a2.h2"}
    links = {
        edge: (source, reader) for (source, target, reader), edge in zip(circuit.links(), circuit.edges, strict=True)
    }
    score = circuit.edge_scores()
    out = {edge: reader for edge, (source, reader) in links.items() if source in members and reader not in members}
    reader = max(set(out.values()), key=lambda one: sum(other == one for other in out.values()))
    those = [edge for edge, to in out.items() if to == reader]
    assert len(those) > 1
    told = next(edge["told"] for edge in seen(opened)["edges"] if edge["name"] == f"movers → {reader}")
    total = float(told.split("sum of scores ")[1].split("\n")[0].replace("−", "-"))
    assert total == pytest.approx(sum(score[edge] for edge in those), rel=1e-3)
    assert f"of {len(those)} edges" in told
    assert "closed=0" in opened.page.evaluate("location.hash")
    opened.again(f"{GROUPED}&closed=0&select=group:0")
    opened.settled()
    assert opened.text("#selection") == "movers"
    assert f"{len(out)} edges" in opened.text("#selected .figures")
    opened.page.click("#close-group")
    opened.settled()
    assert "a2.h1" in labels(opened)


def test_pinned_nodes_and_groups_alone(open_page, circuit, circuit_page) -> None:
    opened = open_page(circuit_page, f"{GROUPED}&pins=m0,m3")
    opened.page.check("#only-pinned", force=True)
    opened.settled()
    inside = {"a2.h0", "a2.h1", "a2.h2", "m0", "m3"}
    assert opened.shown == sum(source in inside and reader in inside for source, _, reader in circuit.links())
    assert {node["name"] for node in seen(opened)["nodes"]} == inside
    assert "only=pinned" in opened.page.evaluate("location.hash")


def test_nodes_are_as_large_as_their_scores(open_page, circuit, circuit_page) -> None:
    opened = open_page(circuit_page)
    assert len({node["size"] for node in seen(opened)["nodes"]}) == 1
    opened.page.check("#size-importance", force=True)
    opened.settled()
    weight: dict[str, float] = {}
    for (source, _, reader), edge in zip(circuit.links(), circuit.edges, strict=True):
        for name in (source, reader):
            weight[name] = weight.get(name, 0.0) + abs(circuit.edge_scores()[edge])
    largest = max(seen(opened)["nodes"], key=lambda node: node["size"])
    assert largest["name"] == max(weight, key=weight.__getitem__)


def test_a_closed_group_is_dragged_and_stays_where_it_was_put(open_page, circuit_page) -> None:
    opened = open_page(circuit_page, GROUPED + "&closed=0")
    before = opened.place("nodes", "movers")
    others = opened.place("nodes", "m1")
    opened.page.mouse.move(*before)
    opened.page.mouse.down()
    opened.page.mouse.move(before[0] + 120, before[1] - 60, steps=4)
    opened.page.mouse.up()
    assert opened.place("nodes", "movers") == pytest.approx((before[0] + 120, before[1] - 60), abs=1)
    assert opened.place("nodes", "m1") == pytest.approx(others)
    assert opened.page.locator("#selection").count() == 0  # a drag is no click
    address = opened.page.evaluate("location.hash")
    again = open_page(circuit_page, address).place("nodes", "movers")
    assert again == pytest.approx((before[0] + 120, before[1] - 60), abs=2)


def test_the_picture_is_dragged_zoomed_and_shown_whole_again(open_page, circuit_page) -> None:
    opened = open_page(circuit_page, fresh=True)
    first, second = opened.place("nodes", "a2.h1"), opened.place("nodes", "m1")
    opened.page.mouse.move(first[0] + 40, first[1] + 25)
    opened.page.mouse.down()
    opened.page.mouse.move(first[0] + 70, first[1] + 5, steps=3)
    opened.page.mouse.up()
    assert opened.place("nodes", "a2.h1") == pytest.approx((first[0] + 30, first[1] - 20), abs=1)
    opened.page.mouse.wheel(0, -400)
    opened.page.wait_for_function(f"{FIND}('m1').x - {FIND}('a2.h1').x > {1.3 * (second[0] - first[0])}")
    opened.page.focus("#plot")
    opened.page.keyboard.press("0")
    assert opened.place("nodes", "a2.h1") == pytest.approx(first)


FIND = "((name) => document.getElementById('plot').seen().nodes.find((one) => one.name === name))"

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import networkx as nx

VIEW = "#top=50&sign=positive&select=m1&pins=m2&groups=" + '[["movers","m3"]]'


def test_the_view_is_exported_as_json_and_loaded_again(open_page, circuit, circuit_page, tmp_path):
    opened = open_page(circuit_page, VIEW)
    path = opened.download("json", tmp_path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "tiny-ioi-eap-ig.json"
    positive = circuit.to_frame().query("score >= 0").head(50)
    assert [edge["edge"] for edge in saved["edges"]] == positive["edge"].tolist()
    assert saved["provenance"]["method"] == "eap-ig"
    assert {node["name"]: node.get("group") for node in saved["nodes"]}["m3"] == "movers"

    fresh = open_page(circuit_page, fresh=True)
    fresh.page.set_input_files("#load-file", str(path))
    fresh.page.wait_for_selector("#selection")
    fresh.settled()
    assert fresh.shown == 50
    assert fresh.text("#selection") == "m1"
    assert fresh.page.locator("#pins .chip").all_inner_texts() == ["m2×"]
    assert "movers" in fresh.text("#legend")
    fresh.page.set_input_files("#load-file", {"name": "x.json", "mimeType": "application/json", "buffer": b"[]"})
    fresh.page.wait_for_function("document.getElementById('shown').textContent.includes('holds no view')")


def test_the_page_saves_itself_with_its_view(open_page, circuit_page, tmp_path):
    opened = open_page(circuit_page, VIEW)
    copy = open_page(opened.download("html", tmp_path))
    assert copy.shown == 50
    assert copy.text("#selection") == "m1"
    assert copy.page.locator("#threshold").count() == 1
    again = copy.download("html", tmp_path)
    assert again.stat().st_size < circuit_page.stat().st_size + 1_000


def test_pictures(open_page, circuit_page, tmp_path):
    opened = open_page(circuit_page)
    svg = ElementTree.parse(opened.download("svg", tmp_path)).getroot()
    texts = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a1.h0", "logits", "MLP"} <= texts
    png = opened.download("png", tmp_path).read_bytes()
    assert png.startswith(b"\x89PNG")
    width = opened.page.evaluate("document.getElementById('plot').getBoundingClientRect().width")
    assert int.from_bytes(png[16:20], "big") == 2 * round(width)


def test_graphs(open_page, circuit, circuit_page, tmp_path):
    opened = open_page(circuit_page)
    graph = nx.read_graphml(opened.download("graphml", tmp_path), force_multigraph=True)
    own = circuit.to_networkx()
    assert set(graph) == set(own)
    scores = {known["edge"]: known["score"] for *_, known in graph.edges(data=True)}
    assert scores.keys() == set(circuit.edges)
    assert all(abs(scores[name] - value) < 1e-6 for name, value in circuit.edge_scores().items())
    assert graph.nodes["logits"]["layer"] == 4
    dot = opened.download("dot", tmp_path).read_text(encoding="utf-8")
    assert dot.startswith('digraph "tiny · ioi · eap-ig" {')
    assert dot.count(" -> ") == circuit.n_edges

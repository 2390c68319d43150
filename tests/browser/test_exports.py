from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree

import networkx as nx
import pytest
from PIL import Image

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


def test_pictures_carry_title_size_legend_and_groups(open_page, circuit_page, tmp_path):
    opened = open_page(circuit_page, '#groups=[["movers","m3"]]')
    svg = ElementTree.parse(opened.download("svg", tmp_path)).getroot()
    texts = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a1.h0", "logits", "MLP", "helps (positive score)", "movers", "tiny · ioi · eap-ig"} <= texts
    assert any("120 of 120 edges" in text and "faithfulness 0.90" in text for text in texts)
    lines = [path.get("d").count("M") for path in svg.iter("{http://www.w3.org/2000/svg}path")]
    assert sum(lines) == 120 + 3  # and the legend
    png = opened.download("png", tmp_path).read_bytes()
    assert png.startswith(b"\x89PNG")
    width = opened.page.evaluate("document.getElementById('plot').getBoundingClientRect().width")
    assert int.from_bytes(png[16:20], "big") == round(width * 300 / 96)
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()  # its checksums are right
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)


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


def test_a_frame_that_lets_nothing_out_says_so(browser, circuit_page, tmp_path):
    around = tmp_path / "around.html"
    barred = f'sandbox="allow-scripts" src="{circuit_page.as_uri()}"'
    around.write_text(f'<iframe {barred} width="1200" height="800"></iframe>')
    context = browser.new_context()
    page = context.new_page()
    page.goto(around.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready]").wait_for(state="attached")
    frame.locator("#export-menu summary").click()
    frame.locator("#export-json").click()
    told = "This frame may not save files"
    page.wait_for_timeout(100)
    assert told in frame.locator("#shown").inner_text()
    context.close()


def test_elsewhere_saving_says_nothing(open_page, circuit_page, tmp_path):
    opened = open_page(circuit_page)
    opened.download("json", tmp_path)
    assert "may not save" not in opened.text("#shown")

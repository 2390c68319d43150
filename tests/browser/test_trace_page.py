"""The page of an attribution graph in a browser. Few pages are opened: one is used again by most tests."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits import AttributionGraph, trace
from tests.dictionaries import random_dictionary
from tests.tiny import D_MODEL, VOCAB, tiny

ATTACK = "<img src=x onerror=window.owned=1><b>x</b>"


@pytest.fixture(scope="module")
def graph() -> AttributionGraph:
    return trace(tiny("llama"), torch.tensor([3, 17, 5, 40, 9]), [7, 11], top=30, quiet=True)


@pytest.fixture(scope="module")
def trace_page(graph: AttributionGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "trace.html"
    prompts = torch.randint(2, VOCAB, (3, 6), generator=torch.Generator().manual_seed(0))
    graph.to_html(path, prompts=prompts, measured=4, labels={strongest(graph): "the strongest"})
    return path


def strongest(graph: AttributionGraph, kind: str = "neuron", at: int = 0) -> str:
    rows = graph.nodes[graph.nodes["kind"] == kind].sort_values("influence", ascending=False, kind="stable")
    return str(rows["name"].iloc[at])


def drawn(opened: Any) -> set[str]:
    return set(opened.page.locator("#plot .node").evaluate_all("(all) => all.map((each) => each.dataset.name)"))


def middle(opened: Any, name: str) -> tuple[float, float]:
    box = opened.page.locator(f"#plot [data-name='{name}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def listed(opened: Any, side: str) -> list[tuple[str, float]]:
    rows = opened.page.locator(f"#{side} li")
    texts = [rows.nth(at).locator("*").all_inner_texts() for at in range(rows.count())]
    return [(row[0].split(" ")[0], float(row[-1].replace("\u2212", "-"))) for row in texts]


def test_the_page_draws_what_pruning_keeps_at_any_slider(open_page, graph, trace_page):
    opened = open_page(trace_page, fresh=False)
    for nodes, edges in ((0.8, 0.98), (0.5, 0.98), (0.95, 0.6), (0.3, 0.3)):
        opened.slide("nodes", round(1000 * nodes))
        opened.slide("edges", round(1000 * edges))
        small = graph.prune(nodes, edges)
        assert drawn(opened) == set(small.nodes["name"])
        assert opened.shown == int((small.adjacency != 0).sum())
    assert opened.text("#nodes-value") == "30 %"
    assert f"{opened.shown} links between {len(small.nodes)} nodes" == opened.text("#shown")
    opened.page.check("#sign-takes", force=True)
    names = small.nodes["name"].tolist()
    rest = small.adjacency.clone()
    rest[:, names.index("remainder")] = 0
    assert opened.shown == int((rest < 0).sum()) + int((small.adjacency[:, names.index("remainder")] != 0).sum())


def test_a_click_lists_inputs_and_outputs_that_add_up(open_page, graph, trace_page):
    opened, name = open_page(trace_page), strongest(graph)
    opened.page.mouse.click(*middle(opened, name))
    assert opened.page.locator("#selection").count() == 1
    shown = opened.page.locator("#selected .figures").first.inner_text()
    assert name in shown
    assert "the strongest" in shown
    if opened.page.locator("#incoming .more").count():
        opened.page.click("#incoming .more")
    nodes = graph.nodes.set_index("name")
    edges = graph.edges.query("target == @name")
    edges = edges[edges["source"].map(nodes["kind"]) != "bias"]
    inputs = [row for row in listed(opened, "incoming") if row[0] != "biases"]
    assert [value for _, value in inputs] == pytest.approx(edges["weight"].tolist(), rel=6e-3)
    assert f"{abs(float(f'{nodes.activation[name]:.4g}')):g}, its activation" in opened.text("#incoming .hint")
    outputs = graph.edges.query("source == @name")["weight"].tolist()
    assert [value for _, value in listed(opened, "outgoing")] == pytest.approx(outputs[:10], rel=6e-3)
    assert opened.page.locator("#moved .up li").count() == 6
    assert opened.page.locator("#contexts li").count() >= 1
    assert "predicted" in opened.text("#measured")
    opened.page.mouse.move(*middle(opened, name))
    assert "influence" in opened.text("#tip")


def test_pins_become_a_group_whose_links_are_sums(open_page, graph, trace_page):
    opened = open_page(trace_page)
    first, second = strongest(graph), strongest(graph, at=1)
    opened.page.keyboard.down("Shift")
    for name in (first, second):
        opened.page.mouse.click(*middle(opened, name))
    opened.page.keyboard.up("Shift")
    assert opened.page.locator("#pins .chip .link").all_inner_texts() == [first, second]
    opened.page.fill("#group-label", "pair")
    opened.page.click("#group")
    opened.page.check("#only-pinned", force=True)
    opened.page.mouse.move(2, 2)
    names = graph.nodes["name"].tolist()
    state = f"#only=pinned&pins=logit0&groups={json.dumps([['pair', first, second]])}"
    opened.again(state)
    assert drawn(opened) == {first, "logit0", "remainder"}
    opened.page.locator("#plot .kind-group").click()
    assert opened.text("#selection") == "pair"
    weight = sum(float(graph.adjacency[names.index("logit0"), names.index(name)]) for name in (first, second))
    value = opened.page.locator("section.card:has-text('Goes out of it') .score").first.inner_text()
    assert float(value.replace("\u2212", "-")) == pytest.approx(weight, rel=6e-3)
    assert "group%3A0" in opened.page.evaluate("location.hash")


def test_search_and_keyboard_reach_every_node(open_page, graph, trace_page):
    opened, name = open_page(trace_page), strongest(graph)
    page = opened.page
    page.keyboard.press("/")
    page.keyboard.type("the strong")
    assert name in opened.text("#found")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash").count("select=") == 1
    page.keyboard.press("Escape")
    assert page.locator("#selection").count() == 0
    page.focus("#plot")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.name").startswith("logit")
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.dataset.name")
    assert not below.startswith("logit")
    page.keyboard.press("Enter")
    assert page.locator("#selection").count() == 1
    assert page.evaluate("document.activeElement.dataset.name") == below
    page.keyboard.press("p")
    assert page.locator("#pins .chip .link").all_inner_texts() == [below]
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, summary, input:not([hidden]), [role=button]")].filter((each) =>
          !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.[0]?.textContent.trim()))
          .length"""
    )
    assert nameless == 0


def test_views_and_pictures_are_exported(open_page, graph, trace_page, tmp_path):
    opened, name = open_page(trace_page, "#nodes=0.5&pins=logit0"), strongest(graph)
    svg = ElementTree.parse(opened.download("svg", tmp_path)).getroot()
    texts = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"logits", "tokens", "the strongest"} <= texts
    png = opened.download("png", tmp_path).read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == round(float(svg.get("width")) * 300 / 96)
    path = opened.download("json", tmp_path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    small = graph.prune(0.5, 0.98)
    assert {node["name"] for node in saved["nodes"]} == set(small.nodes["name"])
    weights = {(link["source"], link["target"]): link["weight"] for link in saved["links"]}
    edges = small.edges.set_index(["source", "target"])["weight"].to_dict()
    assert edges.keys() <= weights.keys()
    assert all(weights[key] == pytest.approx(value, rel=1e-5) for key, value in edges.items())
    opened.again("")
    opened.page.set_input_files("#load-file", str(path))
    opened.page.wait_for_selector("#pins .chip")
    assert opened.text("#nodes-value") == "50 %"
    ground = "getComputedStyle(document.body).backgroundColor"
    light = opened.page.evaluate(ground)
    opened.page.click("#theme")
    assert opened.page.evaluate(ground) != light
    opened.page.click("#theme")
    assert name in drawn(opened)


def test_graphs_of_other_programs_open_and_markup_does_nothing(open_page, graph, tmp_path):
    content = json.loads(graph.to_json(tmp_path / "graph.json").read_text(encoding="utf-8"))
    content["metadata"]["prompt_tokens"] = [ATTACK for _ in graph.tokens]
    content["metadata"]["scan"] = ATTACK
    for node in content["nodes"]:
        node["clerp"] = ATTACK if node["feature_type"] == "logit" else node["clerp"]
    (tmp_path / "attacked.json").write_text(json.dumps(content), encoding="utf-8")
    read = AttributionGraph.from_json(tmp_path / "attacked.json")
    name = strongest(graph)
    opened = open_page(
        read.to_html(labels={name: ATTACK}), f"#select={name}&groups={json.dumps([[ATTACK, 'token@1']])}"
    )
    assert opened.shown >= len(read.edges) - 1
    assert {"remainder", name} <= drawn(opened)
    assert ATTACK in opened.text("h1")
    opened.page.mouse.move(*middle(opened, name))
    assert ATTACK in opened.text("#tip")
    opened.select(name)
    assert opened.page.evaluate("window.owned") is None
    assert opened.page.locator("img, #plot b, #details b, body script ~ script ~ script").count() == 0


@pytest.mark.slow
def test_errors_of_transcoders_are_drawn_and_named(open_page):
    units = [
        random_dictionary("transcoder", D_MODEL, layer=0), random_dictionary("transcoder", D_MODEL, layer=1),
        random_dictionary("transcoder", D_MODEL, layer=2, skip=True),
    ]  # fmt: skip
    graph = trace(tiny("llama"), torch.tensor([3, 17, 5, 40, 9]), [7, 11], units=units, top=30, quiet=True)
    small = graph.prune()
    errors = small.nodes[small.nodes["kind"] == "error"]
    assert len(errors) > 1
    labelled = errors.sort_values("influence", ascending=False)["name"].iloc[1]
    opened = open_page(graph.to_html(labels={labelled: "missed here"}))
    named = opened.page.locator("#plot svg > g > text").all_text_contents()  # beside the marks
    assert "missed here" in named
    assert "error" in named
    assert drawn(opened) == set(small.nodes["name"])
    assert opened.page.locator("#plot .kind-error path").count() == len(errors)
    assert opened.page.locator("#plot .kind-feature circle").count() > 0
    assert {"error", "feature"} <= set(opened.page.locator("#legend .key").all_inner_texts())
    row = errors.sort_values("influence", ascending=False).iloc[0]
    mark = opened.page.locator(f"#plot [data-name='{row['name']}']")
    assert mark.get_attribute("aria-label") == f"error {row['name']}, error, token {graph.tokens[row['position']]}"
    opened.page.mouse.move(*middle(opened, row["name"]))
    assert opened.text("#tip").startswith(f"error of layer {row['layer']} at ")
    opened.page.mouse.click(*middle(opened, row["name"]))
    assert "what the dictionary misses of this MLP" in opened.text("#selected .figures")
    weights = graph.edges.query("source == @row['name']")["weight"].tolist()
    assert [value for _, value in listed(opened, "outgoing")] == pytest.approx(weights[:10], rel=6e-3)
    assert "Not explained" in opened.text("#quality")
    links = small.edges[
        small.edges["source"].isin(errors["name"]) & small.edges["target"].str.contains(".f", regex=False)
    ]
    opened.select(links["target"].iloc[0])
    assert opened.page.locator("#moved .up li").count() == 6
    if opened.page.locator("#incoming .more").count():
        opened.page.click("#incoming .more")
    assert links["source"].iloc[0] in opened.text("#incoming")

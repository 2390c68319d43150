"""The page of a circuit of nodes in a browser."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attribution.scores import Scores
from circuits import NodeCircuit
from circuits.report import Report
from interp import ComputationalGraph
from interp.node_mask import NodeMask
from interp.setting import Setting
from tests.tiny import shared, tiny_task

ATTACK = "<img src=x onerror=window.owned=1><b>x</b>"
REPORT = Report(
    faithfulness=0.86, interval=(0.8, 0.92), n_held_out=32, random_faithfulness=0.02, random_interval=(0.0, 0.05),
    complement=0.1, complement_interval=(0.05, 0.15), level="neuron", notes=[ATTACK],
    ladder=[{"size": n, "nodes": n, "faithfulness": value} for n, value in ((1, 0.1), (10, 0.5), (60, 0.9))],
)  # fmt: skip


def make(level: str, shape: tuple[int, ...], graph: ComputationalGraph, spans=None, share=0.5) -> NodeCircuit:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).pow(3)
    scores = Scores(values, graph, method="eap-ig", level=level, spans=spans, model="tiny", task={"name": ATTACK})
    order = values.abs().flatten().sort(descending=True).values
    return NodeCircuit(scores, values.abs() >= order[int(share * len(order)) - 1], REPORT)


@pytest.fixture(scope="module")
def model():
    return shared("llama")


@pytest.fixture(scope="module")
def circuit(model) -> NodeCircuit:
    return make("neuron", (3, 24), ComputationalGraph.of(model))


@pytest.fixture(scope="module")
def page(circuit, model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "nodes.html"
    circuit.to_html(path, model=model, task=tiny_task(model))
    return path


def listed(opened, column: int) -> list[str]:
    return opened.page.locator(f"#listing tbody td:nth-child({column})").all_inner_texts()


def drawn(opened) -> list[str]:
    return opened.page.locator("#plot .node").evaluate_all("(all) => all.map((each) => each.dataset.name)")


def middle(opened, name: str) -> tuple[float, float]:
    box = opened.page.locator(f"#plot [data-name='{name}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_search_sort_and_select(open_page, circuit, page):
    opened, frame = open_page(page), circuit.to_frame()
    names = frame["node"].tolist()
    assert sorted(drawn(opened)) == sorted(names)
    assert opened.shown == len(names)
    assert listed(opened, 2) == names
    opened.page.click("[data-sort=score]")
    falling = frame.sort_values("score", ascending=False)["node"].tolist()
    assert listed(opened, 2) == falling
    assert opened.page.locator("th[aria-sort=descending]").inner_text().startswith("score")
    opened.page.click("[data-sort=score]")
    assert listed(opened, 2) == falling[::-1]
    opened.page.fill("#search", "L1")
    assert listed(opened, 2) == [name for name in falling[::-1] if name.startswith("m1.")]
    promoted = listed(opened, 5)[0].split(" ")[0]
    opened.page.fill("#search", promoted)
    assert promoted in listed(opened, 5)[0].split(" ") or promoted in listed(opened, 2)[0]
    opened.select(names[0])
    assert opened.text("#selection") == names[0]
    assert opened.page.locator("#moved .up li").count() == 6
    assert opened.page.locator("#activations .token").count() == 14
    assert opened.page.locator("#listing tr[aria-selected=true]").get_attribute("data-name") == names[0]
    assert ATTACK in opened.text("#report")
    assert ATTACK in opened.text("h1")
    opened.slide("top", 500)
    few = int(opened.text("#top-value").split(" ")[0])
    assert 1 < few < len(names)
    assert sorted(drawn(opened)) == sorted(names[:few])
    opened.page.mouse.move(*middle(opened, names[0]))
    assert opened.text("#tip").splitlines()[0].startswith(names[0])
    opened.page.focus("#plot")
    opened.page.keyboard.press("ArrowDown")
    assert opened.page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(names[0])
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, summary, input:not([hidden]), [role=button], [role=img]")]
          .filter((each) => !(each.getAttribute("aria-label") || each.textContent.trim()
            || each.labels?.[0]?.textContent.trim())).length"""
    )
    assert nameless == 0
    assert opened.page.evaluate("window.owned") is None


@pytest.mark.slow
def test_grids_positions_large_circuits_and_exports(open_page, circuit, page, tmp_path):
    heads = make("head", (4, 3, 6), ComputationalGraph(4, 6), spans=(2, 3, 7), share=0.3)
    opened = open_page(heads.to_html())
    frame = heads.to_frame()
    assert opened.shown == len(frame)
    assert opened.page.locator("#plot .node").count() == frame["node"].nunique()
    assert opened.page.locator("#plot [data-cell]").count() == 24
    opened.page.check("#mode-position", force=True)
    assert sorted(drawn(opened)) == sorted(heads.nodes)
    own = max(frame["node"], key=list(frame["node"]).count)
    opened.select(own)
    assert opened.page.locator("#elsewhere li").count() == list(frame["node"]).count(own)
    many = make("neuron", (30, 1000), ComputationalGraph(30, 4), share=1 / 3)
    opened = open_page(many.to_html())
    assert opened.shown == 2500
    assert "the strongest 2,500 of 10,000" in opened.text("#shown")
    assert len(listed(opened, 2)) == 100
    opened.page.click("#listing .more")
    assert listed(opened, 2) == list(many.nodes[:200])
    opened = open_page(page, "#top=9&order=-score&pins=" + circuit.nodes[3], fresh=True, color_scheme="dark")
    assert opened.page.locator("#pins .chip").count() == 1
    rows = list(csv.DictReader(opened.download("csv", tmp_path).read_text(encoding="utf-8").splitlines()))
    expected = circuit.to_frame().head(9).sort_values("score", ascending=False)
    assert [row["node"] for row in rows] == expected["node"].tolist()
    assert [float(row["score"]) for row in rows] == pytest.approx(expected["score"].tolist(), rel=1e-6)
    saved = opened.download("json", tmp_path)
    assert [row["node"] for row in json.loads(saved.read_text(encoding="utf-8"))["nodes"]] == expected["node"].tolist()
    svg = ElementTree.parse(opened.download("svg", tmp_path)).getroot()
    assert "layer" in {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert opened.download("png", tmp_path).read_bytes().startswith(b"\x89PNG")
    again = open_page(opened.download("html", tmp_path).read_text(encoding="utf-8"))
    assert sorted(drawn(again)) == sorted(circuit.nodes[:9])


def test_a_neuron_is_knocked_out_labelled_and_found_by_its_label(open_page, circuit, model, page):
    node = circuit.to_frame().loc[0, "node"]
    setting = Setting.of(model, tiny_task(model), {}, circuit)
    mask = setting.nodes("neuron").full.clone()
    layer, unit = (int(part) for part in node[1:].split(".n"))
    mask[layer, unit] = False
    values = setting.measure([NodeMask(mask, "neuron")])
    change = float((values.circuits[0] - values.clean).mean())
    opened = open_page(page, f"#select={node}")
    assert float(opened.text("#knock-out strong").replace("−", "-")) == pytest.approx(change, rel=1e-2, abs=1e-9)
    opened.page.fill("#label", "a word of mine")
    opened.page.press("#label", "Enter")
    opened.settled()
    assert opened.text("#selection") == f"{node} · a word of mine"
    opened.page.fill("#search", "of mine")
    opened.settled()
    assert opened.page.locator("#found button").all_inner_texts() == [node]
    opened.page.fill("#search", "")


def test_a_head_is_found_by_other_spellings(open_page, model):
    heads = make("head", (3, 4), ComputationalGraph.of(model), share=1.0)
    opened = open_page(heads.to_html())
    for text in ("L2H1", "2.1", "a2h1"):
        opened.page.fill("#search", text)
        opened.settled()
        assert opened.page.locator("#found button").first.inner_text() == "a2.h1"


def test_prompts_of_another_task_and_blocked_scripts_are_told(open_page, browser, circuit, model, tmp_path):
    known = replace(circuit, setting=replace(circuit.setting, task="0" * 64))
    page = tmp_path / "nodes.html"
    html = known.to_html(page, model=model, task=tiny_task(model), knock=None)
    opened = open_page(html)
    assert opened.text("#notes").startswith("The prompts shown here are of the task 'tiny'; the circuit was found on")
    assert opened.page.evaluate("JSON.parse(document.getElementById('circuit-data').textContent).knocked") is None
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(page.as_uri())
    assert circuit.to_frame().loc[0, "node"] in still.inner_text("#still tbody tr")
    context.close()

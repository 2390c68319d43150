"""Where people read: the keyboard, screen readers, blocked scripts, print, narrow frames and touch; words explained."""

from __future__ import annotations

import pytest

from circuits.viewer.adjacency import adjacency
from circuits.viewer.still import circuit_sketch
from interp import theme
from tests.browser.conftest import Opened

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 1}


def tops(opened: Opened, *names: str) -> list[float]:
    return [opened.page.locator(f"#{name}").bounding_box()["y"] for name in names]


def test_the_keyboard_walks_from_node_to_node(open_page, circuit, circuit_page) -> None:
    opened = open_page(circuit_page)
    page = opened.page
    page.focus("#plot")
    page.keyboard.press("ArrowUp")
    weight: dict[str, float] = {}
    for (source, _, reader), edge in zip(circuit.links(), circuit.edges, strict=True):
        for name in (source, reader):
            weight[name] = weight.get(name, 0.0) + abs(circuit.edge_scores()[edge])
    first = max(weight, key=weight.__getitem__)
    assert page.locator("#spoken").text_content().startswith(f"{first}; ")  # unseen, but spoken
    assert page.is_visible("#ring")
    page.keyboard.press("ArrowDown")
    second = page.locator("#spoken").text_content().partition(";")[0]
    assert second != first
    assert opened.place("nodes", second)[1] > opened.place("nodes", first)[1]
    page.keyboard.press("Enter")
    opened.settled()
    assert opened.text("#selection") == second
    page.keyboard.press("p")
    opened.settled()
    assert opened.text("#pins .chip .link") == second


def test_the_picture_is_described(open_page, circuit, circuit_page) -> None:
    opened = open_page(circuit_page)
    told = opened.page.get_attribute("#plot", "aria-label")
    first = circuit.to_frame().iloc[0]
    assert told.startswith(f"Circuit of 120 edges between {circuit.n_nodes} nodes; the strongest: {first['source']} → ")


def test_with_scripts_blocked_a_still_picture_and_a_table_are_shown(browser, circuit, circuit_page) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(circuit_page.as_uri())
    picture = page.locator("#still img")
    assert picture.is_visible()
    assert picture.bounding_box()["width"] > 600
    assert "The 120 strongest of 120 edges" in picture.get_attribute("alt")
    assert page.locator("#still tbody tr").count() == 20
    assert circuit.to_frame().loc[0, "edge"] in page.inner_text("#still tbody tr")
    assert not page.locator("#controls").is_visible()
    assert all(url.startswith(("file:", "data:")) for url in asked)
    context.close()


def test_the_still_picture_draws_every_edge_by_its_sign(circuit) -> None:
    svg = circuit_sketch(circuit, adjacency(circuit, 500)).svg()
    negative = int((circuit.to_frame()["score"] < 0).sum())
    assert svg.count(f'stroke="{theme.NEGATIVE}"') == negative
    assert svg.count("<polyline") == 120
    assert svg.count("<circle") == circuit.n_nodes
    assert ">a2.h1<" in svg


def test_print_shows_the_graph_and_the_cards_alone(open_page, circuit_page) -> None:
    opened = open_page(circuit_page, fresh=True)
    opened.page.emulate_media(media="print")
    assert opened.page.is_hidden("#controls")
    assert opened.page.is_hidden(".actions")
    assert opened.page.is_visible("#plot")
    assert opened.page.is_visible("#overview")
    assert len(opened.page.pdf(format="A4")) > 10_000


@pytest.mark.parametrize("width", [900, 988])
def test_from_900_pixels_on_the_side_panel_stands_beside_the_graph(open_page, circuit_page, width) -> None:
    opened = open_page(circuit_page, viewport={"width": width, "height": 800})
    stage, details = tops(opened, "stage", "details")
    assert stage == details
    assert opened.page.locator("#stage").bounding_box()["width"] > 400


def test_on_a_phone_the_graph_comes_first_and_controls_fold(open_page, circuit_page) -> None:
    opened = open_page(circuit_page, **PHONE)
    stage, fold, details = tops(opened, "stage", "fold", "details")
    assert stage < fold < details
    assert opened.page.is_hidden("#controls")
    opened.page.tap("#fold")
    assert opened.page.is_visible("#search")
    opened.page.wait_for_function("document.documentElement.scrollWidth <= 390")


def test_a_tap_selects_and_a_swipe_is_the_pages(open_page, circuit_page) -> None:
    opened = open_page(circuit_page, **PHONE)
    x, y = opened.place("nodes", "a2.h1")
    opened.page.touchscreen.tap(x, y)
    opened.page.wait_for_selector("#selection")
    assert opened.text("#selection") == "a2.h1"
    touch = "getComputedStyle(document.getElementById('plot')).touchAction"
    assert opened.page.evaluate(touch) in ("auto", "manipulation")  # a swipe scrolls the page, a pinch zooms it


def test_every_control_has_a_hint_and_words_are_explained(open_page, circuit_page) -> None:
    opened = open_page(circuit_page)
    bare = opened.page.evaluate(
        """() => [...document.querySelectorAll("#controls input, #controls button")].filter((one) =>
          !one.title && !one.closest("[title]") && !one.closest("#found")).map((one) => one.outerHTML)"""
    )
    assert bare == []
    opened.page.keyboard.press("?")
    opened.page.click("#glossary summary")
    told = opened.text("#glossary")
    for word in ("a23.h3", "Port: q, k, v", "Mass", "Inflow", "Held-out", "Faithfulness", "Ablation"):
        assert word in told
    opened.page.keyboard.press("Escape")

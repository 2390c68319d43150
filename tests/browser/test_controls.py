from __future__ import annotations

import numpy as np
import pytest

from circuits.circuit import Circuit


def strengths(circuit: Circuit) -> np.ndarray:
    return circuit.to_frame()["score"].abs().to_numpy()


def test_the_page_opens_from_disk_and_draws_every_edge(open_page, circuit, circuit_page):
    opened = open_page(circuit_page, fresh=True)
    assert opened.shown == circuit.n_edges == 120
    assert opened.text("h1") == "tiny · ioi · eap-ig"
    assert "faithfulness 0.90 (95 % interval 0.80 to 1.00)" in opened.text("header p")
    assert opened.text("#shown") == f"120 of 120 edges · {circuit.n_nodes} nodes"


def test_each_slider_moves_the_others_and_the_marker_on_the_curve(open_page, circuit, circuit_page):
    opened, strength = open_page(circuit_page), strengths(circuit)
    opened.slide("top", 700)
    kept = round(120**0.7)
    assert opened.shown == kept
    assert opened.text("#top-value") == f"{kept} of 120"
    assert opened.text("#threshold-value") == f"|score| ≥ {float(f'{strength[kept - 1]:.3g}'):g}"
    share = strength[:kept].sum() / strength.sum()
    assert opened.text("#mass-value") == f"{100 * share:.0f} %"
    assert float(opened.page.input_value("#mass")) == pytest.approx(1000 * share, abs=2.5)
    assert opened.page.get_attribute("#curve", "data-edges") == str(kept)
    marker = opened.charted(".here")
    assert [marker["x"][0], marker["y"][0]] == [kept, pytest.approx(0.2 + 0.4 * np.log(kept / 10) / np.log(4))]

    opened.slide("mass", 500)
    half = int(np.searchsorted(np.cumsum(strength), strength.sum() / 2)) + 1
    assert opened.shown == half
    assert opened.text("#top-value") == f"{half} of 120"

    opened.slide("threshold", 500)
    middle = np.sqrt(strength[0] * strength[strength > 0][-1])
    assert opened.shown == (strength >= middle).sum()
    opened.slide("threshold", 0)
    assert opened.shown == 120
    assert opened.text("#threshold-value") == "none"


def test_signs_and_ports_filter_and_cuts_count_what_passes(open_page, circuit, circuit_page):
    opened, frame = open_page(circuit_page), circuit.to_frame()
    opened.page.check("#sign-negative", force=True)
    opened.settled()
    negative = frame["score"] < 0
    assert opened.shown == negative.sum()
    opened.page.uncheck("#ports-q", force=True)
    opened.page.uncheck("#ports-l", force=True)
    opened.settled()
    target = frame["target"]
    passing = negative & ~target.str.endswith("<q>") & (target != "logits")
    assert opened.shown == passing.sum()
    opened.slide("top", 0)
    assert opened.shown == 1
    assert opened.text("#top-value") == f"1 of {passing.sum()}"
    opened.page.click("#reset")
    opened.settled()
    assert opened.shown == 120


def test_a_search_finds_nodes_layers_and_edges(open_page, circuit, circuit_page):
    opened = open_page(circuit_page)
    opened.page.fill("#search", "L2")
    found = opened.page.locator("#found button").all_inner_texts()
    assert found == [name for name in circuit.nodes if name.startswith("a2.") or name == "m2"]
    edge = circuit.to_frame().loc[0, "edge"]
    opened.page.fill("#search", edge)
    opened.page.press("#search", "Enter")
    opened.settled()
    assert opened.text("#selection").startswith(edge.partition("<")[0].replace("->", " → "))
    opened.page.fill("#search", "nothing")
    assert "Nothing in this circuit" in opened.text("#found")


def test_the_keyboard_reaches_everything(open_page, circuit_page):
    opened = open_page(circuit_page)
    page = opened.page
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("m1")
    page.keyboard.press("Enter")
    opened.settled()
    page.keyboard.press("Escape")
    opened.settled()
    assert page.input_value("#search") == ""
    assert page.locator("#selection").count() == 0
    page.focus("#top")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    opened.settled()
    assert opened.shown == round(120**0.9)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    opened.settled()
    assert opened.shown == round(120**0.89)
    page.keyboard.press("?")
    assert page.is_visible("#help-text")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help-text")
    page.focus("#search")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "mass"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_every_control_has_a_name(open_page, circuit_page):
    opened = open_page(circuit_page, "#select=a2.h1&pins=a1.h0")
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, summary, input:not([hidden])")].filter((each) =>
          !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.[0]?.textContent.trim()))
          .map((each) => each.outerHTML)"""
    )
    assert nameless == []


def test_dark_mode_follows_the_system_and_can_be_chosen(open_page, circuit_page):
    opened = open_page(circuit_page, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = opened.page.evaluate(ground)
    lines = "document.getElementById('plot').seen().colours"
    assert set(opened.page.evaluate(lines)) == {"#5bb8f0", "#ff8f3d"}
    opened.page.click("#theme")
    opened.settled()
    assert opened.page.evaluate(ground) != dark
    assert set(opened.page.evaluate(lines)) == {"#0072b2", "#d55e00"}


def test_full_screen(open_page, circuit_page, whole_browser):
    opened = open_page(circuit_page, inside=whole_browser)  # the light one has no screen to fill
    opened.page.click("#full-screen")
    opened.page.wait_for_function("document.fullscreenElement !== null")
    opened.page.click("#full-screen")
    opened.page.wait_for_function("document.fullscreenElement === null")
    opened.settled()

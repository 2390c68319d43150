"""Prompts of hundreds of tokens: columns by position, and edges by keyboard where there are many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from circuits.circuit import Circuit


def at_positions(circuit: Circuit, first: int, length: int = 300) -> str:
    """A page with scores at positions from `first` on, four nodes at each."""
    positions = np.zeros((len(circuit.graph.sources), length))
    for place in range(first, length):
        for node in range(4):
            positions[(4 * place + node) % len(positions), place] = 1.0 + node
    return circuit.to_html(positions=positions)


def seen(opened: Any) -> dict[str, Any]:
    return opened.page.evaluate("document.getElementById('plot').seen()")


@pytest.mark.parametrize("first", [285, 0])
def test_columns_of_300_tokens_are_folded_or_scrolled_and_their_names_do_not_collide(open_page, circuit, first) -> None:
    opened = open_page(at_positions(circuit, first), "#mode=position")
    columns, box = seen(opened)["columns"], opened.page.locator("#plot").bounding_box()
    places = [column["x"] for column in columns]
    assert min(np.diff(places)) >= 16  # pixels
    assert all(0 <= place <= box["width"] for place in places)
    told = [int(column["text"]) for column in columns]
    acting = [place for place in told if place >= first]
    assert max(np.diff(acting)) <= 3  # of three columns where nodes act one has its name at least
    assert acting[0] - first <= 2  # the first difference is in sight
    marked = [node for node in seen(opened)["nodes"] if 0 < node["x"] < box["width"]]
    assert len(marked) > 10
    if not first:  # too many for the width: dragging scrolls, a double click shows all
        x, y = box["x"] + box["width"] / 2, box["y"] + 15
        opened.page.mouse.move(x, y)
        opened.page.mouse.down()
        opened.page.mouse.move(x - 300, y, steps=3)
        opened.page.mouse.up()
        assert int(seen(opened)["columns"][0]["text"]) > 3
        opened.page.mouse.dblclick(x, y)
        told = [int(column["text"]) for column in seen(opened)["columns"]]
        assert (told[0], told[-1]) == (0, 299)


def test_edges_are_reached_by_keyboard(open_page, circuit_page) -> None:
    opened = open_page(circuit_page)
    page = opened.page
    page.focus("#plot")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    opened.settled()
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.closest('#details') ? document.activeElement.textContent : ''")
        if " → " in name:
            break
    page.keyboard.press("Enter")
    opened.settled()
    assert opened.text("#selection") == name

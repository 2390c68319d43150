"""Pages of tables and plotly figures: the figures are drawn, from what is in the page alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.circuits.viewer.test_compare_page import made_up


def test_the_figures_of_a_comparison_are_drawn_without_a_network(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "methods.html"
    made_up().to_html(path)
    page, told, asked = browser.new_page(), [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-charted='4']", state="attached")
    assert page.locator(".figure .main-svg").count() >= 4
    titles = page.locator(".figure .gtitle").all_text_contents()
    assert any("faithfulness by" in text for text in titles)
    assert told == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()

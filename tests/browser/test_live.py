"""The live page of the documentation opens in a browser with the demo's circuit, its prompts and what was measured."""

from __future__ import annotations

import runpy
from pathlib import Path

CONF = Path(__file__).parents[2] / "docs" / "conf.py"


def test_the_live_page_opens_with_the_demos_circuit(open_page, tmp_path: Path) -> None:
    opened = open_page(runpy.run_path(str(CONF))["make_live_page"](tmp_path))
    assert opened.shown == 25
    assert opened.text("h1") == "smollm2-135m · ioi · eap-ig"
    assert opened.page.locator("#prompt-menu option").count() == 5
    opened.select("a23.h3")
    assert "Measured on" in opened.text("#selected #knock-out")
    opened.page.wait_for_selector("#pattern[data-gap]")

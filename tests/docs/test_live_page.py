"""The documentation's live page is the demo's circuit, made of what is committed and the scripts of today."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from circuits.viewer.shell import asset

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = runpy.run_path(str(DOCS / "conf.py"))["make_live_page"]
    return make(tmp_path_factory.mktemp("live"))


def test_it_is_made_of_a_small_file_and_the_scripts_of_today(page: Path) -> None:
    assert (DOCS / "live" / "circuit.json.gz").stat().st_size < 2_500_000
    text = page.read_text(encoding="utf-8")
    assert asset("main.js") in text
    assert "smollm2-135m · ioi" in text
    assert '<section id="still"><p>The ' in text


def test_the_site_links_to_it() -> None:
    for name in ("index.md", "viewer.md"):
        assert '<a href="circuit.html">' in (DOCS / name).read_text(encoding="utf-8")

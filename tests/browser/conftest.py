"""One headless Chromium for all tests, and what they ask of a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from attribution.scores import Scores
from circuits.circuit import Circuit, Report
from interp.graph import ComputationalGraph

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def absent(reason: str) -> NoReturn:
    """Skip, or fail where REQUIRE_BROWSER=1."""
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; without one the tests are skipped, or fail where REQUIRE_BROWSER=1."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        absent(f"no browser: none of {', '.join(NAMES)} is on the path (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    try:
        from playwright import sync_api
    except ImportError:
        absent("playwright is not installed: pip install -e '.[test]'")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@dataclass
class Opened:
    """A page with the circuit drawn, and what tests ask of it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def settled(self) -> None:
        """Wait until something is drawn: pages draw what was asked for at once."""
        self.page.wait_for_function("document.getElementById('plot').dataset.draws")

    def again(self, fragment: str) -> None:
        """Set the view as a fresh page would have it."""
        self.page.mouse.move(2, 2)
        self.page.evaluate(
            """async (fragment) => {
              document.activeElement.blur();
              document.getElementById("details").scrollTop = 0;
              const plot = document.getElementById("plot");
              for (const next of ["#fresh", fragment].filter(Boolean)) {
                const before = plot.dataset.draws;
                location.hash = next;
                while (plot.dataset.draws === before) await new Promise((done) => setTimeout(done, 5));
              }
            }""",
            fragment,
        )

    def slide(self, name: str, position: int) -> None:
        self.page.locator(f"#{name}").evaluate(
            "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
            position,
        )
        self.settled()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def place(self, trace: str, text: str) -> tuple[float, float]:
        """Pixels of a node, or of the middle of an edge (by the beginning of its text)."""
        found = self.page.evaluate(
            """([name, text]) => {
              const plot = document.getElementById("plot"), box = plot.getBoundingClientRect();
              const { x, y } = plot.seen()[name].find((each) => each.name === text);
              return [box.left + x, box.top + y];
            }""",
            [trace, text],
        )
        return found[0], found[1]

    def hover(self, trace: str, text: str) -> str:
        x, y = self.place(trace, text)
        self.page.mouse.move(x - 40, y - 40)
        self.page.mouse.move(x, y, steps=3)
        told = """(text) => { const tip = document.getElementById("tip");
        return !tip.hidden && tip.textContent.startsWith(text); }"""
        self.page.wait_for_function(told, arg=text)
        return self.text("#tip")

    def click(self, trace: str, text: str, shift: bool = False) -> None:
        self.hover(trace, text)
        if shift:
            self.page.keyboard.down("Shift")
        self.page.mouse.down()
        self.page.mouse.up()
        if shift:
            self.page.keyboard.up("Shift")
        self.settled()

    def select(self, name: str) -> None:
        """Select through the search, as a keyboard does."""
        self.page.fill("#search", name)
        self.page.press("#search", "Enter")
        self.page.fill("#search", "")
        self.settled()

    @property
    def shown(self) -> int:
        return int(self.page.locator("#plot").get_attribute("data-shown"))

    def download(self, kind: str, folder: Path) -> Path:
        self.page.click("#export-menu summary")
        with self.page.expect_download() as waiting:
            self.page.click(f"#export-{kind}")
        target = folder / waiting.value.suggested_filename
        waiting.value.save_as(target)
        return target


@pytest.fixture(scope="session")
def lasting(browser: Any) -> dict[Path, Opened]:
    """Pages that stay open: loading is what takes the time."""
    return {}


@pytest.fixture
def open_page(browser: Any, tmp_path: Path, lasting: dict[Path, Opened]) -> Iterator[Callable[..., Opened]]:
    """`open_page(html, fragment)`: a drawn page from disk. At the end nothing was logged and nothing asked for.

    A file that was opened before is used again, its view set by the fragment, unless `fresh` or further settings
    of the browser are given.
    """
    contexts, pages = [], []

    def start(path: Path, fragment: str, settings: dict[str, Any]) -> Opened:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **settings}))
        result = Opened(contexts[-1].new_page())
        result.page.set_default_timeout(120_000)  # milliseconds; machines may be slow and busy
        result.listen()
        result.page.goto(path.as_uri() + fragment)
        result.page.wait_for_selector("html[data-ready]", state="attached")
        return result

    def opened(html: str | Path, fragment: str = "", fresh: bool = False, **settings: Any) -> Opened:
        if isinstance(html, str):
            path, fresh = tmp_path / f"page-{len(contexts)}.html", True
            path.write_text(html, encoding="utf-8")
        else:
            path, fresh = html, fresh or bool(settings)
        if fresh or path not in lasting:
            result = start(path, fragment, settings)
            if not fresh:
                lasting[path] = result
                contexts.pop()
        else:
            result = lasting[path]
            result.again(fragment)
        result.settled()
        pages.append((result, path.as_uri()))
        return result

    yield opened
    for result, address in pages:
        assert result.complaints == []
        asked = [url for url in result.requests if not url.startswith(("data:", "blob:", address))]
        assert asked == []
    for context in contexts:
        context.close()


def make_circuit(graph: ComputationalGraph | None = None, n: int = 120, seed: int = 0, **known: Any) -> Circuit:
    graph = graph or ComputationalGraph(4, 4)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(graph.shape, generator=generator).pow(3) * graph.edge_mask
    scores = Scores(values, graph, method="eap-ig", model="tiny", task={"name": "ioi"})
    ladder = [
        {"size": size, "edges": size, "faithfulness": value} for size, value in ((10, 0.2), (40, 0.6), (400, 1.0))
    ]
    report = Report(faithfulness=0.9, interval=(0.8, 1.0), ladder=ladder)
    return Circuit(scores, scores.mask(n, selection="greedy", pruned=False), report, **known)


@pytest.fixture(scope="session")
def circuit() -> Circuit:
    return make_circuit()


@pytest.fixture(scope="session")
def circuit_page(circuit: Circuit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "circuit.html"
    circuit.to_html(path)
    return path

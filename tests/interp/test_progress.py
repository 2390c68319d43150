from __future__ import annotations

import importlib.util
import io
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import rich.console

from interp import progress as module
from interp.progress import progress, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    # not sys.stderr itself: pytest puts its own there again before the test runs
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stream))
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return stream


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_visible() -> None:
    wait_until(lambda: module._display is not None)


@pytest.fixture(autouse=True)
def _nothing_stays_on_screen() -> Iterator[None]:
    yield
    assert module._display is None
    assert module._visible == 0


def test_items_pass_unchanged() -> None:
    items = [object(), None, [1]]
    assert list(track(items, "items")) == items
    assert list(track(iter(items), "items", total=3)) == items
    assert list(track([], "nothing")) == []


def test_appears_in_a_terminal_after_the_delay(terminal: Terminal) -> None:
    for _ in track(range(3), "Scoring edges", delay=0.0):
        wait_until_visible()
    assert "Scoring edges" in terminal.getvalue()
    assert "0/3" in terminal.getvalue()


def test_shows_what_is_done_also_from_before_it_appeared(terminal: Terminal) -> None:
    with progress("Scoring", total=9, delay=0.1) as bar:
        bar.advance(4)
        wait_until(lambda: "4/9" in terminal.getvalue())
        bar.advance()
        wait_until(lambda: "5/9" in terminal.getvalue())


def test_appears_within_a_long_first_step(terminal: Terminal) -> None:
    with progress("One long step", delay=0.05):
        wait_until_visible()
    assert "One long step" in terminal.getvalue()


def test_short_work_draws_nothing(terminal: Terminal) -> None:
    assert list(track(range(3), "Scoring", delay=60.0)) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_quiet_draws_nothing(terminal: Terminal) -> None:
    with progress("Scoring", total=1, quiet=True, delay=0.0) as bar:
        time.sleep(0.1)
        bar.advance()
    assert terminal.getvalue() == ""


def test_no_terminal_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for _ in track(range(2), "Scoring", delay=0.0):
        time.sleep(0.05)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("ipywidgets", [False, True])
def test_jupyter_needs_ipywidgets(ipywidgets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if ipywidgets else None)
    assert (module._watching_console() is not None) == ipywidgets


def test_bars_within_bars_share_the_screen(terminal: Terminal) -> None:
    with progress("Outer", total=2, delay=0.0) as outer:
        wait_until_visible()
        for _ in track(range(2), "Inner", delay=0.0):
            wait_until(lambda: module._visible == 2)
        outer.advance(2)
    assert "Outer" in terminal.getvalue()
    assert "Inner" in terminal.getvalue()


def test_a_raising_body_takes_the_bar_down(terminal: Terminal) -> None:
    def work() -> None:
        with progress("Scoring", delay=0.0):
            wait_until_visible()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        work()
    assert "Scoring" in terminal.getvalue()


def test_leaving_a_loop_early_takes_the_bar_down(terminal: Terminal) -> None:
    iterator = track(range(9), "Scoring", delay=0.0)
    next(iterator)
    wait_until_visible()
    iterator.close()  # type: ignore[attr-defined]
    assert module._display is None


def test_standard_streams_are_left_alone(terminal: Terminal) -> None:
    out, err = sys.stdout, sys.stderr
    with progress("Scoring", delay=0.0):
        wait_until_visible()
        assert (sys.stdout, sys.stderr) == (out, err)
    assert (sys.stdout, sys.stderr) == (out, err)

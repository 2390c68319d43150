"""Progress bars that appear only when somebody is watching and the work takes long enough to wonder."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich import progress as rich_progress
from rich.console import Console

from interp import ranks

T = TypeVar("T")

# All visible bars share one rich display, so that a bar within a bar is a second line and not a scramble.
_lock = threading.RLock()
_display: rich_progress.Progress | None = None
_visible = 0


class Bar:
    """One line of progress; made by `progress`."""

    def __init__(self, description: str, total: float | None, console: Console | None, delay: float) -> None:
        self._description, self._total, self._console = description, total, console
        self._done = 0.0
        self._task: rich_progress.TaskID | None = None
        self._closed = False
        self._timer: threading.Timer | None = None
        if console is not None:
            # a timer and not a clock read in `advance`: the first step alone may take minutes
            self._timer = threading.Timer(delay, self._show)
            self._timer.daemon = True
            self._timer.start()

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        with _lock:
            self._done += n
            if self._task is not None and _display is not None:
                _display.update(self._task, completed=self._capped())

    def _capped(self) -> float:
        """What is done; the first of several ranks may count a little more than all."""
        return self._done if self._total is None else min(self._done, self._total)

    def _show(self) -> None:
        global _display, _visible
        with _lock:
            if self._closed:
                return
            if _display is None:
                _display = _new_display(self._console)
                _display.start()
            _visible += 1
            self._task = _display.add_task(self._description, total=self._total, completed=int(self._capped()))

    def _close(self) -> None:
        global _display, _visible
        if self._timer is not None:
            self._timer.cancel()
        with _lock:
            self._closed = True
            if self._task is None or _display is None:
                return
            _display.remove_task(self._task)
            self._task = None
            _visible -= 1
            if _visible == 0:
                _display.stop()
                _display = None


def _new_display(console: Console | None) -> rich_progress.Progress:
    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        # rich would put its own objects in the place of sys.stdout and sys.stderr from the timer's thread
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _watching_console() -> Console | None:
    """A console on standard error when a terminal or a Jupyter notebook shows it, else None."""
    if not ranks.first():
        return None
    console = Console(file=sys.stderr)
    if console.is_jupyter:
        # without ipywidgets rich would warn instead of drawing
        return Console() if importlib.util.find_spec("ipywidgets") else None
    return console if sys.stderr.isatty() else None


@contextlib.contextmanager
def progress(description: str, total: float | None = None, quiet: bool = False, delay: float = 2.0) -> Iterator[Bar]:
    """A bar that is advanced by hand; it appears once the block has run for `delay` seconds.

    Nothing is drawn when `quiet` or when standard error is neither a terminal nor a Jupyter notebook. The bar
    disappears at the end of the block, also when that raises.

    >>> with progress("scoring", total=3) as bar:
    ...     bar.advance(3)
    """
    bar = Bar(description, total, None if quiet else _watching_console(), delay)
    try:
        yield bar
    finally:
        bar._close()


def track(
    iterable: Iterable[T],
    description: str,
    total: float | None = None,
    quiet: bool = False,
    delay: float = 2.0,
) -> Iterator[T]:
    """Yield the items of `iterable` unchanged, with a bar as `progress` draws it; `total` defaults to its length.

    >>> list(track([1, 2], "counting"))
    [1, 2]
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with progress(description, total, quiet, delay) as bar:
        for item in iterable:
            yield item
            bar.advance()

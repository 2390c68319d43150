"""What the command prints and writes: results, notes, errors, tables and files."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, RenderableType
    from rich.table import Table

PACKAGES = ("interp", "attribution", "metrics", "circuits")


class CommandError(Exception):
    """A complaint of the command line's own about its arguments; printed as one sentence, exit code 2."""


def is_input_error(error: Exception) -> bool:
    """Whether an exception says what is wrong with the input; without importing torch to find out."""
    errors = sys.modules.get("interp.errors")
    return isinstance(error, CommandError) or (errors is not None and isinstance(error, errors.InputError))


def complain(text: str) -> None:
    """Print one line to standard error in the name of the command."""
    typer.echo(f"circuits: {text}", err=True)


class Notes:
    """Remarks on the way to a result: to standard error, or nowhere when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, text: str) -> None:
        if not self.quiet:
            complain(text)


@contextlib.contextmanager
def working(quiet: bool) -> Iterator[Notes]:
    """Hand out `Notes`, and keep standard output clean: what libraries print or log goes to standard error."""
    notes = Notes(quiet)
    handler = _NotesHandler(notes)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield notes
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class _NotesHandler(logging.Handler):
    """The packages' log records as notes; those of `find_circuit` stand in its report already."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "circuits.judged":
            self.notes(record.getMessage())


def check_target(option: str, path: Path | None) -> Path | None:
    """Refuse an output path that could not be written, before the work starts; returns it, `~` expanded."""
    if path is None:
        return None
    from interp.files import check_writable, expanded

    path = expanded(path)
    check_writable(path, option)
    return path


def print_json(data: Any) -> None:
    """Print `data` as one JSON object (or list) to standard output; what is not a finite number becomes null."""
    typer.echo(as_json(data))


def as_json(data: Any) -> str:
    """JSON text; NaN and infinity become null, arrays and tuples lists."""
    from interp.plain import plain  # interp loads torch

    return json.dumps(plain(data), indent=1, allow_nan=False, ensure_ascii=False)


def console() -> Console:
    """A console on what standard output is now."""
    from rich.console import Console

    return Console(highlight=False)


def show(*parts: RenderableType) -> None:
    """Print rich renderables to standard output."""
    out = console()
    for part in parts:
        out.print(part)


def rows_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Headings beside texts, taken literally."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    for heading, text in rows:
        table.add_row(Text(heading), Text(text))
    return table


def panel(title: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    """A framed table of headings and texts."""
    from rich.panel import Panel
    from rich.text import Text

    return Panel(rows_table(rows), title=Text(title, style="bold"), title_align="left", padding=(1, 2))


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> RenderableType:
    """A table of texts under its title, taken literally; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        first = column == columns[0]  # names are typed again, so they stay in one piece
        result.add_column(column, justify="right" if column in right else "left", no_wrap=first, overflow="fold")
    for row in rows:
        result.add_row(*map(Text, row))
    return Group(Text(title, style="bold"), result)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a data frame as CSV, or as a JSON list of rows where the file's name ends in .json."""
    from interp.files import write_text

    as_list = path.suffix.lower() == ".json"
    text = as_json(frame.to_dict("records")) + "\n" if as_list else frame.to_csv(index=False, lineterminator="\n")
    write_text(path, text)


def interval(value: float | None, ends: Sequence[float] | None = None) -> str:
    """A figure with its interval: `0.913 [0.871, 0.957]`; `unknown` where there is none."""
    if value is None or not math.isfinite(value):
        return "unknown"
    # no minus before a zero
    text, *shown = (f"{round(one, 3) + 0.0:.3f}" for one in (value, *(ends or ())))
    return f"{text} [{', '.join(shown)}]" if shown else text

"""Tables as text, HTML and Markdown: one way to print a data frame."""

from __future__ import annotations

import html
import math
from typing import Any

import pandas as pd

DIGITS = 3


def cell(value: Any, digits: int = DIGITS) -> str:
    """A value as a table shows it: floats rounded, what is not known left empty.

    >>> [cell(0.12345), cell(12), cell(float("nan")), cell(True)]
    ['0.123', '12', '', 'yes']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:z.{digits}f}" if isinstance(value, float) else str(value)


def text_table(frame: pd.DataFrame, digits: int = DIGITS) -> str:
    """For a terminal."""
    return str(frame.to_string(index=False, float_format=lambda value: f"{value:z.{digits}f}", na_rep=""))


def html_table(frame: pd.DataFrame, digits: int = DIGITS) -> str:
    """For a page or a notebook; everything is escaped."""
    return str(frame.to_html(index=False, border=0, float_format=lambda v: f"{v:z.{digits}f}", na_rep="", escape=True))


def markdown_table(frame: pd.DataFrame, digits: int = DIGITS) -> str:
    """For a docs page; numbers stand at the right.

    >>> print(markdown_table(pd.DataFrame({"method": ["eap"], "cmd": [0.25]})))
    | method | cmd |
    | --- | ---: |
    | eap | 0.250 |
    """
    ends = ["---:" if pd.api.types.is_numeric_dtype(kind) else "---" for kind in frame.dtypes]
    rows = [[str(name) for name in frame], ends]
    rows += [[_escaped(cell(value, digits)) for value in row] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page(title: str, body: str) -> str:
    """A whole HTML page around a body that is HTML already."""
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>'
    return f"{head}<body>{body}</body></html>\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")

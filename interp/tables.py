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
    """A whole HTML page around a body that is HTML already, in the reader's light or dark colours.

    It needs neither a server nor a network, and may not reach for one. For the body: `wide` is the class of what
    scrolls sideways (tables), `note` that of a warning, `figure` that of a figure, which keeps a white ground in the
    dark since plotly's colours do not follow the page's.
    """
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{_HEAD}<title>{html.escape(title)}</title>'
    )
    return f"{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


_HEAD = """<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; worker-src blob:">
<style>
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 1200px; padding: 20px; background: light-dark(#fff, #16181d);
  color: light-dark(#1f2430, #e4e7ec);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 22px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 28px 0 8px; }
p { max-width: 75ch; }
.note { border-left: 3px solid #d55e00; padding-left: 10px; }
.figure { background: #fff; border-radius: 6px; padding: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid light-dark(#d9dde5, #3a3f4b);
  white-space: nowrap; }
</style>
"""

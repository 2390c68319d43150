"""A report as one HTML file that needs neither a server nor a network, in the reader's light or dark colours."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from string import Template
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def page(title: str, reading: str, notes: Sequence[str], figure: Figure, tables: Mapping[str, pd.DataFrame]) -> str:
    """Heading, how to read it, notes, figure and tables; all text is escaped."""
    sections = [
        f"<h2>{html.escape(name)}</h2>\n<div class='wide'>{_table(table)}</div>" for name, table in tables.items()
    ]
    return _PAGE.substitute(
        title=html.escape(title),
        reading=html.escape(reading),
        notes="\n".join(f"<p class='note'>{html.escape(note)}</p>" for note in notes),
        figure=figure.to_html(full_html=False, include_plotlyjs=True, div_id="report", config={"displaylogo": False}),
        tables="\n".join(sections),
    )


def _table(table: pd.DataFrame) -> str:
    return str(table.to_html(index=False, border=0, float_format="{:.3f}".format))


# the figure keeps a white ground in the dark: plotly's colours do not follow the page's
_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; worker-src blob:">
<title>$title</title>
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
</head>
<body>
<h1>$title</h1>
<p>$reading</p>
$notes
<div class="figure">$figure</div>
$tables
</body>
</html>
"""
)

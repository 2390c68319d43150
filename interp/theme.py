"""One look for all figures: colours that survive colour blindness (Okabe and Ito), fonts, hovers, error bars."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.interval import Estimate

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442",
)  # fmt: skip
GREY, DARK = "#999999", "#666666"
INK, FAINT = "#1f2530", "#d5d9e0"  # what is drawn over edges, and what is hardly seen
SERIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW)
OWN, CONTROL = BLUE, GREY  # what is asked about, and what it is held against
POSITIVE, NEGATIVE = BLUE, VERMILION  # scores: what helps and what hurts, in all pictures
DIVERGING = [[0, NEGATIVE], [0.5, "#ffffff"], [1, POSITIVE]]  # a scale of scores
TEMPLATE = "plotly_white"


def styled(figure: Figure, title: str = "", **layout: Any) -> Figure:
    """The figure in the common look, with its title escaped; `layout` goes to plotly."""
    figure.update_layout(template=TEMPLATE, title=label(title), **layout)
    return figure


def named(*parts: str | None) -> str:
    """A title of model, task, method and what else is known, in this order.

    >>> named("gpt2", None, "eap")
    'gpt2 · eap'
    """
    return " · ".join(part for part in parts if part)


def label(text: str) -> str:
    """Text that plotly shows as it is: it would read tags in it.

    >>> label("a0.h1<q>")
    'a0.h1&lt;q&gt;'
    """
    return html.escape(text, quote=False)


def error_bars(points: Sequence[Estimate]) -> dict[str, Any]:
    """Intervals as plotly draws them, for `error_x` or `error_y`."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [point.high - point.value for point in points],
        "arrayminus": [point.value - point.low for point in points],
    }


def target_line(figure: Figure, value: float = 1.0, *, vertical: bool = False) -> None:
    """A dotted line at what is aimed at: the model's own value."""
    line = {"line": {"dash": "dot", "color": DARK}}
    if vertical:
        figure.add_vline(x=value, **line)
    else:
        figure.add_hline(y=value, **line)

"""One look for all figures: colours that survive colour blindness (Okabe and Ito), fonts, hovers, error bars."""

from __future__ import annotations

import html
import textwrap
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
TITLE, SUBTITLE, PANEL = 15, 12, 13  # pixels: a title, what stands below it, the title of a panel
WIDE = 700  # pixels, of a figure that nothing gives a width
_LETTER = 0.56  # of a font's size: a letter's width, on average
_ROOM = 0.94  # of the width, for a title


def styled(figure: Figure, title: str, below: str = "", **layout: Any) -> Figure:
    """The figure in the common look; `layout` goes to plotly.

    The title is escaped and broken into lines that fit the width, as are `below`, which stands under it in smaller
    letters, and the titles of panels; there is room for them above the picture.
    """
    figure.update_layout(template=TEMPLATE, **layout)
    width = _ROOM * (figure.layout.width or WIDE)
    lines, small = lines_of(title, width, TITLE), lines_of(below, width, SUBTITLE)
    above = 18 * _panels(figure, width) + (28 if figure.layout.legend.yanchor == "bottom" else 0)
    figure.layout.margin.t = 30 + 21 * len(lines) + 17 * len(small) + above
    heading = {"text": "<br>".join(map(label, lines)), "font": {"size": TITLE}, "x": 0.02, "xanchor": "left",
               "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 12}}  # fmt: skip
    if small:
        heading["subtitle"] = {"text": "<br>".join(map(label, small)), "font": {"size": SUBTITLE}}
    figure.update_layout(title=heading)
    return figure


def lines_of(text: str, width: float, size: int) -> list[str]:
    """Text in lines that are about `width` pixels long at most, at a font's size.

    >>> lines_of("How faithful the circuit is", 120, 15)
    ['How faithful', 'the circuit is']
    """
    return textwrap.wrap(text, max(12, int(width / (_LETTER * size))), break_long_words=False)


def _panels(figure: Figure, width: float) -> int:
    """Break the titles of a figure's panels into lines; how many the longest has."""
    titles = [
        one for one in figure.layout.annotations if (one.xref, one.yref, one.yanchor) == ("paper", "paper", "bottom")
    ]
    side_by_side = max(1, len({one.x for one in titles}))
    most = 0
    for one in titles:
        parts = [line for part in one.text.split("<br>") for line in lines_of(part, width / side_by_side, PANEL)]
        one.update(text="<br>".join(parts), font={"size": PANEL})
        most = max(most, len(parts))
    return most


def signed_bars(names: Sequence[str], values: Sequence[float], title: str, what: str, kind: str) -> Figure:
    """Horizontal bars in the colours of their signs, the first on top: `what` the values are, `kind` what has them."""
    import plotly.graph_objects as go

    picture = go.Figure(
        go.Bar(
            x=list(values)[::-1],
            y=[label(name) for name in names][::-1],
            orientation="h",
            marker_color=[POSITIVE if value > 0 else NEGATIVE for value in values][::-1],
            hovertemplate="%{y}<br>%{x:.4g}<extra></extra>",
        )
    )
    return styled(picture, title, xaxis_title=what, yaxis_title=kind, height=160 + 22 * len(names))


def band(figure: Figure, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> None:
    """Fill what lies between two lines over `x`, faintly, beneath what is drawn later."""
    red, green, blue = bytes.fromhex(colour[1:])
    figure.add_scatter(
        x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=f"rgba({red},{green},{blue},0.14)",
        line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False,
    )  # fmt: skip


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

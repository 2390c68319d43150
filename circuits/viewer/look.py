"""How a circuit looks: the numbers that the page's scripts and the plain figure share.

The page embeds `LOOK` as JSON in front of its scripts, which read it under the same name. Colours of the page in light
mode are those of `interp.theme` too (a test compares the style sheet); in dark mode they have lighter relatives.
"""

from __future__ import annotations

from typing import Any

from interp import theme

SVG_LIMIT = 1_500  # edges, beyond which curves have fewer points (and WebGL draws a plain figure)
DRAWN_LIMIT = 20_000  # edges, beyond which only the strongest are drawn
SVG_POINTS = 21  # of an edge's curve
DENSE_POINTS = 7  # of an edge's curve where there are many
# strength, as a share of the largest |score|, from which an edge gets this width and opacity
LEVELS = ((0.3, 5.0, 0.95), (0.1, 3.2, 0.8), (0.03, 2.0, 0.6), (0.01, 1.2, 0.45), (0.0, 0.8, 0.3))
WEAK = 0.1  # share below which edges fade in a dense picture: they are many, and must not hide the strong ones
SYMBOLS = {"head": "circle", "mlp": "square", "input": "diamond", "logits": "diamond", "group": "hexagon2"}
PORT_OFFSETS = {"q": -0.05, "k": 0.0, "v": 0.05}  # how far an edge lands from the middle of its head, in columns
# edges within `near` columns bend aside by `room` columns, or by `margin` right of all heads; long ones in full
BEND = {"near": 0.5, "room": 0.4, "margin": 1.5, "rows": 4}
SIGNS = {"helps (positive score)": theme.POSITIVE, "hurts (negative score)": theme.NEGATIVE}
MEMBERS = (theme.DARK, theme.OWN, theme.ORANGE)  # edges of both circuits, of the first, of the second
NODE_SIZE = (7, 16, 420)  # at least, at most, and what the rows share, in pixels
REFUSED_BUTTONS = ("sendChartToCloud", "select2d", "lasso2d")  # a stray click must not upload an unpublished model

LOOK: dict[str, Any] = {
    "svgLimit": SVG_LIMIT,
    "drawnLimit": DRAWN_LIMIT,
    "svgPoints": SVG_POINTS,
    "densePoints": DENSE_POINTS,
    "levels": LEVELS,
    "weak": WEAK,
    "symbols": SYMBOLS,
    "portOffsets": PORT_OFFSETS,
    "bend": BEND,
    "signs": list(SIGNS.values()),
    "nodeSize": NODE_SIZE,
    "refusedButtons": REFUSED_BUTTONS,
}


def level(share: float) -> tuple[float, float]:
    """Width and opacity of an edge of that share of the largest |score|."""
    return next((width, opacity) for least, width, opacity in LEVELS if share >= least)


def kind(node: str) -> str:
    """`head`, `mlp`, `input` or `logits`."""
    return "head" if ".h" in node else "mlp" if node.startswith("m") else node


def node_size(n_layers: int) -> float:
    """Pixels: as large as the rows allow."""
    least, most, shared = NODE_SIZE
    return max(least, min(most, shared / (n_layers + 2)))

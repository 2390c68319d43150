"""A still picture of an attribution graph: tokens across, layers upwards, links by the influence that they carry."""

from __future__ import annotations

import numpy as np

from circuits.tracing.figures import carried, places
from circuits.tracing.graph import AttributionGraph
from circuits.viewer import look
from circuits.viewer.sketch import TALL, WIDE, Line, Mark, Place, Sketch, Words
from interp import theme

DRAWN = 300  # links
_NAMED = 24  # nodes
_LEFT, _ABOVE, _BELOW = 56, 24, 40  # pixels around the graph


def graph_sketch(graph: AttributionGraph) -> Sketch:
    """The strongest links of what `prune()` keeps."""
    graph = graph if graph.pruned else graph.prune()
    through, flow = carried(graph)
    x, y = places(graph)
    low, wide, rows = float(x.min(initial=0.0)), max(float(np.ptp(x)), 1.0), max(float(np.ptp(y)), 1.0)

    def at(node: int) -> Place:
        return (
            _LEFT + (x[node] - low) / wide * (WIDE - _LEFT - 70),
            TALL - _BELOW - (y[node] + 1) / rows * (TALL - _ABOVE - _BELOW - 20),
        )

    weights = graph.adjacency.numpy()
    target, source = np.nonzero((weights != 0) & (through > 0))
    order = np.argsort(-through[target, source], kind="stable")[:DRAWN]
    sketch = Sketch(
        f"The {len(order):,} strongest of {len(target):,} links: tokens from left to right, layers upwards, blue adds, "
        "orange takes away."
    )
    largest = max(float(through.max(initial=0.0)), np.finfo(float).tiny)
    for one in order[::-1]:
        to, of = int(target[one]), int(source[one])
        width, opacity = look.level(float(through[to, of]) / largest)
        colour = theme.NEGATIVE if weights[to, of] < 0 else theme.POSITIVE
        sketch.add([Line([at(of), at(to)], colour, width, opacity)])
    kinds, names = graph.nodes["kind"].tolist(), graph.nodes["name"].tolist()
    first = set(np.argsort(-flow, kind="stable")[:_NAMED].tolist())
    for node, kind in enumerate(kinds):
        if kind == "bias":
            continue
        where = at(node)
        sketch.add([Mark(where, 4.5, square=kind in ("token", "logit"))])
        if node in first and kind not in ("token", "logit"):
            sketch.add([Words((where[0] + 6, where[1] - 5), names[node], size=10)])
    for number, token in enumerate(graph.tokens):
        across = _LEFT + (number - low) / wide * (WIDE - _LEFT - 70)
        sketch.add([Words((across, TALL - 14), token[:12], "middle", 11)])
    return sketch

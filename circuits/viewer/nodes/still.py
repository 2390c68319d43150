"""A still picture of a circuit of nodes: rows are layers; neurons and features stand at their score or position."""

from __future__ import annotations

import numpy as np

from circuits.beside import BOTH, HERE, THERE
from circuits.node_circuit import NodeCircuit
from circuits.node_comparison import NodeComparison
from circuits.viewer import look
from circuits.viewer.nodes.standing import GRID_LEVELS, standing
from circuits.viewer.sketch import TALL, WIDE, Line, Mark, Place, Sketch, Words
from interp import theme

DRAWN = 300  # nodes, the strongest
_NAMED = 8
_ROWS = {"feature": "dictionaries"}  # else layers
_LEFT, _RIGHT, _ABOVE, _BELOW = 64, 90, 24, 48  # pixels around the marks


def nodes_sketch(circuit: NodeCircuit) -> Sketch:
    """The strongest nodes of a circuit."""
    nodes = standing(circuit, DRAWN)
    drawn = min(DRAWN, len(nodes))
    score, row = nodes.score[:drawn], nodes.row[:drawn]
    across, below = _across(circuit, nodes.unit[:drawn], nodes.span, score)
    sketch = Sketch(
        f"The {drawn:,} strongest of {len(nodes):,} nodes: rows are {_ROWS.get(circuit.level, 'layers')}, "
        f"{below} from left to right, blue helps, orange hurts."
    )
    low, high = float(across.min(initial=0.0)), float(across.max(initial=0.0))
    to_x = (WIDE - _LEFT - _RIGHT) / ((high - low) or 1.0)
    tall = (TALL - _ABOVE - _BELOW) / max(len(nodes.rows), 1)
    middle = [TALL - _BELOW - (at + 0.5) * tall for at in range(len(nodes.rows))]
    step = max(1, round(14 / tall))
    for at in range(0, len(nodes.rows), step):
        sketch.add([Line([(_LEFT, middle[at]), (WIDE - _RIGHT, middle[at])], theme.FAINT, 1)])
        sketch.add([Words((_LEFT - 10, middle[at] + 4), nodes.rows[at], "end")])
    sketch.add([Words((WIDE / 2, TALL - 14), below, "middle")])
    share = np.sqrt(np.abs(score) / max(float(np.abs(score).max(initial=0.0)), np.finfo(float).tiny))
    for at in reversed(range(drawn)):
        place = (_LEFT + (float(across[at]) - low) * to_x, middle[row[at]])
        colour = theme.NEGATIVE if score[at] < 0 else theme.POSITIVE
        sketch.add([Mark(place, 3 + 5 * float(share[at]), colour, "#ffffff", circuit.level in GRID_LEVELS)])
        if at < _NAMED:
            sketch.add([Words((place[0] + 9, place[1] - 4), nodes.names[at], size=10)])
    return sketch


def comparison_sketch(comparison: NodeComparison) -> Sketch:
    """Nodes of two circuits, those of the largest differences, at their scores in both."""
    frame, names = comparison.to_frame().head(DRAWN), comparison.names
    sketch = Sketch(
        f"{len(frame):,} nodes by their score in {names[0]}, from left to right, and in {names[1]}, upwards; blue only "
        f"in {names[0]}, orange only in {names[1]}, grey in both."
    )
    scores = frame[["here", "there"]].to_numpy(float)
    low, high = scores.min(initial=0.0), scores.max(initial=0.0)
    steps = np.array([WIDE - _LEFT - _RIGHT, TALL - _ABOVE - _BELOW]) / ((high - low) or 1.0)

    def at(here: float, there: float) -> Place:
        return _LEFT + (here - low) * steps[0], TALL - _BELOW - (there - low) * steps[1]

    sketch.add([Line([at(low, low), at(high, high)], theme.FAINT, 1), Words((WIDE / 2, TALL - 14), names[0], "middle")])
    sketch.add([Words((_LEFT, _ABOVE - 8), names[1])])
    colours = dict(zip((BOTH, HERE, THERE), look.MEMBERS, strict=True))
    for node, member, (here, there) in zip(frame["node"], frame["membership"], scores, strict=True):
        sketch.add([Mark(at(here, there), 5, colours[member], "#ffffff")])
        sketch.add([Words((at(here, there)[0] + 8, at(here, there)[1] - 4), node, size=10)] if len(frame) <= 40 else [])
    return sketch


def _across(
    circuit: NodeCircuit, unit: np.ndarray, span: np.ndarray | None, score: np.ndarray
) -> tuple[np.ndarray, str]:
    """Where nodes stand from left to right, and what that is."""
    if circuit.level in GRID_LEVELS:
        return unit.astype(float), "heads, then the MLP" if circuit.level == "node" else "heads"
    return (score, "score") if span is None else (span[: len(score)].astype(float), "position")

"""A circuit of nodes as a plain plotly figure: rows are layers, with the sums of their scores beside them.

Of heads and MLPs a grid of all that the model has; of neurons and features marks, at their score or at their position.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from circuits.node_circuit import NodeCircuit
from circuits.viewer import look
from circuits.viewer.headings import facts, title
from circuits.viewer.nodes.standing import GRID_LEVELS, Standing, grid, standing
from interp import theme

DRAWN_LIMIT = 3_000  # marks, beyond which the weakest are not drawn
_GOLDEN, _SILVER = 0.618034, 0.414214  # steps of these shares of a row never meet, nor go together
_NAMED = 16  # marks, the strongest, that have their name beside them
_SIZES = (5.0, 16.0)  # pixels
_SIGNS = tuple(look.SIGNS.items())


def figure(circuit: NodeCircuit) -> go.Figure:
    """See `NodeCircuit.figure`."""
    nodes, in_grid = standing(circuit, DRAWN_LIMIT), circuit.level in GRID_LEVELS
    picture = make_subplots(rows=1, cols=2, shared_yaxes=True, column_widths=[0.76, 0.24], horizontal_spacing=0.02)
    for mark in _grid(circuit) if in_grid else _marks(nodes):
        picture.add_trace(mark, row=1, col=1)
    for bar in _bars(nodes):
        picture.add_trace(bar, row=1, col=2)
    count = len(nodes.rows)
    step = 1 if count <= 40 else 2 if count <= 80 else 5
    plain = {"zeroline": False, "showgrid": False}
    lines = facts(circuit)
    if len(nodes) > len(nodes.names) and not in_grid:
        lines = [*lines, f"drawn: the strongest {len(nodes.names):,} of {len(nodes):,}"]
    return theme.styled(
        picture,
        title(circuit),
        " · ".join(lines),
        yaxis={
            **plain, "tickvals": list(range(0, count, step)), "ticktext": nodes.rows[::step],
            "range": [-0.7, count - 0.3], "title": "dictionary" if circuit.level == "feature" else "layer",
        },
        xaxis={**plain, **_across(circuit, nodes)},
        xaxis2={"title": "sum of scores", "zerolinecolor": theme.FAINT, "nticks": 4},
        barmode="relative",
        hovermode="closest",
        modebar={"remove": list(look.REFUSED_BUTTONS)},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        margin={"l": 72, "r": 16, "b": 48},
        height=max(480, min(1100, 22 * count + 220)),
    )  # fmt: skip


def _across(circuit: NodeCircuit, nodes: Standing) -> dict[str, object]:
    """What the marks' axis shows: heads, positions or scores."""
    if circuit.level in GRID_LEVELS:
        heads = list(range(circuit.graph.n_heads))
        names = [f"h{head}" for head in heads] + (["MLP"] if circuit.level == "node" else [])
        return {"tickvals": list(range(len(names))), "ticktext": names, "title": "head"}
    if circuit.spans is not None:
        return {
            "tickvals": list(range(len(circuit.spans))), "ticktext": [str(place) for place in circuit.spans],
            "title": "position", "range": [-0.6, len(circuit.spans) - 0.4],
        }  # fmt: skip
    largest = float(np.abs(nodes.score).max(initial=0.0)) or 1.0
    ends = [-1.08 * largest * bool((nodes.score < 0).any()), 1.2 * largest]  # names stand right of their marks
    return {"title": "score", "zeroline": True, "zerolinecolor": theme.FAINT, "range": ends}


def _marks(nodes: Standing) -> Iterator[go.Scatter | go.Scattergl]:
    """A trace for each sign; the strongest on top."""
    shown = np.arange(len(nodes.names))
    scatter = go.Scatter if len(shown) <= look.SVG_LIMIT else go.Scattergl
    score = nodes.score[shown]
    share = np.sqrt(np.abs(score) / max(float(np.abs(score).max(initial=0.0)), np.finfo(float).tiny))
    aside = (shown * _GOLDEN) % 1 - 0.5
    y = nodes.row[shown] + 0.7 * aside
    x = score if nodes.span is None else nodes.span[shown] + 0.7 * ((shown * _SILVER) % 1 - 0.5)
    for (name, colour), of in zip(_SIGNS, (score >= 0, score < 0), strict=True):
        chosen = shown[of][::-1]
        named = _NAMED if nodes.span is None else 0  # cells of positions are full
        yield scatter(
            x=x[chosen], y=y[chosen], mode="markers+text", name=theme.label(name), legendgroup=name,
            text=[theme.label(nodes.names[i]) if i < named else "" for i in chosen],
            textposition="middle right", textfont={"size": 10, "color": theme.INK},
            hovertext=[theme.label(f"{nodes.names[i]}: {score[i]:+.4g}") for i in chosen], hoverinfo="text",
            marker={
                "size": _SIZES[0] + (_SIZES[1] - _SIZES[0]) * share[chosen], "color": colour, "opacity": 0.75,
                "line": {"color": "white", "width": 0.6},
            },
        )  # fmt: skip


def _grid(circuit: NodeCircuit) -> Iterator[go.Heatmap | go.Scatter]:
    """Scores of all nodes of the model, and frames around those of the circuit."""
    scores, inside = grid(circuit)
    strength = np.sign(scores) * np.sqrt(np.abs(scores))  # small scores are told apart
    most = float(np.abs(strength).max(initial=0.0)) or 1.0
    names = _cells(circuit, scores)
    yield go.Heatmap(
        z=strength, zmin=-most, zmax=most, xgap=1, ygap=1, hovertext=names, hoverinfo="text", showscale=False,
        colorscale=theme.DIVERGING,
    )  # fmt: skip
    row, unit = np.nonzero(inside)
    yield go.Scatter(
        x=unit, y=row, mode="markers", name="in the circuit", hoverinfo="skip",
        marker={"symbol": "square-open", "size": 13, "color": theme.INK, "line": {"width": 1.6}},
    )  # fmt: skip


def _cells(circuit: NodeCircuit, scores: Float[np.ndarray, "layer unit"]) -> list[list[str]]:
    heads = circuit.graph.n_heads
    return [
        [f"{f'a{row}.h{unit}' if unit < heads else f'm{row}'}: {value:+.4g}" for unit, value in enumerate(values)]
        for row, values in enumerate(scores)
    ]


def _bars(nodes: Standing) -> Iterator[go.Bar]:
    """Sums of the positive and of the negative scores of each row."""
    sums, hover = nodes.sums(), []
    for row, name in enumerate(nodes.rows):
        held, of, helps, hurts, largest = (values[row] for values in sums.values())
        text = f"{name}: {held:,} of {of:,}, helps {helps:+.4g}, hurts {hurts:+.4g}"
        if 0 <= largest < len(nodes.names):
            text += f", largest {nodes.names[largest]}"
        hover.append(theme.label(text))
    for (name, colour), values in zip(_SIGNS, (sums["helps"], sums["hurts"]), strict=True):
        yield go.Bar(
            y=list(range(len(nodes.rows))), x=values, orientation="h", marker={"color": colour},
            hovertext=hover, hoverinfo="text", showlegend=False, legendgroup=name,
        )  # fmt: skip

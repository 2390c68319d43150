"""Two circuits of nodes as a plain plotly figure: every node of either at its score in both."""

from __future__ import annotations

import plotly.graph_objects as go

from circuits.beside import BOTH, HERE, THERE
from circuits.node_comparison import NodeComparison
from circuits.viewer import look
from circuits.viewer.headings import title
from interp import theme

NAMED = 16  # nodes, of the largest differences, that have their name beside them


def comparison_figure(comparison: NodeComparison) -> go.Figure:
    """See `NodeComparison.figure`."""
    frame = comparison.to_frame()
    drawn = frame.head(look.DRAWN_LIMIT)
    scatter = go.Scatter if len(drawn) <= look.SVG_LIMIT else go.Scattergl
    picture = go.Figure()
    here, there = comparison.names
    called = (BOTH, f"only {here}", f"only {there}")
    for member, name, colour in zip((BOTH, HERE, THERE), called, look.MEMBERS, strict=True):
        part = drawn[drawn["membership"] == member]
        named = [node if at < NAMED else "" for at, node in zip(part.index.tolist(), part["node"], strict=True)]
        picture.add_trace(
            scatter(
                x=part["here"], y=part["there"], mode="markers+text", name=theme.label(f"{name} ({len(part):,})"),
                text=[theme.label(node) for node in named],
                textposition="middle right", textfont={"size": 10, "color": theme.INK},
                hovertext=[theme.label(f"{row.node}: {row.here:+.4g}, {row.there:+.4g}") for row in part.itertuples()],
                hoverinfo="text", marker={"color": colour, "size": 8, "opacity": 0.75},
            )
        )  # fmt: skip
    ends = [float(drawn[["here", "there"]].min().min()), float(drawn[["here", "there"]].max().max())]
    if len(drawn):
        picture.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": theme.FAINT}, showlegend=False)
    lines = [comparison.headline()]
    if not comparison.same_scale:
        lines.append("the scores are of different methods or objectives: they differ in scale too")
    if len(frame) > len(drawn):
        lines.append(f"drawn: {len(drawn):,} of {len(frame):,}, of the largest differences")
    own = title(comparison.here)
    return theme.styled(
        picture,
        f"{here} and {there}: {own}",
        " · ".join(lines),
        xaxis={"title": theme.label(f"score in {here}")},
        yaxis={"title": theme.label(f"score in {there}")},
        hovermode="closest",
        modebar={"remove": list(look.REFUSED_BUTTONS)},
    )

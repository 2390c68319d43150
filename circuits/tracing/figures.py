"""An attribution graph as a plain plotly figure: tokens across, layers upwards, links by the influence they carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from circuits.tracing.graph import AttributionGraph
from circuits.tracing.influence import influence, normalised
from circuits.viewer import look
from interp import theme

_DRAWN = 1_000  # links, beyond which the weakest are not drawn
_WIDE = 0.8  # of the room of one token, for all nodes of a layer and token
_SYMBOLS = {
    "neuron": "circle", "feature": "circle", "head": "circle", "mlp": "hexagon", "group": "star",
    "error": "diamond-open", "remainder": "diamond-open", "token": "square",
    "logit": "square", "bias": "x",
}  # fmt: skip
_SIZES = (7, 22)
_SIGNS = {"adds": theme.POSITIVE, "takes away": theme.NEGATIVE}


def figure(graph: AttributionGraph) -> go.Figure:
    """The nodes of a graph where they stand; at most a thousand links, those that carry most of the influence."""
    through, flow = carried(graph)
    x, y = places(graph)
    picture = go.Figure([*_links(graph, through, x, y), *_nodes(graph, flow, x, y)])
    n_layers = int(graph.nodes["layer"].max())
    return theme.styled(
        picture,
        theme.named(graph.model, f"what {', '.join(graph.target_tokens[:3])} is made of"),
        graph.headline(),
        xaxis={
            "tickvals": list(range(len(graph.tokens))), "ticktext": [theme.label(token) for token in graph.tokens],
            "showgrid": False, "zeroline": False, "range": [-1.4, len(graph.tokens) - 0.4], "title": "token",
        },
        yaxis={
            "tickvals": [-1, *range(0, n_layers, max(1, n_layers // 10)), n_layers],
            "ticktext": ["tokens", *map(str, range(0, n_layers, max(1, n_layers // 10))), "logits"],
            "showgrid": False, "zeroline": False, "title": "layer",
        },
        hovermode="closest",
        modebar={"remove": list(look.REFUSED_BUTTONS)},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        height=max(480, min(1000, 24 * n_layers + 240)),
        margin={"l": 64, "r": 16, "b": 48},
    )  # fmt: skip


def carried(graph: AttributionGraph) -> tuple[Float[np.ndarray, "node node"], Float[np.ndarray, " node"]]:
    """The influence that each link `[target, source]` carries, and that of each node."""
    shares = normalised(graph.counted())
    flow = influence(shares, graph.weights.double()) + graph.weights.double()
    return (shares * flow[:, None]).numpy(), flow.numpy()


def places(graph: AttributionGraph) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of one layer and token side by side; what has neither stands at the left, below."""
    rows = list(zip(graph.nodes["layer"].tolist(), graph.nodes["position"].tolist(), strict=True))
    counts, seen = Counter(rows), Counter[tuple[int, int]]()
    x, y = np.zeros(len(rows)), np.zeros(len(rows))
    for i, (layer, position) in enumerate(rows):
        room = _WIDE / counts[layer, position]
        x[i] = position - _WIDE / 2 + room * (seen[layer, position] + 0.5)
        y[i] = layer
        seen[layer, position] += 1
    return x, y


def _links(graph: AttributionGraph, through: np.ndarray, x: np.ndarray, y: np.ndarray) -> Iterator[go.Scatter]:
    """A trace for each sign and strength that occurs, the strongest on top."""
    weights = graph.adjacency.numpy()
    target, source = np.nonzero((weights != 0) & (through > 0))
    strength = through[target, source]
    kept = np.argsort(-strength, kind="stable")[:_DRAWN]
    target, source, strength = target[kept], source[kept], strength[kept]
    share = strength / max(strength.max(initial=0.0), np.finfo(float).tiny)
    level = np.select([share >= least for least, _, _ in look.LEVELS], range(len(look.LEVELS)))
    negative = weights[target, source] < 0
    for index, (_, width, opacity) in reversed(list(enumerate(look.LEVELS))):
        for name, colour, of in zip(_SIGNS, _SIGNS.values(), (~negative, negative), strict=True):
            chosen = np.flatnonzero(of & (level == index))
            if len(chosen):
                gaps = np.full(len(chosen), np.nan)
                ends = [np.stack((axis[source[chosen]], axis[target[chosen]], gaps), 1).ravel() for axis in (x, y)]
                yield go.Scatter(
                    x=ends[0], y=ends[1], mode="lines", line={"color": colour, "width": width}, opacity=opacity,
                    hoverinfo="skip", legendgroup=name, showlegend=False,
                )  # fmt: skip
    for name, colour in _SIGNS.items():
        line = {"color": colour, "width": 4}
        yield go.Scatter(x=[None], y=[None], mode="lines", line=line, name=name, legendgroup=name)


def _nodes(graph: AttributionGraph, flow: np.ndarray, x: np.ndarray, y: np.ndarray) -> Iterator[go.Scatter]:
    least, most = _SIZES
    sizes = least + (most - least) * np.sqrt(flow / max(flow.max(initial=0.0), np.finfo(float).tiny))
    nodes = graph.nodes[graph.nodes["kind"] != "bias"]
    texts = {f"token@{i}": token for i, token in enumerate(graph.tokens)}
    texts |= {f"logit{i}": token for i, token in enumerate(graph.target_tokens)}
    for kind, rows in nodes.groupby("kind", sort=False):
        at = rows.index.to_numpy()
        hover = [
            theme.label(f"{row['name']} {texts.get(row['name'], '')}")
            + ("" if np.isnan(row["activation"]) else f"<br>activation {row['activation']:.4g}")
            + f"<br>influence {flow[i]:.4g}"
            for i, row in zip(at, rows.to_dict("records"), strict=True)
        ]
        yield go.Scatter(
            x=x[at], y=y[at], mode="markers", name=str(kind), hovertext=hover, hoverinfo="text",
            marker={
                "symbol": _SYMBOLS.get(str(kind), "circle"), "size": sizes[at], "color": "white", "opacity": 1,
                "line": {"color": theme.INK, "width": 1.5},
            },
        )  # fmt: skip

"""Where in a model scores lie: a map of its heads and MLPs by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.scores import Scores
from interp import theme
from interp.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def head_map(scores: Scores) -> Figure:
    """A heat map of the importance of every head, and of every MLP at the right: layers by heads.

    The importance of a node is its score, summed over positions where these are told apart. Of edges it is the sum of
    the scores of those that leave it: an estimate of what ablating the node does only as far as effects add up. Blue
    helps, orange hurts. Raises `InputError` for scores of neurons and features.
    """
    import plotly.graph_objects as go

    values = _by_layer(scores)
    largest = float(values.nan_to_num().abs().max()) or 1.0
    names = [f"h{head}" for head in range(scores.graph.n_heads)]
    names += ["MLP"] * (values.shape[1] - len(names))
    picture = go.Figure(
        go.Heatmap(
            z=values.tolist(), x=names, colorscale=theme.DIVERGING, zmin=-largest, zmax=largest, xgap=1, ygap=1,
            colorbar={"title": "score"}, hovertemplate="layer %{y}, %{x}: %{z:.4g}<extra></extra>",
        )
    )  # fmt: skip
    picture.update_yaxes(title="layer", dtick=max(1, scores.graph.n_layers // 12))
    picture.update_xaxes(title="head")
    what = "edges that leave a node" if scores.level == "edge" else f"{scores.level}s"
    return theme.styled(picture, theme.named(scores.model, scores.task.get("name"), f"{scores.method}: {what}"))


def _by_layer(scores: Scores) -> Float[Tensor, "layer unit"]:
    graph, values = scores.graph, scores.values.double()
    if scores.level == "head":
        return values if scores.spans is None else values.sum(1)
    if scores.level == "edge":
        values = torch.where(graph.edge_mask, scores.edge_values.double(), 0.0).sum(1)
    elif scores.level == "node":
        values = values if scores.spans is None else values.sum(0)
    else:
        raise InputError(
            f"scores are of {scores.level}s, which have no map of heads; give scores of edges, nodes or heads"
        )
    place = {name: at for at, name in enumerate(graph.sources)}
    heads = range(graph.n_heads)
    rows = [[*(place[f"a{layer}.h{head}"] for head in heads), place[f"m{layer}"]] for layer in range(graph.n_layers)]
    return values[torch.tensor(rows, device=values.device)]

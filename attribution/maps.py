"""Where scores lie: a map of a model's heads and MLPs by layer, and one of a prompt's tokens by method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.inputs.result import TokenAttributions, for_plotly
from attribution.scores import Scores
from interp import numbers, theme
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


@numbers.checked(input=numbers.FROM_ZERO)
def token_map(found: Mapping[str, TokenAttributions], input: int = 0) -> Figure:
    """Token methods side by side: a heat map of one input, a row for each of `found`, each over its largest |score|.

    Blue speaks for the explained token, orange against it; methods differ in scale, so that rows are compared by their
    pattern. Raises `InputError` for results of other tokens, and for an input that is not there.
    """
    import plotly.graph_objects as go

    if not found:
        raise InputError("found names no result; give at least one, such as {'attnlrp': attribution.tokens(...)}")
    first = next(iter(found.values()))
    if input >= len(first.tokens):
        raise InputError(f"input={input} must be from 0 to {len(first.tokens) - 1}")
    tokens = first.tokens[input]
    for name, one in found.items():
        if len(one.tokens) <= input or one.tokens[input] != tokens:
            raise InputError(f"found[{name!r}] is of other tokens; give results of the same input")
    values = torch.stack([one.values[input, : len(tokens)].double() for one in found.values()])
    shares = values / values.abs().amax(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    picture = go.Figure(
        go.Heatmap(
            z=shares.tolist(), customdata=values.tolist(), y=[theme.label(name) for name in found],
            colorscale=theme.DIVERGING, zmin=-1, zmax=1, ygap=2, colorbar={"title": "share of<br>the largest"},
            hovertemplate="%{y}, position %{x}: %{customdata:.4g}<extra></extra>",
        )
    )  # fmt: skip
    picture.update_xaxes(
        title="token", tickvals=list(range(len(tokens))), ticktext=[for_plotly(token) for token in tokens]
    )
    picture.update_yaxes(title="method", autorange="reversed", type="category")
    title = theme.named(first.model, ", ".join(found), f"what speaks for {first.target_tokens[input].strip()}")
    return theme.styled(picture, title, height=190 + 34 * len(found))


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

"""Pictures of one prompt outside of the page: the attention of a head, and the answer layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from circuits.links import node_layer
from circuits.viewer.linked import corrupted_patterns, linked_views, written_on
from circuits.viewer.promoted import through_final_norm
from interp import theme
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.running import door
from interp.tasks.task import Task


@door
@torch.no_grad()
def attention_figure(model: Any, task: Task, head: str, example: int = 0) -> go.Figure:
    """Where a head looks on one prompt: on the clean one, on the corrupted one, and the difference (blue: more).

    Rows look at columns; patterns are in steps of 1/255. Cost: two forward passes. Raises `InputError` for what is no
    head of the model, and for a number that is none of the task's prompts.
    """
    heads = [name for name in ComputationalGraph.of(model).sources if ".h" in name]
    if head not in heads:
        raise InputError(f"head={head!r} is no head of the model; its heads go from {heads[0]} to {heads[-1]}")
    views = linked_views(model, task, [head], example)
    if not views.heads:
        raise InputError(f"the prompt has {len(views.clean):,} tokens: its pattern is too large to be drawn")
    clean = views.patterns[0] / 255
    corrupted = corrupted_patterns(model, task, [head], example)[0] / 255
    titles = ["clean", "corrupted", "clean less corrupted"]
    picture = make_subplots(cols=3, subplot_titles=titles, horizontal_spacing=0.1)
    runs = ((clean, views.clean), (corrupted, views.corrupted), (clean - corrupted, views.clean))
    future = np.triu(np.ones_like(clean, dtype=bool), 1)
    for column, (pattern, tokens) in enumerate(runs, 1):
        picture.add_heatmap(
            z=np.where(future, np.nan, pattern), zmin=-1, zmax=1, colorscale=theme.DIVERGING, showscale=column == 3,
            colorbar={"title": "attention"},
            hovertemplate="from %{y} to %{x}: %{z:.2f}<extra></extra>", row=1, col=column,
        )  # fmt: skip
        axis = {"tickvals": list(range(len(tokens))), "ticktext": [theme.label(token) for token in tokens]}
        picture.update_xaxes(**axis, tickangle=-60, row=1, col=column)
        picture.update_yaxes(**axis, autorange="reversed", row=1, col=column)
    picture.update_yaxes(title="looks from", col=1)
    picture.update_xaxes(title="to")
    title = theme.named(_name(model), task.name, f"attention of {head}, prompt {example}")
    return theme.styled(picture, title, height=460)


@door
@torch.no_grad()
def answer_figure(model: Any, task: Task, example: int = 0) -> go.Figure:
    """How the answer comes about on one clean prompt, layer by layer: direct effects as bars, the logit lens as a line.

    A bar is what the heads of a layer, or its MLP, add at the last position to the difference of the answer's logits
    through the final norm held at its scale in this run; with the input's and that of biases the bars add up to the
    difference. The line is the logit lens: what the final norm and the unembedding make of the residual stream behind
    that layer (with all biases); it ends at the difference. nostalgebraist 2020, "logit lens"; Elhage et al. 2021.
    Cost: one forward pass. Raises `InputError` for a number that is none of the task's prompts.
    """
    run = written_on(model, task, example)
    layers, direct = run.graph.n_layers, through_final_norm(run.anatomy, run.outputs, run.final) @ run.readout
    layer, attention = (
        torch.tensor(of, device=direct.device)
        for of in zip(*((node_layer(name, run.graph), ".h" in name) for name in run.graph.sources), strict=True)
    )
    biases = run.final - run.outputs.sum(0)
    lens = [run.read(biases + run.outputs[layer <= at].sum(0)) for at in range(-1, layers)]
    places = list(range(-1, layers))
    parts = (("attention", attention, theme.SKY), ("MLP and input", ~attention, theme.GREY))
    picture = go.Figure()
    for name, of, colour in parts:
        sums = [float(direct[of & (layer == at)].sum()) for at in places]
        picture.add_bar(x=places, y=sums, name=f"direct effect: {name}", marker_color=colour)
    picture.add_scatter(x=places, y=lens, name="logit lens", mode="lines+markers", line={"color": theme.INK})
    picture.update_layout(barmode="relative", legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})
    picture.update_xaxes(title="layer (-1: the input)")
    picture.update_yaxes(title="correct less incorrect (logits)")
    title = theme.named(_name(model), task.name, f"the answer of prompt {example} by layer")
    return theme.styled(picture, title, height=460)


def _name(model: Any) -> str:
    return str(getattr(getattr(model, "cfg", None), "model_name", "") or "")

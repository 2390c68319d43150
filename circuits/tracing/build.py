"""From effects to an attribution graph: nodes in order, the adjacency matrix, influence and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from attribution.tracing.biases import Place
from attribution.tracing.effects import Effects
from attribution.tracing.units import Places
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.intervention import unit_name
from circuits.tracing.joining import scored

Biases = Literal["each", "summed"]
COLUMNS = ("name", "kind", "layer", "position", "unit", "activation", "influence", "cumulative", "score", "place")


@dataclass(frozen=True)
class Found:
    """What was measured: units in the order shown, effects on the logits and then on the units."""

    kinds: Sequence[str]  # of each unit
    units: Places
    activations: Float[Tensor, " unit"]
    scores: Float[Tensor, " unit"]
    effects: Effects
    ids: Sequence[int]
    token_scores: Float[Tensor, " pos"]
    logits: Sequence[int]  # the first token of each
    values: Float[Tensor, " logit"]
    chances: Float[Tensor, " logit"]
    magnitude: Float[Tensor, " row"]  # of each row
    places: Sequence[Place]
    n_layers: int


def build(found: Found, biases: Biases, about: dict[str, Any]) -> AttributionGraph:
    """The graph; `about` are its other attributes."""
    effects, n_units, n_logits = found.effects, len(found.units), len(found.logits)
    order = torch.arange(n_logits + n_units, device=effects.tokens.device).roll(-n_logits)  # units, then logits
    nodes, sources = _nodes(found, biases)
    n_nodes, inner = len(nodes), n_units + effects.errors[0].numel() + len(found.ids)
    adjacency = torch.zeros(n_nodes, n_nodes, dtype=effects.tokens.dtype, device="cpu")
    rows = torch.tensor([*range(n_units), *range(inner, inner + n_logits)], dtype=torch.long, device="cpu")
    adjacency[rows] = sources[order].cpu()
    magnitude, weights = adjacency.new_zeros(n_nodes), adjacency.new_zeros(n_nodes)
    magnitude[rows] = found.magnitude[order].cpu()
    weights[inner : inner + n_logits] = found.chances.cpu()
    unscored = {"replacement_score": float("nan"), "completeness_score": float("nan")}
    graph = AttributionGraph(
        **{**about, **unscored, "nodes": nodes, "adjacency": adjacency, "magnitude": magnitude, "weights": weights}
    )
    return scored(graph)


def _nodes(found: Found, biases: Biases) -> tuple[pd.DataFrame, Float[Tensor, "row node"]]:
    """The nodes, without influence as yet, and the effects of each as a source."""
    effects, length = found.effects, len(found.ids)
    n_logits = len(found.logits)
    logits = effects.tokens.new_zeros(len(effects.tokens), n_logits)
    parts = [
        (_unit_nodes(found), effects.units),
        (_grid("error", range(effects.errors.shape[1]), length), effects.errors.flatten(1)),
        (_token_nodes(found), effects.tokens),
        (_logit_nodes(found), logits),
    ]
    rest = effects.everything - effects.units.sum(1)
    if effects.magnitude is not None:
        parts.append((pd.DataFrame({"name": ["remainder"], "kind": ["remainder"]}), rest[:, None]))
    if biases == "summed" and found.places:
        total = effects.biases.sum((1, 2))[:, None]
        parts.append((pd.DataFrame({"name": ["biases"], "kind": ["bias"]}), total))
    elif found.places:
        each, felt = _bias_nodes(found)
        parts.append((each[felt.cpu().numpy()].reset_index(drop=True), effects.biases.flatten(1)[:, felt]))
    named = [nodes.assign(place=nodes.get("place", "")) for nodes, _ in parts if len(nodes)]
    frame = pd.concat(named, ignore_index=True)
    for column in COLUMNS:
        if column not in frame:
            frame[column] = np.nan
    whole = {column: frame[column].fillna(-1).astype("int64") for column in ("layer", "position", "unit")}
    reals = {column: frame[column].astype("float64") for column in ("activation", "score")}
    frame = frame.assign(**whole, **reals, influence=0.0, cumulative=1.0, place=frame["place"].astype("str"))
    return frame[list(COLUMNS)], torch.cat([values for _, values in parts], 1)


def _unit_nodes(found: Found) -> pd.DataFrame:
    rows = found.units.rows().tolist()
    frame = pd.DataFrame(rows, columns=["layer", "position", "unit"], dtype="int64")
    names = [unit_name(kind, (a, b, c)) for kind, (a, b, c) in zip(found.kinds, rows, strict=True)]
    activations, scores = (x.cpu().double().numpy() for x in (found.activations, found.scores))
    return frame.assign(name=names, kind=list(found.kinds), activation=activations, score=scores)


def _grid(kind: str, layers: range, length: int) -> pd.DataFrame:
    rows = [(layer, position) for layer in layers for position in range(length)]
    frame = pd.DataFrame(rows, columns=["layer", "position"], dtype="int64")
    return frame.assign(name=[f"m{layer}.{kind}@{position}" for layer, position in rows], kind=kind)


def _token_nodes(found: Found) -> pd.DataFrame:
    names = [f"token@{position}" for position in range(len(found.ids))]
    scores = found.token_scores.cpu().double().numpy()
    return pd.DataFrame({"position": range(len(found.ids)), "unit": list(found.ids)}).assign(
        name=names, kind="token", score=scores
    )


def _logit_nodes(found: Found) -> pd.DataFrame:
    names = [f"logit{i}" for i in range(len(found.logits))]
    values = found.values.cpu().double().numpy()
    return pd.DataFrame({"unit": list(found.logits), "activation": values}).assign(
        name=names, kind="logit", layer=found.n_layers, position=len(found.ids) - 1
    )


def _bias_nodes(found: Found) -> tuple[pd.DataFrame, Tensor]:
    """A node for each layer, position and place, and which of them have an effect."""
    rows = [
        (layer, position, place)
        for layer, place in found.places
        for position in range(len(found.ids))
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["layer", "position", "place"])
    names = [f"{'' if layer < 0 else f'm{layer}.'}{place}@{position}" for layer, position, place in rows]
    return frame.assign(name=names, kind="bias"), found.effects.biases.flatten(1).any(0)

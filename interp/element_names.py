"""What circuits are made of by name: edges such as `m0->logits`, nodes such as `m3.n120`; and tables of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.graph import ComputationalGraph
from interp.node_mask import Spans, axes_of

Places = Int[Tensor, " n"]  # flat indices into masks or scores
_FORMS = {"neuron": ("m{}.n{}", "d_mlp"), "expert": ("m{}.e{}", "expert"), "head": ("a{}.h{}", "head")}


def element_names(
    graph: ComputationalGraph, level: str, spans: Spans, shape: Sequence[int], places: Places, made: Mapping[str, Any]
) -> list[str]:
    """Names such as `m0->logits`, `a2.h5`, `m3`, `m3.n120`, `m3.e5`, `mlp3.f7`; behind `@` the position, if it counts.

    `shape` is that of the level's masks; `made` says where features are, as settings of scores do.

    >>> element_names(ComputationalGraph(2, 2), "head", (4,), (2, 1, 2), torch.tensor([3]), {})
    ['a1.h1@4']
    """
    if level == "edge":
        *span, source, target = (index.tolist() for index in torch.unravel_index(places, tuple(shape)))
        edges = [graph.edge_name(*pair) for pair in zip(source, target, strict=True)]
        return edges if spans is None else [f"{edge}@{spans[i]}" for edge, i in zip(edges, span[0], strict=True)]
    columns = _columns(graph, level, spans, shape, places, made)
    names = [str(name) for name in columns["node"]]
    if spans is None:
        return names
    return [f"{name}@{position}" for name, position in zip(names, columns["position"], strict=True)]


def node_frame(
    graph: ComputationalGraph,
    level: str,
    spans: Spans,
    values: Float[Tensor, "*axes"],
    places: Places,
    made: Mapping[str, Any],
) -> pd.DataFrame:
    """Nodes with their values: columns node, layer, neuron (head, expert), position where spans are told apart, score.

    Of features dictionary, layer, site and feature (-1: the error). `made` as in `element_names`.
    """
    columns = _columns(graph, level, spans, values.shape, places, made)
    return pd.DataFrame(columns | {"score": values.flatten()[places].numpy()}).astype({"node": "str"})


def dictionary_labels(made: Mapping[str, Any], count: int) -> list[str]:
    """What each of `count` dictionaries is called: `mlp3`, `embedding`; `d0` of those that nobody named."""
    known = made.get("dictionaries", [])
    named = [f"{one['site']}{'' if one['site'] == 'embedding' else one['layer']}" for one in known]
    return named or [f"d{number}" for number in range(count)]


def _columns(
    graph: ComputationalGraph, level: str, spans: Spans, shape: Sequence[int], places: Places, made: Mapping[str, Any]
) -> dict[str, Any]:
    where = {
        axis: index.numpy()
        for axis, index in zip(axes_of(level, spans), torch.unravel_index(places, tuple(shape)), strict=True)
    }
    columns: dict[str, Any] = {}
    if level == "node":
        columns["node"] = np.array(graph.sources, dtype=object)[where["source"]]
    elif level == "feature":
        columns = _feature_columns(where["dictionary"], where["feature"], shape[-1], made)
    else:
        form, axis = _FORMS[level]
        unit = where[axis]
        names = [form.format(*pair) for pair in zip(where["layer"].tolist(), unit.tolist(), strict=True)]
        columns = {"node": names, "layer": where["layer"], level: unit}
    if spans is not None:
        columns["position"] = np.array(spans)[where["span"]]
    return columns


def _feature_columns(
    dictionary: np.ndarray, feature: np.ndarray, width: int, made: Mapping[str, Any]
) -> dict[str, Any]:
    """Names such as `mlp3.f120` and `mlp3.error`, and where they are; `d0.f120` of dictionaries that nobody named."""
    if made.get("errors") == "nodes":
        feature = np.where(feature == width - 1, -1, feature)
    known = made.get("dictionaries", [])
    labels = dictionary_labels(made, int(dictionary.max(initial=-1)) + 1)
    parts = [labels[i] for i in dictionary.tolist()]
    units = ["error" if i < 0 else f"f{i}" for i in feature.tolist()]
    columns: dict[str, Any] = {"node": [f"{part}.{unit}" for part, unit in zip(parts, units, strict=True)]}
    columns["dictionary"] = dictionary
    for name in ("layer", "site") if known else ():
        columns[name] = np.array([one[name] for one in known])[dictionary]
    return columns | {"feature": feature}

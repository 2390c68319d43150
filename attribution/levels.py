"""What scores may be of: edges of the graph, heads and MLPs, heads, neurons or features; their shapes and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.arrays import is_dense
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.node_mask import NODE_LEVELS, Spans, axes_of

LEVELS = ("edge", *NODE_LEVELS)


def checked_values(values: Tensor, graph: ComputationalGraph, level: str, spans: Spans) -> Tensor:
    """A copy of scores on the CPU; raises `InputError` for another shape or dtype, and for what is not finite."""
    shape = _shape(graph, level, spans)
    fits = isinstance(values, Tensor) and values.ndim == len(shape)
    if not fits or any(size not in (wanted, None) for size, wanted in zip(values.shape, shape, strict=True) if wanted):
        given = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        axes = shape if level == "edge" else axes_of(level, spans)
        wanted = tuple(axis if size is None else size for axis, size in zip(axes, shape, strict=True))
        raise InputError(f"values of level {level!r} must be a tensor of shape {wanted}; got {given}")
    if values.dtype not in (torch.float32, torch.float64):
        raise InputError(f"values must be float32 or float64; got {values.dtype}")
    if not is_dense(values):
        raise InputError("values must be an ordinary tensor; got one that is sparse, or has no values (device meta)")
    # a copy: an engine may go on accumulating into its tensor
    values = values.detach().cpu().clone(memory_format=torch.contiguous_format)
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise InputError(f"{bad:,} of {values.numel():,} values are NaN or infinite")
    if level == "edge":
        phantom = ((values != 0) & ~graph.edge_mask).nonzero()
        if len(phantom):
            source, target = phantom[0].tolist()
            raise InputError(
                f"values score {len(phantom):,} edges that do not exist, the first being "
                f"{graph.edge_name(source, target)}; multiply by graph.edge_mask"
            )
    return values


def _shape(graph: ComputationalGraph, level: str, spans: Spans) -> tuple[int | None, ...]:
    """Of each axis how long it is; None: any length."""
    if level == "edge":
        if spans is not None:
            raise InputError("spans go with scores of nodes")
        return graph.shape
    sizes: dict[str, int | None] = {"source": graph.shape[0], "layer": graph.n_layers, "head": graph.n_heads}
    sizes |= {"d_mlp": None, "dictionary": None, "feature": None}
    known = {**sizes, "span": len(spans or ())}
    return tuple(known[axis] for axis in axes_of(level, spans))


def node_frame(
    graph: ComputationalGraph, level: str, spans: Spans, values: Tensor, flat: Tensor, made: Mapping[str, Any]
) -> pd.DataFrame:
    """Nodes with their values: columns node, then layer and neuron (head), position where spans are told apart, score.

    Of features dictionary, layer, site and feature (-1: the error). `flat`: which, as indices into the flattened
    values; `made`: the scores' settings, which say where features are.
    """
    where = {
        axis: index.numpy()
        for axis, index in zip(axes_of(level, spans), torch.unravel_index(flat, values.shape), strict=True)
    }
    columns: dict[str, Any] = {}
    if level == "node":
        columns["node"] = np.array(graph.sources, dtype=object)[where["source"]]
    elif level == "feature":
        columns = _feature_columns(where["dictionary"], where["feature"], values.shape[-1], made)
    else:
        unit = where["d_mlp" if level == "neuron" else "head"]
        form = "m{}.n{}" if level == "neuron" else "a{}.h{}"
        names = [form.format(*pair) for pair in zip(where["layer"].tolist(), unit.tolist(), strict=True)]
        columns = {"node": names, "layer": where["layer"], level: unit}
    if spans is not None:
        columns["position"] = np.array(spans)[where["span"]]
    return pd.DataFrame(columns | {"score": values.flatten()[flat].numpy()}).astype({"node": "str"})


def dictionary_labels(made: Mapping[str, Any], count: int) -> list[str]:
    """What each of `count` dictionaries is called: `mlp3`, `embedding`; `d0` of those that nobody named."""
    known = made.get("dictionaries", [])
    named = [f"{one['site']}{'' if one['site'] == 'embedding' else one['layer']}" for one in known]
    return named or [f"d{number}" for number in range(count)]


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

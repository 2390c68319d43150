"""What scores may be of: edges of the graph, heads and MLPs, heads, neurons or features; and their shapes."""

from __future__ import annotations

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
            *_, source, target = phantom[0].tolist()
            raise InputError(
                f"values score {len(phantom):,} edges that do not exist, the first being "
                f"{graph.edge_name(source, target)}; multiply by graph.edge_mask"
            )
    return values


def _shape(graph: ComputationalGraph, level: str, spans: Spans) -> tuple[int | None, ...]:
    """Of each axis how long it is; None: any length."""
    if level == "edge":
        return graph.shape if spans is None else (len(spans), *graph.shape)
    sizes: dict[str, int | None] = {"source": graph.shape[0], "layer": graph.n_layers, "head": graph.n_heads}
    sizes |= {"d_mlp": None, "expert": None, "dictionary": None, "feature": None}
    known = {**sizes, "span": len(spans or ())}
    return tuple(known[axis] for axis in axes_of(level, spans))

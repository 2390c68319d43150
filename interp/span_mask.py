"""`SpanMask`: a circuit of edges by position: which edge is in at which span of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.arrays import is_dense
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.keeping import kept
from interp.spans import SpanNames, span_names


@kept
@dataclass(frozen=True, eq=False)
class SpanMask:
    """Edges of a graph at spans, kept or not.

    Attributes:
        mask: bool `[span, source, target]`: an edge joins its ends at each position of the span. What crosses positions
            is inside of attention, from k and v targets at one position to the head at another.
        spans: absolute positions and names (`interp.spans`), of which `rest` is every position in none. Without it
            edges at positions in none are ablated.
        level: "edge".

    Raises `InputError` for a mask that is not bool or has other axes.

    >>> SpanMask(torch.ones(2, 3, 4, dtype=torch.bool), ("S2", "rest")).n_edges
    24
    """

    mask: Bool[Tensor, "span source target"]
    spans: SpanNames
    level: str = "edge"

    def __post_init__(self) -> None:
        spans, mask = span_names(self.spans), self.mask
        if spans is None or self.level != "edge":
            raise InputError(f"a mask of edges by position has spans and level='edge'; got level={self.level!r}")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 3 or not is_dense(mask):
            given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(f"a mask of edges by position is a torch.bool tensor [span, source, target]; got {given}")
        if len(mask) != len(spans):
            raise InputError(f"mask has {len(mask)} spans on its first axis; spans names {len(spans)}")
        object.__setattr__(self, "spans", spans)
        object.__setattr__(self, "mask", mask.detach().cpu())

    @property
    def n_edges(self) -> int:
        """How many edges are kept, each counted at every span that it is kept at."""
        return int(self.mask.sum())

    def check(self, graph: ComputationalGraph, whose: str) -> Bool[Tensor, "span source target"]:
        """The mask, over the graph of the model called `whose`; raises `InputError` where it does not fit."""
        if tuple(self.mask.shape[1:]) != graph.shape:
            raise InputError(
                f"mask of edges by position and shape {tuple(self.mask.shape)} does not fit model={whose!r}, whose "
                f"graph has {graph.shape} (sources, targets)"
            )
        phantom = self.mask & ~graph.edge_mask
        if phantom.any():
            span, source, target = phantom.nonzero()[0].tolist()
            raise InputError(
                f"mask switches on {int(phantom.sum())} edges that do not exist, the first being "
                f"{graph.edge_name(source, target)} at {self.spans[span]!r}; intersect it with graph.edge_mask"
            )
        return self.mask

    def rest(self, graph: ComputationalGraph) -> SpanMask:
        """The other edges at the same spans: the complement."""
        return SpanMask(graph.edge_mask & ~self.mask, self.spans)


def span_masks(given: Any, level: str | None = None, spans: Sequence[Any] | None = None) -> list[SpanMask] | None:
    """Masks of edges by position as objects, from what has `.mask` and `.spans`, or from a tensor and its spans.

    A tensor may be a stack, with one axis more in front. None for what is of nodes, or of edges at all positions.
    """
    own = getattr(given, "level", "edge"), getattr(given, "spans", None)
    if isinstance(given, Tensor):
        if spans is None or level not in (None, "edge"):
            return None
        names = span_names(spans)
        assert names is not None
        return [SpanMask(one, names) for one in (given if given.ndim == 4 else given[None])]
    if own[0] != "edge" or own[1] is None:
        return None
    if level not in (None, "edge") or spans is not None:
        raise InputError("level and spans are for bare tensors; this circuit says its own: leave them out")
    return [given if isinstance(given, SpanMask) else SpanMask(given.mask, own[1])]

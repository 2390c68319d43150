"""Scores of nodes as metrics take them: values, what they are of, and the circuits that they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import InputError
from interp.node_mask import NODE_LEVELS, NodeMask, Spans, spans_of
from interp.selection.nodes import countable, node_ladder, top_nodes
from interp.setting import Setting


@dataclass(frozen=True)
class NodeScores:
    """Values over the nodes of a level: see `interp.node_mask.NodeMask` for their axes."""

    values: Float[Tensor, "*axes"]
    level: str
    spans: Spans = None
    exists: Bool[Tensor, "*axes"] | None = None  # True where there is a node; None: everywhere

    @classmethod
    def of(cls, scores: Any, keywords: Mapping[str, Any]) -> NodeScores | None:
        """From what has `.values`, `.level` and `.spans`, or from a tensor and its `level`; None: of edges.

        Raises `InputError` for what has no values, and for a level beside scores of another.
        """
        level, own = keywords.get("level"), None if isinstance(scores, Tensor) else getattr(scores, "level", None)
        spans = keywords.get("spans") if isinstance(scores, Tensor) else getattr(scores, "spans", None)
        if level is None and own in NODE_LEVELS:
            level = own
        if level in (None, "edge"):
            return None
        if level not in NODE_LEVELS or (own is not None and own != level):
            raise InputError(f"level={level!r} does not fit scores of level {own!r}; choose from {NODE_LEVELS}")
        values = scores if isinstance(scores, Tensor) else getattr(scores, "values", None)
        if not isinstance(values, Tensor):
            raise InputError(
                f"scores must be a tensor or have such .values, as a circuit's .scores; got {type(scores).__name__}"
            )
        return cls(values.detach().cpu(), level, spans_of(spans))

    def among(self, setting: Setting) -> NodeScores:
        """Of a setting's nodes; raises `InputError` for scores of others, and for ones that are not finite."""
        full = setting.nodes(self.level, self.spans).full
        if self.values.shape != full.shape:
            raise InputError(
                f"scores of level {self.level!r} and shape {tuple(self.values.shape)} do not fit "
                f"model={setting.anatomy.name!r}, which has {tuple(full.shape)}"
            )
        if not bool(self.values.isfinite().all()):
            raise InputError("scores hold NaN or infinite values, which cannot be ranked")
        return replace(self, exists=full)

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return len(countable(self.values, self.level, self.exists))

    @property
    def ladder(self) -> tuple[int, ...]:
        """Sizes at which circuits of these nodes are measured."""
        return node_ladder(self.count)

    def top(self, n: int, helping: float = 0.5) -> NodeMask:
        """The circuit of `n` nodes (`interp.selection.top_nodes`)."""
        return NodeMask(top_nodes(self.values, n, self.level, helping, self.exists), self.level, self.spans)

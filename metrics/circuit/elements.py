"""What circuits are made of, edges or nodes of a level: all that tests and comparisons of either need to know of it."""

from __future__ import annotations

import functools
import random as python_random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from interp.errors import InputError
from interp.node_mask import NodeMask, Spans, node_masks
from interp.selection import Connected, Selection, TopN, ladder, node_ladder, prune
from interp.selection.named import rules_of
from interp.selection.nodes import countable
from interp.setting import MaskObject, Setting
from interp.span_mask import SpanMask
from metrics.circuit.balance import node_rules
from metrics.circuit.controls import exchangeable, random_nodes, refuse_reference
from metrics.circuit.element_base import Elements, Mask, Places, Values
from metrics.circuit.node_scores import NodeScores
from metrics.circuit.samples import added_paths, random_circuit, random_paths
from metrics.circuit.span_elements import SpanElements

__all__ = [
    "EdgeElements",
    "Elements",
    "Mask",
    "NodeElements",
    "Places",
    "SpanElements",
    "Values",
    "elements_at",
    "elements_of",
]


@dataclass(frozen=True)
class EdgeElements(Elements):
    """Edges of the setting's graph."""

    noun = "edge"
    null = "paths"

    @property
    def full(self) -> Mask:
        return self.setting.graph.edge_mask

    @functools.cached_property
    def places(self) -> Places:
        return self.full.flatten().nonzero()[:, 0]

    @property
    def ladder(self) -> tuple[int, ...]:
        return ladder(self.setting.graph)

    def circuit(self, mask: Mask) -> Tensor:
        return mask

    def read(self, given: Any, name: str) -> Mask:
        level, spans = getattr(given, "level", "edge"), getattr(given, "spans", None)
        if level != "edge" or spans is not None:
            what = f"{level}s" if spans is None else f"{level}s by position"
            raise InputError(f"{name} is a circuit of {what}; give one of edges")
        return self.setting.graph.check_mask(getattr(given, "mask", given), name)

    def rules(self, selection: Selection, values: Values, sizes: Sequence[int]) -> list[Callable[[Values], Mask]]:
        return [*rules_of(selection, self.setting, values, sizes)]

    def random(
        self, mask: Mask, n: int, seed: int, reference: str | None = None, size: int | None = None
    ) -> list[Mask]:
        edges = self.count(mask) if size is None else size
        return [random_circuit(self.setting.graph, edges, seed + i, reference or self.null) for i in range(n)]

    def outside(self, mask: Mask, n: int, seed: int) -> list[Mask]:
        graph, rest, edges = self.setting.graph, self.rest(mask), self.count(mask)
        if self.count(rest) < edges:
            return []
        return [random_paths(graph, edges, seed + i, rest) for i in range(n)]

    @property
    def rankings(self) -> list[Selection]:
        return [Connected(absolute=False), Connected()]

    def pruned(self, mask: Mask) -> Mask:
        return prune(mask, self.setting.graph)

    def additions(self, mask: Mask, n: int, seed: int) -> list[list[int]]:
        """Paths from the circuit to itself: with one it is an inflated circuit."""
        graph = self.setting.graph
        width = graph.shape[1]
        return [[source * width + target for source, target in path] for path in added_paths(graph, mask, n, seed)]


@dataclass(frozen=True)
class NodeElements(Elements):
    """Nodes of a level; all edges between them are in. Random ones are of the same layers and near in norm."""

    noun = "node"
    null = "matched"

    @functools.cached_property
    def full(self) -> Mask:
        return self.setting.nodes(self.level, self.spans).full

    @functools.cached_property
    def places(self) -> Places:
        return countable(self.full, self.level, self.full)

    @property
    def ladder(self) -> tuple[int, ...]:
        return node_ladder(len(self.places))

    def circuit(self, mask: Mask) -> NodeMask:
        return NodeMask(mask, self.level, self.spans)

    def read(self, given: Any, name: str) -> Mask:
        own = getattr(given, "level", self.level), getattr(given, "spans", self.spans)
        if own != (self.level, self.spans):
            raise InputError(f"{name} is a circuit of {own[0]}s, or of other positions; give one of {self.level}s")
        (mask,) = node_masks(given, None if hasattr(given, "level") else self.level, self.spans) or [given]
        return mask.check(self.full, self.setting.anatomy.name)

    def rules(self, selection: Selection, values: Values, sizes: Sequence[int]) -> list[Callable[[Values], Mask]]:
        return node_rules(self.setting, NodeScores(values, self.level, self.spans, self.full), selection, sizes)

    def random(
        self, mask: Mask, n: int, seed: int, reference: str | None = None, size: int | None = None
    ) -> list[Mask]:
        refuse_reference(reference)
        return [one.mask for one in random_nodes(self.setting, [self.circuit(mask)], n, seed, size)]

    def outside(self, mask: Mask, n: int, seed: int) -> list[Mask]:
        drawn, free = self.random(mask, n, seed), exchangeable(self.setting, self.level)
        shared = mask & (free if self.spans is None else free.unsqueeze(-2))
        return [] if any(self.count(one & shared) for one in drawn) else drawn

    @property
    def rankings(self) -> list[Selection]:
        return [TopN(absolute=False), TopN()]

    def pruned(self, mask: Mask) -> Mask:
        return mask

    def additions(self, mask: Mask, n: int, seed: int) -> list[list[int]]:
        """Single nodes, each one of a random circuit's: like one of the circuit's own."""
        rng = python_random.Random(seed)
        new = [self.inside(one & ~mask).tolist() for one in self.random(mask, n, seed)]
        return [[rng.choice(places)] for places in new if places]


def elements_at(setting: Setting, level: str, spans: Spans = None) -> Elements:
    """What circuits of a level are made of in a setting."""
    if level == "edge":
        return EdgeElements(setting) if spans is None else SpanElements(setting, level, spans)
    return NodeElements(setting, level, spans)


def elements_of(setting: Setting, circuit: Tensor | MaskObject) -> tuple[Elements, Mask]:
    """What a circuit is made of, and its mask; raises `InputError` where that does not fit the setting's model."""
    if isinstance(circuit, SpanMask):
        return SpanElements(setting, "edge", circuit.spans), circuit.check(setting.graph, setting.anatomy.name)
    if not isinstance(circuit, NodeMask):
        return EdgeElements(setting), setting.graph.check_mask(circuit)
    elements = NodeElements(setting, circuit.level, circuit.spans)
    return elements, circuit.check(elements.full, setting.anatomy.name)

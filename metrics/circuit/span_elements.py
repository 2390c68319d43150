"""Edges by position, as what circuits are made of."""

from __future__ import annotations

import functools
import random as python_random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError
from interp.selection import Connected, Selection, node_ladder, weighed
from interp.selection.by_span import SpanGraph, connected_by_span, select_by_span
from interp.span_mask import SpanMask, span_masks
from metrics.circuit.balance import Balanced, helping_weights, seen
from metrics.circuit.controls import random_by_span, refuse_drawn
from metrics.circuit.element_base import Elements, Mask, Places, Values


@dataclass(frozen=True)
class SpanElements(Elements):
    """Edges of the setting's graph at `spans` of its prompts; each counts once at every span."""

    noun = "edge"
    null = "connected"

    @functools.cached_property
    def among(self) -> SpanGraph:
        """All edges at all spans, and how attention joins these in the setting's prompts."""
        assert self.spans is not None
        return SpanGraph(self.setting.graph, self.setting.placed(self.spans).order())

    @property
    def full(self) -> Mask:
        assert self.spans is not None
        return self.setting.graph.edge_mask.repeat(len(self.spans), 1, 1)

    @functools.cached_property
    def places(self) -> Places:
        return torch.from_numpy(self.among.places)

    @property
    def ladder(self) -> tuple[int, ...]:
        return node_ladder(len(self.places))

    def circuit(self, mask: Mask) -> SpanMask:
        assert self.spans is not None
        return SpanMask(mask, self.spans)

    def read(self, given: Any, name: str) -> Mask:
        found = span_masks(given, None, self.spans if isinstance(given, Tensor) else None)
        if found is None or found[0].spans != self.spans:
            raise InputError(f"{name} is no circuit of edges at {list(self.spans or ())}; give one of these")
        return found[0].check(self.setting.graph, self.setting.anatomy.name)

    def rules(self, selection: Selection, values: Values, sizes: Sequence[int]) -> list[Callable[[Values], Mask]]:
        if not isinstance(selection, Balanced):
            return [partial(select_by_span, selection, among=self.among, n=n) for n in sizes]

        def take(i: int, helping: float) -> SpanMask:
            return self.circuit(self._weighed(values, helping, sizes[i]))

        measure = partial(seen, self.setting, nearest=selection.nearest)
        weights = helping_weights(take, measure, len(sizes), selection.steps)
        return [partial(self._weighed, helping=one, n=n) for one, n in zip(weights, sizes, strict=True)]

    def _weighed(self, values: Values, helping: float, n: int) -> Mask:
        """The connected circuit of `n` edges under a weight of helping."""
        return connected_by_span(weighed(values, helping), self.among, n, absolute=False)

    def random(
        self, mask: Mask, n: int, seed: int, reference: str | None = None, size: int | None = None
    ) -> list[Mask]:
        """Connected circuits of edges in random order."""
        refuse_drawn(reference)
        edges = self.count(mask) if size is None else size
        return [random_by_span(self.among, edges, seed + i) for i in range(n)]

    def outside(self, mask: Mask, n: int, seed: int) -> list[Mask]:
        edges, rest = self.count(mask), self.rest(mask)
        if self.count(rest) < edges:
            return []
        return [random_by_span(self.among, edges, seed + i, rest) for i in range(n)]

    @property
    def rankings(self) -> list[Selection]:
        return [Connected(absolute=False), Connected()]

    def pruned(self, mask: Mask) -> Mask:
        return self.among.mask(self.among.pruned(self.inside(mask).numpy()))

    def additions(self, mask: Mask, n: int, seed: int) -> list[list[int]]:
        """Single edges, each one of a random circuit's."""
        rng = python_random.Random(seed)
        new = [self.inside(one & ~mask).tolist() for one in self.random(mask, n, seed)]
        return [[rng.choice(places)] for places in new if places]

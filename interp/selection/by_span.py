"""Circuits of edges by position: selections that count (span, source, target), and what of them is connected.

A node is a component at a span. Edges of the residual stream join nodes at one span; attention carries what k and v
targets read at a span to the head at every span that sees it (`interp.spans.SpanOrder`). On numpy arrays and lists
of places, since circuits are far smaller than everything that could be in one.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection.connecting import best_connected
from interp.selection.named import Connected, Selection, TopN
from interp.selection.paths import feeds
from interp.selection.ranking import check_size, largest, ranking_keys, wrong_shape
from interp.spans import SpanOrder

Places = Int[np.ndarray, " place"]  # flat indices into [span, source, target]


@dataclass(frozen=True, eq=False)
class SpanGraph:
    """The edges of a graph at some spans, which attention joins as `order` says.

    `only`: the mask of those that there are, in the order of the edges at all spans; None: all.
    """

    graph: ComputationalGraph
    order: SpanOrder
    only: Bool[np.ndarray, " place"] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spans, sources, targets."""
        return len(self.order.ends), *self.graph.shape

    @functools.cached_property
    def places(self) -> Places:
        """Every edge at every span."""
        every = np.flatnonzero(np.broadcast_to(self.graph.edge_mask.numpy(), self.shape))
        return every if self.only is None else every[self.only]

    def mask(self, places: Places) -> Bool[Tensor, "span source target"]:
        """The mask of edges at `places`."""
        mask = np.zeros(self.shape, dtype=bool)
        mask.reshape(-1)[places] = True
        return torch.from_numpy(mask)

    def keys(self, scores: Tensor, absolute: bool) -> Float[np.ndarray, " place"]:
        """What `places` are ranked by; refuses scores that cannot be ranked."""
        if not isinstance(scores, Tensor) or tuple(scores.shape) != self.shape:
            raise wrong_shape(scores, self.shape, "spans, sources, targets of the graph")
        return ranking_keys(scores, absolute, "scores", self.places)

    def pruned(self, places: Places) -> Places:
        """Those of some edges that lie on paths from the input to the logits."""
        while True:
            span, source, target = np.unravel_index(places, self.shape)
            alive = self.alive(span, source, target)
            kept = alive[span, source] & self.read(alive)[span, target]
            if kept.all():
                return places
            places = places[kept]

    def alive(self, span: Places, source: Places, target: Places) -> Bool[np.ndarray, "span source"]:
        """Nodes with an edge out of them and, but for the input, one that reaches them."""
        n_spans, n_sources, n_targets = self.shape
        leaving = np.zeros((n_spans, n_sources), dtype=bool)
        leaving[span, source] = True
        entered = np.zeros((n_spans, n_targets), dtype=bool)
        entered[span, target] = True
        reached = np.zeros_like(leaving)
        reached[:, 0] = True
        carried = self._sees.T.astype(np.float32) @ entered.astype(np.float32) > 0  # [query span, target]
        for crosses, (targets, fed) in self._pairs:
            np.logical_or.at(reached.T, fed, (carried if crosses else entered).T[targets])
        alive: Bool[np.ndarray, "span source"] = leaving & reached
        return alive

    def read(self, alive: Bool[np.ndarray, "span source"]) -> Bool[np.ndarray, "span target"]:
        """The logits at spans that hold a last position, and targets that feed a live node."""
        found = np.zeros((len(alive), self.shape[2]), dtype=bool)
        seeing = self._sees.astype(np.float32) @ alive.astype(np.float32) > 0  # [key span, source]
        for crosses, (targets, fed) in self._pairs:
            np.logical_or.at(found.T, targets, (seeing if crosses else alive).T[fed])
        found[:, -1] = self.order.ends.numpy()
        return found

    def leading_on(self, places: Places) -> Bool[np.ndarray, "span source target"]:
        """Where edges may be added to a pruned circuit that join what is live."""
        alive = self.alive(*np.unravel_index(places, self.shape))
        alive[:, 0] = True
        leading: Bool[np.ndarray, "span source target"] = alive[:, :, None] & self.read(alive)[:, None]
        return leading

    @property
    def _sees(self) -> Bool[np.ndarray, "key query"]:
        return self.order.sees.numpy()

    @functools.cached_property
    def _pairs(self) -> list[tuple[bool, tuple[Places, Places]]]:
        """Pairs of a target and a source that it feeds, those that cross positions (k and v) apart."""
        targets, fed = feeds(self.graph)
        crosses = np.array([name.endswith(("<k>", "<v>")) for name in self.graph.targets])[targets]
        return [(False, (targets[~crosses], fed[~crosses])), (True, (targets[crosses], fed[crosses]))]


def top_n_by_span(
    scores: Float[Tensor, "span source target"], among: SpanGraph, n: int, absolute: bool = True, pruned: bool = True
) -> Bool[Tensor, "span source target"]:
    """The `n` edges by position of largest |score| (signed score without `absolute`), then pruned."""
    best = among.places[largest(among.keys(scores, absolute), check_size(n, len(among.places), "edges by position"))]
    return among.mask(among.pruned(best) if pruned else best)


def threshold_by_span(
    scores: Float[Tensor, "span source target"],
    among: SpanGraph,
    value: float,
    absolute: bool = True,
    pruned: bool = True,
) -> Bool[Tensor, "span source target"]:
    """The edges by position whose |score| (signed score) is at least `value`, then pruned."""
    if math.isnan(value):
        raise InputError("value=nan cannot be a threshold; give the smallest score to keep")
    reached = among.places[among.keys(scores, absolute) >= value]
    return among.mask(among.pruned(reached) if pruned else reached)


def connected_by_span(
    scores: Float[Tensor, "span source target"], among: SpanGraph, n: int, absolute: bool = True
) -> Bool[Tensor, "span source target"]:
    """The best edges by position of which `n` are left after pruning, as `interp.selection.connected` of edges."""
    keys = among.keys(scores, absolute)
    n = check_size(n, len(among.places), "edges by position")
    ranked = among.places[np.argsort(-keys, kind="stable")]
    return among.mask(best_connected(ranked, n, among.pruned, among.leading_on))


def select_by_span(
    selection: Selection, scores: Float[Tensor, "span source target"], among: SpanGraph, n: int
) -> Bool[Tensor, "span source target"]:
    """The circuit of `n` edges by position that `top-n` or `connected` takes; raises `InputError` for others."""
    if isinstance(selection, TopN):
        return top_n_by_span(scores, among, n, selection.absolute, selection.pruned)
    if isinstance(selection, Connected):
        return connected_by_span(scores, among, n, selection.absolute)
    refuse_by_span(selection)


def refuse_by_span(selection: Selection) -> NoReturn:
    """Raise `InputError` for a selection that knows edges at all positions alone."""
    raise InputError(
        f"selection={selection.name!r} knows edges at all positions alone; edges by position are selected by 'top-n', "
        "'connected' or, where circuits are measured, 'balanced'"
    )

"""`average`: one attribution graph for several prompts, whose positions are spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from circuits.tracing.build import COLUMNS
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.joining import joined, magnitude_of, scored, summed
from interp import numbers
from interp.errors import InputError, short

Spans = Mapping[int, str]
_REST = "rest"  # positions in no span


def average(graphs: Sequence[AttributionGraph], spans: Spans | Sequence[Spans] | None = None) -> AttributionGraph:
    """The mean of several prompts' attribution graphs, of one model and one kind of units.

        A[t, s] = mean over prompts of the sum of A over the positions of t's and of s's span

    Nodes are joined by unit and span; one that a prompt's graph does not show counts as nothing there, its effects
    being in that graph's remainder. Logits are joined by their number, so that each prompt may have its own answer.
    Influence and both scores are those of the mean matrix, |A| being taken of means; rows add up to mean activations.

    Args:
        graphs: what `trace` returned for each prompt, whole (not pruned).
        spans: names of positions (from the end where negative), for all prompts or a list with one for each; positions
            in none are `rest`. None: each position is its own, counted from the end where lengths differ.

    Returns:
        `AttributionGraph`: `tokens` are the spans, `position` numbers them; `nodes` has `prompts` besides: how many
        prompts show the node.

    Cost: none of the model. Raises `InputError` for no graphs, pruned ones, those of several models, units or numbers
    of logits, and spans that name no position.

    >>> graphs = [trace(model, prompt, target) for prompt, target in pairs]      # doctest: +SKIP
    >>> average(graphs, spans={-1: "last"}).prune().edges                        # doctest: +SKIP
    """
    _check(graphs)
    named = _named(graphs, spans)
    order = _ordered(named)
    parts = [_Part.of(graph, own, order) for graph, own in zip(graphs, named, strict=True)]
    keys = _in_order(parts)
    nodes = _nodes(graphs, parts, keys)
    n = len(graphs)
    adjacency = torch.zeros(len(keys), len(keys), dtype=torch.float64, device="cpu")
    hidden, weights = adjacency.new_zeros(len(keys)), adjacency.new_zeros(len(keys))
    for graph, part in zip(graphs, parts, strict=True):
        to = torch.from_numpy(part.rows(keys))
        own, left = joined(graph, to, len(keys))
        adjacency += own / n
        hidden += left / n
        weights.index_add_(0, to, graph.weights.double() / n)
    first, like = graphs[0], graphs[0].adjacency
    found = AttributionGraph(
        nodes=nodes,
        adjacency=adjacency.to(like),
        magnitude=magnitude_of(adjacency, nodes, hidden).to(like),
        weights=weights.to(like),
        replacement_score=float("nan"),
        completeness_score=float("nan"),
        tokens=order,
        target_tokens=_targets(graphs),
        model=first.model,
        seconds=sum(graph.seconds for graph in graphs),
        settings={
            "average_of": n,
            "prompts": ["".join(graph.tokens) for graph in graphs],
            **{name: first.settings.get(name) for name in ("units", "centred", "biases")},
        },
    )
    return scored(found)


def _check(graphs: Any) -> None:
    if not isinstance(graphs, Sequence) or not graphs or not all(isinstance(one, AttributionGraph) for one in graphs):
        raise InputError(f"graphs must be a list of AttributionGraph, one at least; got {short(graphs)}")
    if any(graph.pruned for graph in graphs):
        raise InputError("graphs: one of them is pruned; average whole graphs, then prune the average")
    if any("average_of" in graph.settings or "groups" in graph.settings for graph in graphs):
        raise InputError("graphs: one of them is an average or has groups; give graphs as circuits.trace makes them")
    for what, values in (
        ("models", {graph.model for graph in graphs}),
        ("units", {str(graph.settings.get("units")) for graph in graphs}),
        ("numbers of logits", {str(len(graph.target_tokens)) for graph in graphs}),
        ("settings of centred", {str(graph.settings.get("centred")) for graph in graphs}),
    ):
        if len(values) > 1:
            raise InputError(f"graphs are of several {what}: {', '.join(sorted(values))}; trace all prompts alike")


def _named(graphs: Sequence[AttributionGraph], spans: Any) -> list[list[str]]:
    """The span of each position of each prompt."""
    lengths = [len(graph.tokens) for graph in graphs]
    if spans is None:
        back = [0 if len(set(lengths)) == 1 else length for length in lengths]
        return [[str(i - less) for i in range(length)] for length, less in zip(lengths, back, strict=True)]
    each = [spans] * len(graphs) if isinstance(spans, Mapping) else spans
    if not isinstance(each, Sequence) or len(each) != len(graphs) or not all(isinstance(x, Mapping) for x in each):
        raise InputError(
            f"spans must be a dictionary of positions to names, or a list of {len(graphs)}; got {short(spans)}"
        )
    found = []
    for own, length in zip(each, lengths, strict=True):
        names = [_REST] * length
        for position, name in own.items():
            limits = numbers.Limits(-length, length - 1, advice=f"a prompt has {length} tokens")
            names[numbers.whole("spans", position, limits)] = str(name)
        found.append(names)
    return found


def _ordered(named: list[list[str]]) -> list[str]:
    """Spans by where they stand, seen from the end."""
    places: dict[str, list[int]] = {}
    for names in named:
        for position, name in enumerate(names):
            places.setdefault(name, []).append(position - len(names))
    return sorted(places, key=lambda name: float(np.mean(places[name])))


@dataclass(frozen=True)
class _Part:
    """One graph's nodes, as they are called in the average: names, and the values of their other columns."""

    names: list[str]
    places: list[tuple[Any, ...]]  # kind, layer, span, unit, place

    @classmethod
    def of(cls, graph: AttributionGraph, spans: list[str], order: list[str]) -> _Part:
        names, places = [], []
        columns = graph.nodes[["name", "kind", "layer", "position", "unit", "place"]]
        for name, kind, layer, position, unit, place in columns.itertuples(index=False, name=None):
            span = spans[position] if position >= 0 else ""
            names.append(f"{name.rpartition('@')[0]}@{span}" if "@" in name else name)
            unit = -1 if kind in ("token", "logit") else unit
            places.append((kind, layer, order.index(span) if span else -1, unit, place))
        return cls(names, places)

    def rows(self, keys: dict[str, int]) -> np.ndarray:
        """Where each node goes."""
        return np.array([keys[name] for name in self.names], dtype=np.int64)


_KINDS = ("error", "token", "logit", "remainder", "bias")  # behind units, as a trace has them


def _in_order(parts: list[_Part]) -> dict[str, int]:
    places = {name: place for part in parts for name, place in zip(part.names, part.places, strict=True)}

    def rank(name: str) -> tuple[Any, ...]:
        kind, layer, position, unit, place = places[name]
        behind = _KINDS.index(kind) if kind in _KINDS else -1
        number = int(name.removeprefix("logit")) if kind == "logit" else 0
        return behind, number, layer, position, unit, place

    return {name: i for i, name in enumerate(sorted(places, key=rank))}


def _nodes(graphs: Sequence[AttributionGraph], parts: list[_Part], keys: dict[str, int]) -> pd.DataFrame:
    places = {name: place for part in parts for name, place in zip(part.names, part.places, strict=True)}
    frame = pd.DataFrame([places[name] for name in keys], columns=["kind", "layer", "position", "unit", "place"])
    frame = frame.assign(name=list(keys), influence=0.0, cumulative=1.0)
    for column in ("activation", "score"):
        sums = [summed(g.nodes[column], part.rows(keys), len(keys)) for g, part in zip(graphs, parts, strict=True)]
        known = ~np.isnan(sums)
        frame[column] = np.where(known.any(0), np.nansum(sums, 0) / len(graphs), np.nan)
    shown = np.zeros(len(keys), dtype=np.int64)
    for part in parts:
        shown[np.unique(part.rows(keys))] += 1
    return frame[list(COLUMNS)].assign(prompts=shown)


def _targets(graphs: Sequence[AttributionGraph]) -> list[str]:
    """What the logits are of: one text, or those of several prompts."""
    each = zip(*(graph.target_tokens for graph in graphs), strict=True)
    return [" / ".join(dict.fromkeys(texts)) for texts in each]

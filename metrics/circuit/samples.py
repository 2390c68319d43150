"""Random parts of graphs and circuits, to compare a circuit with: paths, added paths, knock-out sets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.selection import greedy, live_sources

T = TypeVar("T")
Edge = tuple[int, int]
REFERENCES = ("paths", "grown")
_WALKS = 4  # per edge wanted, before what is missing is filled up edge by edge


def random_circuit(
    graph: ComputationalGraph, n: int, seed: int, reference: str = "paths"
) -> Bool[Tensor, "source target"]:
    """A random circuit of `n` edges, which circuits are compared with: the null model of the whole library.

    `paths`: made of paths from the input to the logits (`random_paths`). `grown`: from the logits upwards, so that
    every edge has a way to them; small ones seldom reach the input, and are then the empty circuit to a model.
    Raises `InputError` for more edges than there are.
    """
    if choose("reference", reference, REFERENCES) == "paths":
        return random_paths(graph, n, seed)
    noise = torch.rand(graph.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")
    return greedy(noise, graph, n, pruned=False)


def random_paths(
    graph: ComputationalGraph, n: int, seed: int, allowed: Bool[Tensor, "source target"] | None = None
) -> Bool[Tensor, "source target"]:
    """A random circuit of `n` edges made of paths from the input to the logits (Shi et al. 2024).

    Each path walks from the input over random edges; the last is cut short where it would be too many. `allowed`
    (a mask) keeps the walk to some edges. Where walks no longer find new edges, single edges fill up the rest. Raises
    `InputError` if there are fewer than `n` edges.

    >>> graph = ComputationalGraph(n_layers=2, n_heads=2)
    >>> int(random_paths(graph, 10, seed=0).sum())
    10
    """
    edges = graph.edge_mask if allowed is None else graph.check_mask(allowed, "allowed")
    if not 0 <= n <= int(edges.sum()):
        raise InputError(f"n={n:,} edges cannot be drawn from {int(edges.sum()):,}")
    if n == int(edges.sum()):
        return edges.clone()
    rng, ways = random.Random(seed), _ways(edges)
    chosen: dict[Edge, None] = {}
    for _ in range(_WALKS * n):
        if len(chosen) >= n:
            break
        for edge in _walk(graph, ways, 0, rng, frozenset()) or ():
            chosen.setdefault(edge)
    picked = list(chosen)[:n]
    if len(picked) < n:
        left = [edge for edge in _pairs(edges) if edge not in chosen]
        picked += rng.sample(left, n - len(picked))
    return _mask_of(graph, picked)


def added_paths(graph: ComputationalGraph, mask: Bool[Tensor, "source target"], n: int, seed: int) -> list[list[Edge]]:
    """`n` random paths of edges outside a circuit, each from one of its nodes to another (or to the logits).

    A circuit with such a path is an inflated circuit. Empty when the circuit leaves no edge to add.
    """
    outside = graph.edge_mask & ~mask
    ways, rng = _ways(outside), random.Random(seed)
    alive = frozenset(live_sources(mask, graph).nonzero()[:, 0].tolist())
    starts = [source for source in sorted(alive) or [0] if ways[source]]
    paths: list[list[Edge]] = []
    for _ in range(100 * n if starts else 0):
        if len(paths) == n:
            break
        path = _walk(graph, ways, rng.choice(starts), rng, alive)
        if path:
            paths.append(path)
    return paths


def knock_out_sets(items: Sequence[T], sets: int, largest: float, seed: int) -> list[list[T]]:
    """Random subsets: the size uniform from 1 to a share `largest` of all, then the members uniform."""
    rng = random.Random(seed)
    most = max(1, int(largest * len(items)))
    return [rng.sample(list(items), rng.randint(1, most)) for _ in range(sets)]


def _walk(
    graph: ComputationalGraph, ways: list[list[int]], source: int, rng: random.Random, goals: frozenset[int]
) -> list[Edge] | None:
    """Random edges from a source until the logits or a source among the goals; None in a dead end."""
    path: list[Edge] = []
    while ways[source]:
        target = rng.choice(ways[source])
        path.append((source, target))
        fed = graph.target_sources[target]
        if not fed or not goals.isdisjoint(fed):
            return path
        source = rng.choice(fed)
    return None


def _ways(edges: Bool[Tensor, "source target"]) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in edges]


def _pairs(mask: Bool[Tensor, "source target"]) -> list[Edge]:
    return [(source, target) for source, target in mask.nonzero().tolist()]


def _mask_like(mask: Bool[Tensor, "source target"], edges: Sequence[Edge]) -> Bool[Tensor, "source target"]:
    result = torch.zeros_like(mask)
    if edges:
        result[tuple(torch.tensor(edges, device="cpu").T)] = True
    return result


def _mask_of(graph: ComputationalGraph, edges: Sequence[Edge]) -> Bool[Tensor, "source target"]:
    return _mask_like(graph.edge_mask, edges)

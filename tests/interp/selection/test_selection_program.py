"""Connected selection and the integer program against searches over every circuit of tiny graphs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection import connected, program, prune, top_n

TINY = [ComputationalGraph(1, 1), ComputationalGraph(1, 1, parallel=True), ComputationalGraph(1, 2, 1, kv="group")]
LARGER = [ComputationalGraph(4, 2), ComputationalGraph(3, 4, 2, kv="group")]


def random_scores(graph: ComputationalGraph, seed: int, ties: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(graph.shape, generator=generator, dtype=torch.float64)
    return (noise.round() if ties else noise) * graph.edge_mask


def connected_circuits(graph: ComputationalGraph) -> list[Tensor]:
    """Every circuit that pruning leaves as it is."""
    edges = graph.edge_mask.nonzero()
    circuits = []
    for bits in itertools.product((False, True), repeat=len(edges)):
        mask = torch.zeros(graph.shape, dtype=torch.bool)
        mask[edges[:, 0], edges[:, 1]] = torch.tensor(bits)
        if torch.equal(prune(mask, graph), mask):
            circuits.append(mask)
    return circuits


def connected_by_steps(scores: Tensor, graph: ComputationalGraph, n: int, absolute: bool) -> Tensor:
    """As it is defined, one edge at a time."""
    key = scores.abs() if absolute else scores
    edges = sorted(graph.edge_mask.nonzero().tolist(), key=lambda e: (-float(key[e[0], e[1]]), e))
    mask, taken = torch.zeros(graph.shape, dtype=torch.bool), 0
    for size in range(len(edges) + 1):
        first = torch.zeros_like(mask)
        for source, target in edges[:size]:
            first[source, target] = True
        left = prune(first, graph)
        if int(left.sum()) > n:
            break
        mask, taken = left, size
    live = {0, *mask.nonzero()[:, 0].tolist()}
    for source, target in edges[taken:]:
        fed = graph.target_sources[target]
        if int(mask.sum()) < n and source in live and (not fed or live & set(fed)):
            mask[source, target] = True
    return mask


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("graph", TINY, ids=str)
def test_program_equals_a_search_over_every_circuit(graph: ComputationalGraph, absolute: bool) -> None:
    circuits = connected_circuits(graph)
    for seed in range(3):
        scores = random_scores(graph, seed)
        key = scores.abs() if absolute else scores
        for n in range(graph.n_edges + 1):
            best = max(float(key[mask].sum()) for mask in circuits if int(mask.sum()) <= n)
            mask = program(scores, graph, n, absolute)
            assert int(mask.sum()) <= n
            assert torch.equal(prune(mask, graph), mask)
            assert float(key[mask].sum()) == pytest.approx(best)


@pytest.mark.parametrize("graph", LARGER, ids=str)
def test_program_is_at_least_as_good_as_every_other_selection(graph: ComputationalGraph) -> None:
    scores = random_scores(graph, 5)
    for n in (3, 10, 25):
        mask = program(scores, graph, n)
        value = float(scores.abs()[mask].sum())
        for other in (connected(scores, graph, n), top_n(scores, graph, n)):
            assert value >= float(scores.abs()[other].sum()) - 1e-9
        assert torch.equal(mask, program(scores, graph, n)), "the same scores give the same circuit"


def test_program_leaves_large_circuits_to_connected() -> None:
    graph = LARGER[0]
    scores = random_scores(graph, 6)
    assert torch.equal(program(scores, graph, 40, candidates=50), connected(scores, graph, 40))
    few = program(scores, graph, 10, candidates=30)
    assert float(scores.abs()[few].sum()) <= float(scores.abs()[program(scores, graph, 10)].sum()) + 1e-9
    with pytest.raises(InputError, match="candidates=0 must be a whole number of at least 1"):
        program(scores, graph, 3, candidates=0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("graph", [*TINY, *LARGER], ids=str)
def test_connected_takes_the_best_edges_that_pruning_leaves(
    graph: ComputationalGraph, absolute: bool, ties: bool
) -> None:
    scores = random_scores(graph, 1, ties)
    for n in {0, 1, 2, 5, 8, graph.n_edges // 2, graph.n_edges}:
        n = min(n, graph.n_edges)
        mask = connected(scores, graph, n, absolute)
        assert torch.equal(mask, connected_by_steps(scores, graph, n, absolute))
        assert torch.equal(prune(mask, graph), mask)
        assert int(mask.sum()) <= n


def test_connected_holds_exactly_as_many_edges_as_were_asked_for() -> None:
    graph = ComputationalGraph(8, 4)
    for seed in range(3):
        scores = random_scores(graph, seed)
        for n in (40, 100, 333, graph.n_edges):
            assert int(connected(scores, graph, n).sum()) == n
            assert int(top_n(scores, graph, n).sum()) <= n


@pytest.mark.parametrize("choose", [connected, program])
def test_bad_input_is_refused(choose: object) -> None:
    graph = TINY[0]
    assert callable(choose)
    with pytest.raises(InputError, match=r"n=99 must be a whole number from 0 to 8"):
        choose(torch.zeros(graph.shape), graph, 99)
    with pytest.raises(InputError, match=r"[0-9] of 8 scores are NaN"):
        choose(torch.zeros(graph.shape).fill_diagonal_(float("nan")), graph, 3)

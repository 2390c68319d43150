"""Selections by position, against path search over single nodes at single spans."""

from __future__ import annotations

import itertools

import networkx as nx
import pytest
import torch

from attribution.scores import Scores
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection import Greedy, TopN
from interp.selection.by_span import SpanGraph, connected_by_span, select_by_span, top_n_by_span
from interp.spans import SpanOrder

GRAPH = ComputationalGraph(n_layers=2, n_heads=2, n_kv_heads=1, kv="group")
SPANS = (3, 4, 5)
ORDER = SpanOrder.of(SPANS)
AMONG = SpanGraph(GRAPH, ORDER)


def _paths(mask, order):
    """The edges of a mask on a path from an input to the logits of a last span, node by node."""
    net = nx.DiGraph()
    n = len(mask)
    for span, source, target in mask.nonzero().tolist():
        ends = [span]
        if GRAPH.targets[target].endswith(("<k>", "<v>")):
            ends = [q for q in range(n) if order.sees[span, q]]
        place = ("edge", span, source, target)
        net.add_edge(("node", span, source), place)
        if target == len(GRAPH.targets) - 1:
            if order.ends[span]:
                net.add_edge(place, "logits")
            continue
        for end, fed in itertools.product(ends, GRAPH.target_sources[target]):
            net.add_edge(place, ("node", end, fed))
    for span in range(n):
        net.add_edge("start", ("node", span, 0))
    net.add_node("logits")
    on = nx.descendants(net, "start") & nx.ancestors(net, "logits")
    kept = torch.zeros_like(mask)
    for node in on:
        if node[0] == "edge":
            kept[node[1:]] = True
    return kept


def _scores(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(SPANS), *GRAPH.shape, generator=generator) * GRAPH.edge_mask


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [5, 20, 60, 100])
def test_top_n_keeps_what_is_on_paths(seed, n):
    sees = torch.rand(3, 3, generator=torch.Generator().manual_seed(seed)) < 0.5
    order = ORDER if seed < 2 else SpanOrder(sees | torch.eye(3, dtype=torch.bool), torch.tensor([False, True, True]))
    among, scores = SpanGraph(GRAPH, order), _scores(seed)
    raw = top_n_by_span(scores, among, n, pruned=False)
    assert int(raw.sum()) == n
    least = scores[raw].abs().min()
    assert int((scores.abs() > least).sum()) < n
    assert torch.equal(top_n_by_span(scores, among, n), _paths(raw, order))


@pytest.mark.parametrize("n", [1, 10, 40, 66])
@pytest.mark.parametrize("absolute", [True, False])
def test_connected_counts_what_is_left(n, absolute):
    scores = _scores(7)
    mask = connected_by_span(scores, AMONG, n, absolute)
    assert int(mask.sum()) == n
    assert torch.equal(_paths(mask, ORDER), mask)


def test_what_is_at_one_position_reaches_another_through_k_and_v_alone():
    scores = torch.zeros(2, *GRAPH.shape)
    among = SpanGraph(GRAPH, SpanOrder.of((3, 4)))
    for span, edge in [(0, "input->m0"), (1, "m0->logits")]:
        scores[span][GRAPH.edge_index(edge)] = 1
    assert not top_n_by_span(scores, among, 2).any()
    for span, edge in [(0, "m0->a1.h0<v>"), (1, "a1.h0->logits"), (1, "a1.h1->logits")]:
        scores[span][GRAPH.edge_index(edge)] = 2
    assert int(top_n_by_span(scores, among, 5).sum()) == 4  # both heads of the group
    backwards = scores.flip(0)  # nobody looks ahead, and logits are read at the end
    assert not top_n_by_span(backwards, among, 5).any()


def test_masks_of_scores():
    scores = Scores(_scores(1), GRAPH, method="mine", spans=SPANS)
    assert torch.equal(scores.mask(60).mask, top_n_by_span(scores.values, AMONG, 60))
    assert scores.mask(60, absolute=False, selection="connected").n_edges == 60
    assert scores.mask(threshold=0.0).n_edges == int(_paths(GRAPH.edge_mask.repeat(3, 1, 1), ORDER).sum())
    assert scores.mask(threshold=1.5, pruned=False).n_edges == int((scores.values.abs() >= 1.5).sum())
    with pytest.raises(InputError, match="n=999 "):
        scores.mask(999)
    with pytest.raises(InputError, match="selection='greedy' knows edges at all positions alone"):
        scores.mask(5, selection=Greedy())
    with pytest.raises(InputError, match="scores must be a tensor of shape"):
        select_by_span(TopN(), scores.values[0], AMONG, 3)

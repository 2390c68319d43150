from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection import LADDER_FRACTIONS, greedy, ladder, live_sources, prune, threshold, top_n, top_n_nodes

SMALL_GRAPHS = [
    ComputationalGraph(1, 1),
    ComputationalGraph(2, 2),
    ComputationalGraph(3, 2, parallel=True),
    ComputationalGraph(2, 4, 2),
    ComputationalGraph(2, 4, 2, kv="group"),
    ComputationalGraph(3, 4, 1, kv="group"),
]


def mask_of(graph: ComputationalGraph, *edges: str) -> Tensor:
    mask = torch.zeros(graph.shape, dtype=torch.bool)
    for edge in edges:
        mask[graph.edge_index(edge)] = True
    return mask


def scores_of(graph: ComputationalGraph, **edges: float) -> Tensor:
    scores = torch.zeros(graph.shape)
    for edge, score in edges.items():
        scores[graph.edge_index(edge)] = score
    return scores


def random_scores(graph: ComputationalGraph, seed: int, ties: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(graph.shape, generator=generator) * graph.edge_mask
    return scores.round() if ties else scores


def test_top_n_reproduces_every_reference_circuit_exactly(golden):
    tensors, metadata = golden("eap_smollm2_ioi16")
    graph = ComputationalGraph(30, 9, 3)
    assert torch.equal(graph.edge_mask, tensors["edge_mask"])
    assert tuple(metadata["sizes"]) == ladder(graph)
    for size in metadata["sizes"]:
        assert torch.equal(top_n(tensors["eap_ig_inputs_5"], graph, size), tensors[f"circuit_{size}_mask"]), size


def test_ladder_is_that_of_mib():
    graph = ComputationalGraph(30, 9, 3)
    assert ladder(graph) == (123, 246, 616, 1232, 2464, 6160, 12321, 24642, 61605, 123211)
    assert len(LADDER_FRACTIONS) == 10


def test_prune_on_a_case_worked_by_hand():
    graph = ComputationalGraph(2, 2)
    kept = [
        "input->a0.h0<v>",
        "a0.h0->m0",
        "m0->a1.h1<k>",
        "a1.h1->m1",
        "a0.h0->m1",
        "input->m1",  # whose end lives by other edges
        "m1->logits",
    ]
    dead = [
        "input->a0.h1<q>",  # a0.h1 writes nothing
        "m0->a1.h0<q>",  # nor does a1.h0
    ]
    mask = mask_of(graph, *kept, *dead)
    assert set(graph.edges(prune(mask, graph))) == set(kept)
    unfed = mask_of(graph, *kept, "a1.h0->m1", "a1.h0->logits")  # nothing enters a1.h0
    assert set(graph.edges(prune(unfed, graph))) == set(kept)
    without_end = mask_of(graph, *(edge for edge in kept if edge != "m1->logits"))
    assert not prune(without_end, graph).any()


def test_prune_follows_a_chain_of_dead_ends_to_its_end():
    graph = ComputationalGraph(6, 1)
    chain = [f"m{layer}->m{layer + 1}" for layer in range(5)]
    assert not prune(mask_of(graph, "input->m0", *chain), graph).any()  # never reaches the logits
    assert not prune(mask_of(graph, *chain, "m5->logits"), graph).any()  # never starts at the input
    whole = mask_of(graph, "input->m0", *chain, "m5->logits")
    assert torch.equal(prune(whole, graph), whole)


def test_prune_keeps_an_edge_into_a_group_while_any_of_its_heads_lives():
    graph = ComputationalGraph(1, 4, 2, kv="group")
    mask = mask_of(graph, "input->a0.h1<k>", "a0.h3->logits")  # group 1 holds heads 2 and 3
    assert torch.equal(prune(mask, graph), mask)
    assert not prune(mask_of(graph, "input->a0.h0<k>", "a0.h3->logits"), graph).any()


def test_greedy_grows_from_the_logits_where_top_n_does_not():
    graph = ComputationalGraph(2, 1)
    scores = scores_of(graph, **{"m1->logits": 1.0, "m0->m1": 3.0, "input->a0.h0<q>": 9.0})
    assert list(graph.edges(greedy(scores, graph, 2, pruned=False))) == ["m0->m1", "m1->logits"]
    assert "input->a0.h0<q>" in graph.edges(top_n(scores, graph, 2, pruned=False))


def test_greedy_handles_thousands_of_nodes_quickly():
    graph = ComputationalGraph(64, 24)
    scores = random_scores(graph, seed=0)
    assert graph.shape[0] > 1500
    started = time.perf_counter()
    mask = greedy(scores, graph, 20_000, pruned=False)
    assert int(mask.sum()) == 20_000
    assert time.perf_counter() - started < 60  # about 1 s on an idle core


@pytest.mark.parametrize("graph", SMALL_GRAPHS, ids=str)
def test_no_selection_switches_on_an_edge_that_does_not_exist(graph):
    scores = torch.full(graph.shape, 5.0)  # also where no edge is
    for n in (1, graph.n_edges // 3, graph.n_edges):
        for choose in (top_n, greedy):
            mask = choose(scores, graph, n, pruned=False)
            assert not (mask & ~graph.edge_mask).any()
            assert int(mask.sum()) == n
    assert torch.equal(threshold(scores, graph, 0.0), graph.edge_mask)
    nodes = top_n_nodes(torch.ones(graph.shape[0]), graph, graph.shape[0] - 1)
    assert torch.equal(nodes, graph.edge_mask)


def test_the_full_graph_of_gpt2_has_as_many_edges_as_exist():
    graph = ComputationalGraph(12, 12)
    assert int(top_n_nodes(torch.rand(graph.shape[0]), graph, graph.shape[0] - 1).sum()) == 32_491
    assert int(top_n(torch.zeros(graph.shape), graph, 32_491).sum()) == 32_491


def test_ties_go_to_the_first_edges_in_order():
    graph = ComputationalGraph(2, 2)
    scores = torch.ones(graph.shape)
    first = graph.edge_mask.flatten().nonzero().flatten()[:7]
    assert torch.equal(top_n(scores, graph, 7, pruned=False).flatten().nonzero().flatten(), first)
    signed = scores.clone()
    signed[0, 0] = -1.0  # ties by |score|
    assert torch.equal(top_n(signed, graph, 7, pruned=False), top_n(scores, graph, 7, pruned=False))


def test_signed_selection_passes_over_negative_scores():
    graph = ComputationalGraph(1, 1)
    scores = scores_of(graph, **{"input->logits": -5.0, "input->m0": 1.0, "m0->logits": 1.0})
    assert list(graph.edges(top_n(scores, graph, 1))) == ["input->logits"]
    assert list(graph.edges(top_n(scores, graph, 2, absolute=False))) == ["input->m0", "m0->logits"]
    assert list(graph.edges(threshold(scores, graph, 1.0, absolute=False))) == ["input->m0", "m0->logits"]


def test_threshold_keeps_scores_equal_to_it():
    graph = ComputationalGraph(1, 1)
    scores = scores_of(graph, **{"input->logits": 0.5, "input->m0": -0.5, "m0->logits": 0.25})
    assert list(graph.edges(threshold(scores, graph, 0.5, pruned=False))) == ["input->m0", "input->logits"]
    assert list(graph.edges(threshold(scores, graph, 0.5))) == ["input->logits"]


def test_nodes_are_selected_with_all_edges_among_them():
    graph = ComputationalGraph(2, 2)
    scores = torch.zeros(graph.shape[0])
    scores[graph.sources.index("m0")] = -3.0
    scores[graph.sources.index("a1.h1")] = 2.0
    edges = set(graph.edges(top_n_nodes(scores, graph, 2)))
    heads = {f"{source}->a1.h1<{port}>" for source in ("input", "m0") for port in "qkv"}
    ends = {"input->m0", "input->logits", "m0->logits", "a1.h1->logits"}
    assert edges == heads | ends
    assert set(graph.edges(top_n_nodes(scores, graph, 0))) == {"input->logits"}
    alone = top_n_nodes(scores, graph, 1, absolute=False)
    assert live_sources(alone, graph).nonzero().flatten().tolist() == [0, graph.sources.index("a1.h1")]


def test_half_precision_and_double_scores_are_ranked_too():
    graph = ComputationalGraph(2, 2)
    scores = random_scores(graph, 3)
    for dtype in (torch.float64, torch.bfloat16):
        cast = scores.to(dtype)
        assert torch.equal(greedy(cast, graph, 9, pruned=False), greedy(cast.float(), graph, 9, pruned=False))
        assert int(top_n(cast, graph, 9, pruned=False).sum()) == 9


@pytest.mark.parametrize("choose", [top_n, greedy])
def test_bad_input_is_refused_in_a_sentence(choose):
    graph = ComputationalGraph(2, 2)
    scores = random_scores(graph, 0)
    with pytest.raises(InputError, match=r"n=-1 must be a whole number of at least 0"):
        choose(scores, graph, -1)
    with pytest.raises(InputError, match=r"n=47 must be a whole number from 0 to 46"):
        choose(scores, graph, 47)
    with pytest.raises(InputError, match=r"n=0.5 must be a whole number of at least 0"):
        choose(scores, graph, 0.5)
    with pytest.raises(InputError, match=r"shape \(7, 15\) .*; got shape \(7, 14\)"):
        choose(scores[:, :-1], graph, 3)
    with pytest.raises(InputError, match=r"got list"):
        choose([[1.0]], graph, 3)
    broken = scores.clone()
    broken[0, 0], broken[0, 1] = float("nan"), float("inf")
    with pytest.raises(InputError, match=r"2 of 46 scores are NaN or infinite"):
        choose(broken, graph, 3)


def test_bad_thresholds_nodes_and_masks_are_refused():
    graph = ComputationalGraph(2, 2)
    with pytest.raises(InputError, match="value=nan"):
        threshold(torch.zeros(graph.shape), graph, float("nan"))
    with pytest.raises(InputError, match="one score per source"):
        top_n_nodes(torch.zeros(graph.shape), graph, 1)
    with pytest.raises(InputError, match="n=7 must be a whole number from 0 to 6; the graph has 6 heads and MLPs"):
        top_n_nodes(torch.zeros(7), graph, 7)
    phantom = torch.zeros(graph.shape, dtype=torch.bool)
    phantom[graph.sources.index("m1"), 0] = True
    with pytest.raises(InputError, match="1 edges that do not exist"):
        prune(phantom, graph)

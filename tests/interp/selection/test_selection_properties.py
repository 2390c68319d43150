"""What selections promise, on graphs and scores that hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from interp.selection import average, connected, greedy, prune, threshold, top_n, top_n_nodes, weighed
from tests.drawn import masked, scored

RULES = {"top_n": top_n, "greedy": greedy, "connected": connected}
every = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def within(graph: Any, part: float) -> int:
    return round(part * graph.n_edges)


def on_paths(mask: torch.Tensor, graph: Any) -> torch.Tensor:
    """Edges on some path from the input to the logits, found by walking from both ends."""
    edges = [(s, graph.target_sources[t], s, t) for s, t in mask.nonzero().tolist()]
    last = graph.shape[1] - 1
    reached, leading = {0}, set()
    for source, readers, *_ in sorted(edges):
        if source in reached:
            reached |= set(readers)
    for source, readers, _, target in sorted(edges, reverse=True):
        if target == last or leading & set(readers):
            leading.add(source)
    kept = torch.zeros_like(mask)
    for source, readers, row, column in edges:
        ends = column == last or bool(reached & leading & set(readers))
        kept[row, column] = source in reached & leading and ends
    return kept


def greedy_by_search(scores: torch.Tensor, graph: Any, n: int) -> torch.Tensor:
    """Greedy selection as it is defined: look at every candidate edge at each step."""
    mask = torch.zeros(graph.shape, dtype=torch.bool)
    members: set[int] = set()
    for _ in range(n):
        best = None
        for source, target in graph.edge_mask.nonzero().tolist():
            ends_inside = target == graph.shape[1] - 1 or members & set(graph.target_sources[target])
            if ends_inside and not mask[source, target]:
                score = scores[source, target].item()
                if best is None or score > best[0]:
                    best = (score, source, target)
        assert best is not None
        mask[best[1], best[2]] = True
        members.add(best[1])
    return mask


@settings(max_examples=100)
@given(drawn=masked())
def test_pruning_leaves_the_paths_and_changes_nothing_twice(drawn: Any) -> None:
    graph, mask = drawn
    before = mask.clone()
    once = prune(mask, graph)
    assert torch.equal(mask, before)
    assert torch.equal(once, on_paths(mask, graph))
    assert torch.equal(prune(once, graph), once)


@given(drawn=masked(), part=st.floats(0, 1))
def test_pruning_more_edges_never_leaves_fewer(drawn: Any, part: float) -> None:
    graph, mask = drawn
    flat = mask.flatten().nonzero().flatten()
    fewer = mask.clone().flatten()
    fewer[flat[round(part * len(flat)) :]] = False
    smaller = prune(fewer.view_as(mask), graph)
    assert not (smaller & ~prune(mask, graph)).any()


@every
@given(drawn=scored(), part=st.floats(0, 1), absolute=st.booleans())
def test_a_selection_holds_at_most_n_edges_that_exist_and_lie_on_paths(
    rule: Any, drawn: Any, part: float, absolute: bool
) -> None:
    graph, scores = drawn
    n = within(graph, part)
    mask = rule(scores, graph, n, absolute)
    assert mask.dtype == torch.bool
    assert int(mask.sum()) <= n
    assert not (mask & ~graph.edge_mask).any()
    assert torch.equal(on_paths(mask, graph), mask)
    if n == graph.n_edges:
        assert torch.equal(mask, graph.edge_mask)


@given(drawn=scored(), part=st.floats(0, 1), absolute=st.booleans())
def test_top_n_takes_exactly_n_and_none_that_is_less_than_one_left_out(drawn: Any, part: float, absolute: bool) -> None:
    graph, scores = drawn
    n = within(graph, part)
    key = (scores.abs() if absolute else scores)[graph.edge_mask]
    chosen = top_n(scores, graph, n, absolute, pruned=False)[graph.edge_mask]
    assert int(chosen.sum()) == n
    if 0 < n < graph.n_edges:
        assert key[chosen].min() >= key[~chosen].max()


@pytest.mark.parametrize("rule", [top_n, greedy], ids=["top_n", "greedy"])
@given(drawn=scored(), parts=st.tuples(st.floats(0, 1), st.floats(0, 1)), absolute=st.booleans())
def test_a_larger_selection_holds_the_smaller(rule: Any, drawn: Any, parts: Any, absolute: bool) -> None:
    graph, scores = drawn
    few, many = (rule(scores, graph, within(graph, part), absolute, pruned=False) for part in sorted(parts))
    assert not (few & ~many).any()


@given(drawn=scored(), part=st.floats(0, 1), absolute=st.booleans())
def test_greedy_takes_exactly_n_of_which_each_leads_to_the_logits(drawn: Any, part: float, absolute: bool) -> None:
    graph, scores = drawn
    n = within(graph, part)
    mask = greedy(scores, graph, n, absolute, pruned=False)
    assert int(mask.sum()) == n
    members = mask.any(1)
    for _, target in mask.nonzero().tolist():
        assert target == graph.shape[1] - 1 or members[list(graph.target_sources[target])].any()


@given(drawn=scored(), part=st.floats(0, 1), absolute=st.booleans())
def test_greedy_equals_a_search_over_all_candidates(drawn: Any, part: float, absolute: bool) -> None:
    graph, scores = drawn
    n = min(within(graph, part), 40)
    expected = greedy_by_search(scores.abs() if absolute else scores, graph, n)
    assert torch.equal(greedy(scores, graph, n, absolute, pruned=False), expected)
    assert torch.equal(greedy(scores, graph, n, absolute), prune(expected, graph))


@given(drawn=scored(), values=st.tuples(st.floats(0, 5), st.floats(0, 5)), absolute=st.booleans())
def test_a_threshold_is_what_its_edges_reach_and_a_lower_one_keeps_them(
    drawn: Any, values: Any, absolute: bool
) -> None:
    graph, scores = drawn
    low, high = sorted(values)
    key = scores.abs() if absolute else scores
    wide, narrow = (threshold(scores, graph, value, absolute, pruned=False) for value in (low, high))
    assert torch.equal(wide, (key >= low) & graph.edge_mask)
    assert not (narrow & ~wide).any()


@every
@given(drawn=scored(), part=st.floats(0, 1), exponent=st.integers(-8, 8))
def test_neither_a_factor_nor_the_sign_of_all_scores_changes_a_selection_by_size(
    rule: Any, drawn: Any, part: float, exponent: int
) -> None:
    graph, scores = drawn
    n = within(graph, part)
    plain = rule(scores, graph, n)
    assert torch.equal(rule(scores * 2.0**exponent, graph, n), plain)  # a power of two rounds nothing
    assert torch.equal(rule(-scores, graph, n), plain)
    assert torch.equal(rule(scores * 2.0**exponent, graph, n, absolute=False), rule(scores, graph, n, absolute=False))


@given(drawn=scored(), part=st.floats(0, 1), seed=st.integers(0, 99))
def test_nodes_taken_are_the_strongest_with_all_edges_among_them(drawn: Any, part: float, seed: int) -> None:
    graph, _ = drawn
    scores = torch.from_numpy(np.random.default_rng(seed).permutation(graph.shape[0]).astype(float))
    n = round(part * (graph.shape[0] - 1))
    mask = top_n_nodes(scores, graph, n)
    taken = set(scores[1:].abs().topk(n).indices.add(1).tolist()) | {0}
    readers = [taken & set(sources) or target == graph.shape[1] - 1
               for target, sources in enumerate(graph.target_sources)]  # fmt: skip
    among = torch.zeros_like(mask)
    for source in taken:
        among[source] = graph.edge_mask[source] & torch.tensor([bool(one) for one in readers])
    assert torch.equal(mask, prune(among, graph))


@given(drawn=scored(), helping=st.floats(0.01, 0.99))
def test_weighed_scores_are_positive_where_there_are_some_and_one_half_keeps_the_order(
    drawn: Any, helping: float
) -> None:
    _, scores = drawn
    assert torch.equal(weighed(scores, helping) > 0, scores != 0)
    assert torch.equal(weighed(scores, 0.5), scores.abs() / 2)
    torch.testing.assert_close(weighed(-scores, 1 - helping), weighed(scores, helping))


@given(drawn=scored(), exponent=st.integers(-8, 8))
def test_an_average_by_rank_knows_no_scale_and_no_order_of_its_parts(drawn: Any, exponent: int) -> None:
    _, scores = drawn
    assume(scores.any())
    other = scores.roll(1)
    plain = average([scores, other], by="rank")
    assert (plain.abs() <= 1).all()
    torch.testing.assert_close(average([other, scores], by="rank"), plain)
    torch.testing.assert_close(average([scores * 2.0**exponent, other], by="rank"), plain)
    torch.testing.assert_close(average([-scores, -other], by="rank"), -plain)

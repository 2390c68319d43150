from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import metrics
from attribution.scores import Scores
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection import live_sources
from metrics.circuit.ground_truth import node_scores

GRAPH = ComputationalGraph(n_layers=3, n_heads=2)
CIRCUIT = torch.zeros(GRAPH.shape, dtype=torch.bool)
for edge in ("input->a0.h0<v>", "a0.h0->m1", "m1->logits", "input->a2.h1<v>", "a2.h1->logits", "input->m2"):
    CIRCUIT[GRAPH.edge_index(edge)] = True


def drawn(seed: int, share: float = 0.2, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Random scores and truth over the graph."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(GRAPH.shape, generator=generator) * GRAPH.edge_mask
    truth = (torch.rand(GRAPH.shape, generator=generator) < share) & GRAPH.edge_mask
    return (scores * 2).round() if ties else scores, truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_edges_as_scikit_learn_computes_them(seed: int, absolute: bool, ties: bool) -> None:
    scores, truth = drawn(seed, ties=ties)
    keys = (scores.abs() if absolute else scores)[GRAPH.edge_mask].numpy()
    labels = truth[GRAPH.edge_mask].numpy()
    assert metrics.auroc(scores, truth, GRAPH, absolute=absolute) == pytest.approx(roc_auc_score(labels, keys))
    found = metrics.average_precision(scores, truth, GRAPH, absolute=absolute)
    assert found == pytest.approx(average_precision_score(labels, keys))


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("nodes_by", ["max", "sum"])
def test_nodes_as_scikit_learn_computes_them(nodes_by: str, absolute: bool) -> None:
    scores, truth = drawn(5)[0], CIRCUIT
    labels = live_sources(truth, GRAPH)[1:].numpy()
    assert labels.sum() == 3
    settings = {"level": "node", "absolute": absolute, "nodes_by": nodes_by}
    keys = node_scores(scores, GRAPH, absolute, nodes_by)
    expected = roc_auc_score(labels, keys[1:])
    assert metrics.auroc(scores, truth, GRAPH, **settings) == pytest.approx(expected)
    assert metrics.auroc(keys, live_sources(truth, GRAPH), GRAPH, **settings) == pytest.approx(expected)
    found = metrics.average_precision(scores, truth, GRAPH, **settings)
    assert found == pytest.approx(average_precision_score(labels, keys[1:]))


def test_edges_that_do_not_exist_and_the_input_count_for_nothing() -> None:
    scores, _ = drawn(1)
    noisy = scores.masked_fill(~GRAPH.edge_mask, 99.0)
    for level in ("edge", "node"):
        assert metrics.auroc(noisy, CIRCUIT, GRAPH, level=level) == metrics.auroc(scores, CIRCUIT, GRAPH, level=level)
    louder = torch.cat((scores[:1] * 1000, scores[1:]))
    settings = {"level": "node"}
    assert metrics.auroc(louder, CIRCUIT, GRAPH, **settings) == metrics.auroc(scores, CIRCUIT, GRAPH, **settings)


def test_perfect_reversed_and_constant_scores() -> None:
    _, truth = drawn(2)
    assert metrics.auroc(truth.float(), truth, GRAPH) == 1.0
    assert metrics.auroc(-truth.float(), truth, GRAPH) == 1.0
    assert metrics.auroc(-truth.float(), truth, GRAPH, absolute=False) == 0.0
    constant = torch.ones(GRAPH.shape)
    assert metrics.auroc(constant, truth, GRAPH) == 0.5
    assert metrics.average_precision(constant, truth, GRAPH) == pytest.approx(int(truth.sum()) / GRAPH.n_edges)


def test_mib_by_hand() -> None:
    # one layer of one head: input reaches q, k, v, m0 and the logits, a0.h0 reaches m0 and logits, m0 the logits
    graph = ComputationalGraph(n_layers=1, n_heads=1)
    truth = torch.zeros(graph.shape, dtype=torch.bool)
    scores = torch.zeros(graph.shape)
    order = ("input->logits", "m0->logits", "input->m0", "a0.h0->logits", "input->a0.h0<v>", "a0.h0->m0")
    for rank, name in enumerate(order):
        scores[graph.edge_index(name)] = 10.0 - rank
    for name in ("input->logits", "input->a0.h0<v>"):
        truth[graph.edge_index(name)] = True
    # sizes are ceil(8 p): 1 seven times, 2, 4 and 8. Of 2 edges pruning drops m0, which nothing feeds; of 4 it drops
    # a0.h0. So the circuits hold 1, 1, 3 and 8 edges and 1, 1, 1 and 2 true ones of 2, of 6 false 0, 0, 2 and 6
    expected = (2 / 6) * 0.5 + (4 / 6) * 0.75
    assert metrics.auroc(scores, truth, graph, mib=True) == pytest.approx(expected)


def test_scores_and_circuits_bring_their_graph() -> None:
    values, truth = drawn(3)
    scores = Scores(values, GRAPH, method="eap")
    assert metrics.auroc(scores, truth) == metrics.auroc(values, truth, GRAPH)
    with pytest.raises(InputError, match="graph is needed"):
        metrics.auroc(values, truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t: (s[:-1], t), "must have shape"),
        (lambda s, t: (s, t[:-1]), "truth must be"),
        (lambda s, t: (s, t.float()), "bool"),
        (lambda s, t: (s * np.nan, t), "NaN"),
        (lambda s, t: (s, t & False), "no edge"),
        (lambda s, t: (s, GRAPH.edge_mask), "every edge"),
        (lambda s, t: (s, ~GRAPH.edge_mask), "do not exist"),
    ],
)
def test_what_cannot_be_ranked_is_refused(change, message: str) -> None:
    scores, truth = change(*drawn(0))
    with pytest.raises(InputError, match=message):
        metrics.auroc(scores, truth, GRAPH)


def test_settings_that_mean_nothing_are_refused() -> None:
    scores, truth = drawn(0)
    with pytest.raises(InputError, match="mib"):
        metrics.auroc(scores, truth, GRAPH, mib=True, level="node")
    with pytest.raises(InputError, match="nodes_by"):
        metrics.average_precision(scores, truth, GRAPH, level="node", nodes_by="mean")

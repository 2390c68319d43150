"""ACDC: every circuit that it went through, run by the bridge; its order, its scores, stacks, resuming, refusals."""

from __future__ import annotations

import functools

import pytest
import torch

import metrics
from attribution import ACDC, attribute
from attribution.edges.acdc import _score
from circuits import planted
from interp import ComputationalGraph
from interp.errors import InputError
from interp.selection import top_n
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task
from tests.tiny import tiny

TAU = 0.05
CASES = [("gpt2", "patch"), ("llama", "zero")]


@functools.cache
def small(name):
    """Two layers of two heads: few enough edges to run every circuit."""
    sizes = {"n_layer": 2, "n_head": 2} if name == "gpt2" else {"num_hidden_layers": 2, "num_attention_heads": 2}
    return tiny(name, **sizes)


def cut(name, ablation="patch", loss="objective", tau=TAU, task=None, **settings):
    model = small(name)
    return attribute(model, task or mixed_task(model), ACDC(tau, loss, **settings), ablation=ablation, quiet=True)


def trail(scores, order):
    """(edge, mask without it) in the order of trial, as the scores tell it; edges that went untried are skipped."""
    graph, mask, found = scores.graph, scores.graph.edge_mask.clone(), []
    for target, sources in order:
        nodes = list(graph.target_sources[target])
        for source in sources:
            without = mask.clone()
            without[source, target] = False
            if not nodes or mask[nodes].any():
                found.append(((source, target), without))
            else:
                assert scores.values[source, target] == 0
            if scores.values[source, target] < TAU:
                mask = without
    return found


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_every_decision_is_that_of_the_bridge(name, ablation):
    model, scores = small(name), cut(name, ablation)
    prompts, graph = mixed_task(model).prompts(model), scores.graph
    tried = trail(scores, ACDC(TAU).order(graph))
    circuits = [set(graph.edges()), *(set(graph.edges(without)) for _, without in tried)]
    corrupted = oracle.ablated_outputs(model, prompts, ablation)
    loss = -oracle.circuit_values(model, prompts, [(circuit, corrupted) for circuit in circuits]).mean(1)
    current, changes = loss[0], []
    for without in loss[1:]:
        changes.append(without - current)
        current = without if changes[-1] < TAU else current
    changes = torch.stack(changes)
    found = torch.stack([scores.values[edge] for edge, _ in tried])
    stayed = changes >= TAU
    assert 3 <= int(stayed.sum()) < len(tried) <= graph.n_edges
    assert torch.equal(found >= TAU, stayed)
    assert error(found[stayed], changes[stayed]) < TOLERANCE
    assert torch.allclose(found[~stayed], TAU * torch.exp(changes[~stayed] / TAU - 1), rtol=1e-6)


def test_targets_come_behind_all_that_they_feed_and_every_edge_once():
    graph = ComputationalGraph(n_layers=3, n_heads=4, n_kv_heads=2, kv="group")
    order, done = ACDC(seed=3).order(graph), set()
    for target, sources in order:
        # whatever reads the target's nodes has been worked off
        readers = graph.edge_mask[list(graph.target_sources[target])].any(0).nonzero()[:, 0].tolist()
        assert set(readers) <= done
        assert sorted(sources) == graph.edge_mask[:, target].nonzero()[:, 0].tolist()
        done.add(target)
    assert done == set(range(graph.shape[1]))
    assert order == ACDC(seed=3).order(graph) != ACDC(seed=4).order(graph)


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_kl_is_taken_one_edge_at_a_time_whatever_is_run_together(name, ablation, monkeypatch):
    scores = cut(name, ablation, "kl", seed=1)
    model, mask = small(name), scores.graph.edge_mask.clone()

    def kl(mask):
        given = {"objective": "kl", "ablation": ablation, "quiet": True}
        return -float(metrics.evaluate(model, mixed_task(model), mask, **given).mean())

    current = kl(mask)
    assert current < 1e-12
    for edge, without in trail(scores, ACDC(seed=1).order(scores.graph)):
        change = kl(without) - current
        if change < TAU:
            mask, current = without, current + change
        else:
            assert float(scores.values[edge]) == pytest.approx(change, rel=1e-6)
    assert torch.equal(mask, scores.values >= TAU)
    monkeypatch.setattr("interp.kernels.evaluate._ROWS_STACKED", 1)
    assert torch.allclose(cut(name, ablation, "kl", seed=1).values, scores.values, atol=1e-9)


def test_the_circuit_is_what_scores_of_tau_and_the_best_of_its_size_give():
    scores = cut("gpt2")
    mask = scores.values >= TAU
    assert scores.settings == {**scores.settings, "tau": TAU, "loss": "objective", "edges": int(mask.sum())}
    assert scores.seed == 0
    assert torch.equal(scores.mask(threshold=TAU, pruned=False), mask)
    assert torch.equal(top_n(scores.values, scores.graph, scores.settings["edges"], pruned=False), mask)
    below = scores.values[scores.graph.edge_mask & ~mask]
    assert (below >= 0).all()
    assert (below > 0).any()
    assert _score(0.1 - 1e-18, 0.1) >= 0.1 > _score(0.1 - 1e-17, 0.1) > _score(-0.3, 0.1) > 0


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    file, whole = tmp_path / "acdc", cut("gpt2")
    search, calls = ACDC._found.__globals__["_Search"], []
    losses = search._losses

    def fails(self, masks):
        calls.append(len(masks))
        if len(calls) == 12:
            raise KeyboardInterrupt
        return losses(self, masks)

    monkeypatch.setattr(search, "_losses", fails)
    with pytest.raises(KeyboardInterrupt):
        cut("gpt2", resume=file)
    resumed = cut("gpt2", resume=file)
    assert torch.allclose(resumed.values, whole.values, atol=1e-12)
    done = len(calls)
    assert torch.equal(cut("gpt2", resume=file).values, resumed.values)
    assert len(calls) == done
    with pytest.raises(InputError, match="belongs to another run"):
        cut("gpt2", seed=5, resume=file)


@pytest.mark.parametrize("name", planted.names())
def test_planted_circuits_are_found(name):
    model = planted.load(name)
    scores = attribute(model.model, model.task.select(range(32)), "acdc", tau=0.1, quiet=True)
    assert metrics.auroc(scores, model.mask) == 1.0
    assert len(model.edges) <= scores.settings["edges"] <= len(model.edges) + 3


def test_what_cannot_be_right_is_refused():
    for tau in (0, -0.1, float("nan")):
        with pytest.raises(InputError, match=r"tau=.* must be a (finite )?number above 0; the loss may rise"):
            ACDC(tau)
    with pytest.raises(InputError, match="loss='klm' is unknown"):
        ACDC(loss="klm")

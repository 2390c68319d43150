"""Learned masks that are sampled: stacked kernels, samples and gradients against slow ones, and planted circuits."""

from __future__ import annotations

import math

import pytest
import torch

from attribution import UGS, SampledEdgePruning, attribute
from attribution.edges.hard_concrete import HardConcrete
from attribution.edges.ugs import Uniform
from circuits import planted
from interp import ComputationalGraph, Run, Setting
from interp.errors import InputError
from interp.kernels.batching import make_batches
from interp.kernels.soft import SoftRunner
from interp.objectives import get_objective
from metrics.circuit.ground_truth import auroc
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task
from tests.tiny import tiny_task

SMALL = ComputationalGraph(1, 2)
FEW = {"steps": 2, "prompts": 2, "masks": 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "ablation"), [("gpt2", "patch"), ("gemma2", "mean")])
def test_stacked_masks_are_slow_runs_and_their_slopes_are_finite_differences(name, ablation):
    model, slow, eps = oracle.model_of(name), oracle.expanded(name), 1e-5
    setting = Setting(model, mixed_task(model), ablation, run=Run(quiet=True))
    graph, prompts = setting.graph, setting.prompts
    weights = torch.rand(3, *graph.shape, generator=generator(), dtype=torch.float64) * graph.edge_mask
    (batch,) = make_batches(prompts, 9, torch.device("cpu"), skip_prefix=setting.ablator.skip_prefix)
    runner = SoftRunner(setting.anatomy, graph, setting.ablator, batch)
    values, slopes = runner.differentiate(weights, get_objective("logit-difference"))
    corrupted = oracle.ablated_outputs(slow, prompts, ablation)
    places = [graph.edge_index(edge) for edge in ("input->a0.h1<q>", "a1.h2->m1", "m0->logits")]
    moved = [weights[i].clone() for i in (0, 1, 2)]
    for mask, place in enumerate(places):
        for sign in (-1, 1):
            one = weights[mask].clone()
            one[place] += sign * eps
            moved.append(one)
    edges = [{graph.edge_name(u, t): float(one[u, t]) for u, t in graph.edge_mask.nonzero().tolist()} for one in moved]
    expected = oracle.circuit_values(slow, prompts, [(one, corrupted) for one in edges])
    assert error(values, expected[:3][:, list(batch.indices)]) < TOLERANCE
    ends = expected[3:].sum(1).unflatten(0, (3, 2))
    found = torch.stack([slopes[i][place] for i, place in enumerate(places)])
    assert (found - (ends[:, 1] - ends[:, 0]) / (2 * eps)).abs().max() < 1e-6 * slopes.abs().max()


def test_hard_concrete_gates_and_their_gradient_are_the_papers():
    start, slopes = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64), torch.tensor([[3.0, -2.0, 1.0]]).double()
    gates = HardConcrete(start.clone(), 1, steps=30, masks=1)
    gates.multipliers.data = torch.tensor([2.0, -3.0], dtype=torch.float64)
    drawn = gates.sample(10, generator())[0].tolist()
    uniform = torch.rand(1, 3, generator=generator(), dtype=torch.float64)[0].tolist()
    aim = (2 / 3) * (11 / 25)

    def gate(log_a, u):
        s = 1 / (1 + math.exp(-(math.log(u / (1 - u)) + log_a) / (2 / 3)))
        return min(1.0, max(0.0, 1.2 * s - 0.1))

    def loss(log_a):
        gated = [gate(a, u) for a, u in zip(log_a, uniform, strict=True)]
        excess = 1 - sum(gated) / 3 - aim
        return sum(g * s for g, s in zip(gated, slopes[0].tolist(), strict=True)) + 2 * excess - 3 * excess**2

    for got, a, u in zip(drawn, start.tolist(), uniform, strict=True):
        assert got == pytest.approx(gate(a, u), abs=1e-12)
    gates.learn(10, slopes)
    for i in range(3):
        ends = [loss([a + sign * 1e-6 * (i == j) for j, a in enumerate(start.tolist())]) for sign in (-1, 1)]
        assert float(gates.log_a.grad[i]) == pytest.approx((ends[1] - ends[0]) / 2e-6, abs=1e-6)
    excess = 1 - sum(drawn) / 3 - aim
    assert gates.multipliers.grad.tolist() == pytest.approx([excess, excess**2])


def test_the_rate_rises_then_falls_and_multipliers_climb():
    gates = HardConcrete(torch.full((3,), 10.0, dtype=torch.float64), 1, steps=30, masks=1)
    assert [gates.rate(step) for step in (0, 1, 2, 16, 29)] == pytest.approx([0.4, 0.8, 0.8, 0.4, 0.8 / 28])
    gates.sample(0, generator())
    gates.learn(0, torch.zeros(1, 3, dtype=torch.float64))
    assert gates.multipliers.tolist()[0] == pytest.approx(-0.4)  # more gates are open than is asked for: uphill


def test_the_size_is_met_and_what_helps_is_kept():
    gates = HardConcrete(10 + 0.01 * torch.randn(60, generator=generator(), dtype=torch.float64), 12, 1000, 1)
    helps, draws = torch.arange(60) < 12, generator(1)
    for step in range(1000):
        gates.sample(step, draws)
        gates.learn(step, torch.where(helps, -1.0, 0.0)[None].double())
    told, unsettled = gates.found([])
    assert abs(told["edges_kept"] - 12) <= 1
    assert not unsettled
    assert helps[gates.odds().topk(12).indices].sum() >= 11


def test_uniform_masks_and_their_gradient_are_the_papers():
    gates = Uniform(SMALL, penalty=0.2, rate=1e-3, masks=50)
    n, names = SMALL.n_edges, tuple(SMALL.edges(SMALL.edge_mask))
    gates.phi.data = torch.linspace(-2, 2, n, dtype=torch.float64)
    phi, slopes = gates.phi.tolist(), 0.1 * torch.randn(50, n, generator=generator(3), dtype=torch.float64)
    gates.sample(0, generator())
    uniform = torch.rand(50, n, generator=generator(), dtype=torch.float64).tolist()
    theta = [1 / (1 + math.exp(-p)) for p in phi]
    gates.learn(0, slopes)

    def cost(thetas):
        heads = [sum(t for t, name in zip(thetas, names, strict=True) if f"a0.h{h}" in name) for h in range(2)]
        return 0.2 * sum(thetas) + 2e-4 * sum(math.tanh(2 * e / 2) for e in heads)

    for i, t in enumerate(theta):
        width, partly = t * (1 - t), []
        for draw, slope in zip(uniform, slopes.tolist(), strict=True):
            mask = 1 - min(1.0, max(0.0, (draw[i] - t) / width + 0.5))
            partly += [slope[i]] if 0 < mask < 1 else []
        ends = [cost([o + sign * 1e-6 * (i == j) for j, o in enumerate(theta)]) for sign in (-1, 1)]
        expected = width * ((ends[1] - ends[0]) / 2e-6 + sum(partly) / max(1, len(partly)))
        assert float(gates.phi.grad[i]) == pytest.approx(expected, abs=1e-6)


def test_a_planted_circuit_is_found_by_uniform_sampling():
    known = planted.load("induction")
    found = attribute(known.model, known.task, UGS(steps=60, penalty=1e-2), quiet=True)
    assert auroc(found, known.mask) > 0.99
    assert len(found.settings["losses"]) == 60
    assert found.settings["converged"]


@pytest.mark.parametrize("method", [UGS(**FEW), SampledEdgePruning(edges=9, **FEW)], ids=["ugs", "edge-pruning"])
def test_the_same_seed_gives_the_same_in_any_batches_and_what_did_not_converge_is_said(method, caplog):
    model = oracle.model_of("llama")
    task = tiny_task(model, n=4)
    found = attribute(model, task, method, quiet=True, ablation="mean")
    assert "did not converge" in caplog.text
    assert not found.settings["converged"]
    assert found.seed == 0
    assert (found.values[found.graph.edge_mask] > 0).all()
    assert torch.equal(attribute(model, task, method, quiet=True, ablation="mean").values, found.values)
    apart = attribute(model, task, method, quiet=True, ablation="mean", batch_size=1)
    assert torch.allclose(apart.values, found.values, rtol=1e-6)


def test_what_cannot_be_is_refused():
    model = oracle.model_of("gpt2")
    task = mixed_task(model)
    with pytest.raises(InputError, match=r"penalty=0\.0 must"):
        UGS(penalty=0)
    with pytest.raises(InputError, match="must leave between 1 and"):
        attribute(model, task, SampledEdgePruning(edges=10**6), quiet=True)
    nodes = attribute(model, task, "attribution-patching", quiet=True)
    with pytest.raises(InputError, match="start must be edge scores over"):
        attribute(model, task, SampledEdgePruning(edges=9, start=nodes), quiet=True)

"""SaCo over groups of edges and nodes: against a slow reference, at its extremes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.evaluate import CircuitValues
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.evaluate import evaluate
from metrics.circuit.saco import circuit_saco
from tests.tiny import shared, tiny_task


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return tiny_task(model, n=5)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of(model)


@pytest.fixture(scope="module")
def scores(graph: ComputationalGraph) -> torch.Tensor:
    return torch.randn(graph.shape, generator=torch.Generator().manual_seed(3)) * graph.edge_mask


@pytest.fixture(scope="module")
def falls(model: Any, task: Task, graph: ComputationalGraph) -> torch.Tensor:
    """How far each prompt's objective falls without each edge: [source, target, n]."""
    edges = graph.edge_mask.nonzero()
    masks = graph.edge_mask.repeat(len(edges), 1, 1)
    masks[torch.arange(len(edges)), edges[:, 0], edges[:, 1]] = False
    result = torch.zeros(*graph.shape, len(task.prompts(model)), dtype=torch.float64)
    result[tuple(edges.T)] = evaluate(model, task, graph.edge_mask) - evaluate(model, task, masks)
    return result


def reference(salience: list[float], drops: list[float]) -> float:
    """The formula, pair by pair."""
    top = bottom = 0.0
    for i in range(len(salience)):
        for j in range(i + 1, len(salience)):
            sign = 1 if drops[i] >= drops[j] else -1
            top += sign * (salience[i] - salience[j])
            bottom += abs(salience[i] - salience[j])
    return top / bottom


@pytest.mark.parametrize("ablation", ["patch", "zero"])
@pytest.mark.parametrize("absolute", [False, True])
def test_edges_against_the_formula(
    model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor, ablation: str, absolute: bool
) -> None:
    groups = 7
    result = circuit_saco(model, task, scores, groups, ablation=ablation, absolute=absolute)
    key = scores.abs() if absolute else scores
    edges = sorted(graph.edge_mask.nonzero().tolist(), key=lambda edge: -float(key[tuple(edge)]))
    salience, drops = [], []
    clean = evaluate(model, task, graph.edge_mask, ablation=ablation)
    for part in np.array_split(np.array(edges), groups):
        mask = graph.edge_mask.clone()
        for source, target in part:
            mask[source, target] = False
        salience.append(sum(float(key[s, t]) for s, t in part))
        drops.append(clean - evaluate(model, task, mask, ablation=ablation))
    falls = torch.stack(drops)
    assert result.sizes == tuple(len(part) for part in np.array_split(np.array(edges), groups))
    np.testing.assert_allclose(result.salience, salience, rtol=1e-6)
    np.testing.assert_allclose(result.drops, falls.numpy(), atol=1e-9)
    expected = [reference(salience, column) for column in falls.T.tolist()]
    np.testing.assert_allclose(result.values, expected)
    assert result.mean.value == pytest.approx(np.mean(expected))
    assert result.pooled.value == pytest.approx(reference(salience, falls.mean(1).tolist()))
    assert result.mean.low <= result.mean.value <= result.mean.high


def test_nodes_against_the_formula(model: Any, task: Task, graph: ComputationalGraph) -> None:
    values = torch.randn(len(graph.sources), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = circuit_saco(model, task, SimpleNamespace(values=values), 4, "node")
    order = sorted(range(1, len(graph.sources)), key=lambda node: -float(values[node]))
    clean, salience, drops = evaluate(model, task, graph.edge_mask), [], []
    for part in np.array_split(np.array(order), 4):
        mask = graph.edge_mask.clone()
        mask[part.tolist()] = False
        salience.append(float(values[part.tolist()].sum()))
        drops.append((clean - evaluate(model, task, mask)).tolist())
    expected = [reference(salience, list(column)) for column in zip(*drops, strict=True)]
    np.testing.assert_allclose(result.values, expected)
    assert result.level == "node"
    assert "nodes" in result.to_frame().columns


def test_what_edges_do_is_the_best_score_and_its_opposite_the_worst(
    model: Any, task: Task, graph: ComputationalGraph, falls: torch.Tensor, scores: torch.Tensor
) -> None:
    """With one edge a group, the scores that are the edges' own effects order all pairs of groups rightly."""
    mean = falls.mean(2)
    best = circuit_saco(model, task, mean, graph.n_edges, tolerance=1e-12, resamples=50)
    assert best.pooled.value == pytest.approx(1, abs=1e-9)
    worst = circuit_saco(model, task, -mean, graph.n_edges, tolerance=1e-12, ties="zero", resamples=50)
    assert worst.pooled.value == pytest.approx(-1, abs=1e-9)
    noise = circuit_saco(model, task, scores, graph.n_edges, resamples=50)
    assert abs(noise.pooled.value) < 0.4
    assert noise.pooled.value < best.mean.value


def test_edges_without_an_effect_are_tied_however_a_processor_rounds(
    model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one edge a group: some do nothing, and what they lack is noise of 1e-16."""
    plain, measure = circuit_saco(model, task, scores, graph.n_edges, resamples=50), Setting.measure
    assert (np.abs(plain.drops) < 1e-12).any(1).sum() > 1
    generator = torch.Generator().manual_seed(0)

    def rounded(setting: Setting, masks: Any) -> CircuitValues:
        found = measure(setting, masks)
        noise = 1e-14 * torch.randn(found.circuits.shape, generator=generator, dtype=torch.float64)
        return replace(found, circuits=found.circuits + noise)

    monkeypatch.setattr(Setting, "measure", rounded)
    again = circuit_saco(model, task, scores, graph.n_edges, resamples=50)
    np.testing.assert_allclose(again.values, plain.values, atol=1e-12)


def test_scores_dealt_out_at_random(model: Any, task: Task, graph: ComputationalGraph, falls: torch.Tensor) -> None:
    plain, against = (circuit_saco(model, task, falls.mean(2), n_random=random) for random in (0, 12))
    np.testing.assert_allclose(plain.values, against.values)
    assert plain.random is None
    assert against.random is not None
    assert len(set(against.draws)) == 12
    assert against.random.value == pytest.approx(np.mean(against.draws))
    assert abs(against.random.value) < 0.3
    assert against.random.value < plain.pooled.value
    # a draw is the coefficient of the same scores in another place
    edges = graph.edge_mask.nonzero()
    order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))
    dealt = torch.zeros(graph.shape, dtype=torch.float64)
    dealt[tuple(edges[order].T)] = falls.mean(2)[graph.edge_mask].sort(descending=True).values
    assert circuit_saco(model, task, dealt).mean.value == pytest.approx(against.draws[0])
    assert "dealt out at random" in repr(against)


def test_a_positive_factor_changes_nothing(model: Any, task: Task, scores: torch.Tensor) -> None:
    one, other = (circuit_saco(model, task, values, quiet=True) for values in (scores, 4 * scores))
    np.testing.assert_allclose(one.values, other.values)
    assert one.mean == other.mean


def test_batches_change_nothing(model: Any, task: Task, scores: torch.Tensor) -> None:
    one, other = circuit_saco(model, task, scores), circuit_saco(model, task, scores, batch_size=2)
    np.testing.assert_allclose(one.drops, other.drops, atol=1e-9)


def test_scores_per_key_value_group(model: Any, task: Task) -> None:
    grouped = ComputationalGraph.of(model, kv="group")
    values = torch.randn(grouped.shape, generator=torch.Generator().manual_seed(0))
    assert sum(circuit_saco(model, task, values, 3).sizes) == grouped.n_edges


def test_what_people_see(model: Any, task: Task, scores: torch.Tensor) -> None:
    result = circuit_saco(model, task, scores, 5)
    frame = result.to_frame()
    assert list(frame.columns) == ["group", "edges", "salience", "drop", "low", "high"]
    assert frame["salience"].is_monotonic_decreasing
    np.testing.assert_allclose(frame["drop"], result.drops.mean(1))
    assert repr(result).startswith("CircuitSaCo: mean over prompts")
    assert "<table" in result._repr_html_()
    assert len(result.figure().data[0].x) == 5


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda s: s[:3], {}, "does not fit model="),
        (lambda s: s[0], {}, r"scores must be a tensor \[source, target\] for level='edge'"),
        (lambda s: s, {"level": "node"}, r"scores must be a tensor \[source\] for level='node'"),
        (lambda s: s[0], {"level": "node"}, "the graph has 16 sources, one for each"),
        (lambda s: s.tolist(), {}, "got list"),
        (lambda s: s * torch.nan, {}, "scores are NaN"),
        (torch.ones_like, {}, "scores are constant"),
        (lambda s: s, {"groups": 1}, "groups=1 must be"),
        (lambda s: s, {"n_random": -1}, "n_random=-1 must be a whole number of at least 0"),
        (lambda s: s, {"groups": 10_000}, "groups=10000 is more than the"),
        (lambda s: s, {"level": "edges"}, "did you mean 'edge'"),
        (lambda s: s, {"ties": "agrees"}, "did you mean 'agree'"),
        (lambda s: s, {"ablation": "zeros"}, "did you mean 'zero'"),
    ],
)
def test_refuses(
    model: Any, task: Task, scores: torch.Tensor, change: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        circuit_saco(model, task, change(scores), **settings)

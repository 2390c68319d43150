"""Faithfulness: evaluate, curves and their areas, random circuits, and bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

import metrics
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.answers import answer_logits
from interp.kernels.evaluate import CircuitValues
from interp.objectives import get_objective
from interp.selection import LADDER_FRACTIONS, Greedy, TopN, ladder, top_n
from interp.setting import Setting
from interp.tasks.task import Task
from metrics import Estimate, bootstrap, cmd, cpr, evaluate, faithfulness, faithfulness_curve, mib
from metrics.circuit.curve import ladder_masks
from metrics.circuit.evaluate import faithfulness_of_means, measure
from metrics.circuit.samples import random_circuit
from metrics.statistics import resample
from tests.expanded import expanded
from tests.tiny import shared, tiny_task


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return tiny_task(model, n=6)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of_anatomy(anatomy_of(model), "head")


@pytest.fixture(scope="module")
def scores(graph: ComputationalGraph) -> torch.Tensor:
    return torch.randn(graph.shape, generator=torch.Generator().manual_seed(3)) * graph.edge_mask


def mean_of(means: np.ndarray) -> np.ndarray:
    return means[:, None]


# areas


def test_cpr_and_cmd_by_hand() -> None:
    p, f = [0.0, 0.5, 1.0], [0.5, 1.5, 1.0]
    # trapezia: .5 (.5 + 1.5) / 2 + .5 (1.5 + 1) / 2, and of |1 - f| = .5 .5 0
    assert float(cpr(p, f)) == pytest.approx(1.125)
    assert float(cmd(p, f)) == pytest.approx(0.375)


def test_areas_of_many_curves_on_the_ladder() -> None:
    perfect, useless = np.ones(10), np.zeros(10)
    f = np.stack((perfect, useless, np.array(LADDER_FRACTIONS)))
    # the ladder begins at .001, so that the area under 1 is .999
    assert cpr(LADDER_FRACTIONS, f).tolist() == pytest.approx([0.999, 0, (1 - 0.001**2) / 2])
    assert cmd(LADDER_FRACTIONS, f).tolist() == pytest.approx([0, 0.999, 0.999 - (1 - 0.001**2) / 2])


# bootstrap


def plain_level(moved: np.ndarray, confidence: float) -> float:
    """The level of the plain percentile interval that an expanded one of a mean is."""
    m = min(len(moved), 3 * (moved**2).sum() ** 2 / (moved**4).sum())
    t = scipy.stats.t.ppf((1 + confidence) / 2, m - 1)
    return float(1 - 2 * scipy.stats.norm.cdf(-t * math.sqrt(m / (m - 1))))


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bootstrap_of_a_mean_against_scipy(confidence: float) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=40)
    (ours,) = bootstrap(values, mean_of, resamples=20_000, confidence=confidence)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1,
        confidence_level=plain_level(values - values.mean(), confidence),
    ).confidence_interval  # fmt: skip
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02 * (theirs.high - theirs.low))
    assert ours.confidence == confidence


def test_bootstrap_of_faithfulness_against_scipy() -> None:
    rng = np.random.default_rng(1)
    clean, empty = rng.normal(4, 1, 32), rng.normal(-3, 1, 32)
    circuit = 0.8 * clean + rng.normal(0, 0.5, 32)
    values = torch.tensor(np.stack((clean, empty, circuit)))
    (ours,) = faithfulness(CircuitValues(values[0], values[1], values[2:]), resamples=20_000)

    def ratio(clean: np.ndarray, empty: np.ndarray, circuit: np.ndarray, axis: int) -> np.ndarray:
        means = [one.mean(axis) for one in (clean, empty, circuit)]
        return (means[2] - means[1]) / (means[0] - means[1])

    value = float((circuit.mean() - empty.mean()) / (clean.mean() - empty.mean()))
    moved = circuit - empty - value * (clean - empty)  # by how much each prompt moves a ratio of means, up to a factor
    theirs = scipy.stats.bootstrap(
        (clean, empty, circuit), ratio, paired=True, n_resamples=20_000, method="percentile", rng=2, vectorized=True,
        confidence_level=plain_level(moved, 0.95),
    ).confidence_interval  # fmt: skip
    assert ours.value == pytest.approx(value)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


def test_bootstrap_is_decided_by_its_seed_alone() -> None:
    values = np.arange(10.0)
    np.random.seed(0)  # noqa: NPY002 (that it does not matter is the point)
    first = bootstrap(values, mean_of, seed=4)
    np.random.seed(1)  # noqa: NPY002
    assert bootstrap(values, mean_of, seed=4) == first
    assert bootstrap(values, mean_of, seed=5) != first


def test_bootstrap_of_several_statistics() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 20))
    estimates = bootstrap(values, lambda means: means.reshape(len(means), -1))
    assert [one.value for one in estimates] == pytest.approx(values.mean(-1).flatten().tolist())
    assert all(one.low < one.value < one.high for one in estimates)
    (alone,) = bootstrap(values[1, 2], mean_of)
    assert (estimates[-1].low, estimates[-1].high) == pytest.approx((alone.low, alone.high))


def test_resamples_without_a_value_are_left_out() -> None:
    def reciprocal(means: np.ndarray) -> np.ndarray:
        return 1 / np.where(means > 0, means, np.nan)[:, None]

    values = np.repeat([0.0, 1.0], [7, 1])
    (some,) = bootstrap(values, reciprocal)
    drawn = values[resample(8, 2000, 0)].mean(1)
    without = [1 / np.delete(values, i).mean() if i < 7 else math.nan for i in range(8)]
    assert some.value == pytest.approx(8)
    assert (some.low, some.high) == pytest.approx(expanded((1 / drawn[drawn > 0]).tolist(), without, 8, 0.95))
    (none,) = bootstrap([0.0, 0.0], reciprocal)
    assert all(math.isnan(end) for end in (none.value, none.low, none.high))


def test_one_value_says_nothing_of_the_spread() -> None:
    (one,) = bootstrap([2.0], mean_of)
    assert one.value == 2
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_resample() -> None:
    drawn = resample(5, 100, 0)
    assert drawn.shape == (100, 5)
    assert set(drawn.flatten().tolist()) == set(range(5))


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ([1.0], {"confidence": 1.0}, "confidence=1.0 must be a number above 0 and below 1"),
        ([1.0], {"confidence": 95}, "confidence=95 must be a number"),
        ([1.0], {"resamples": 0}, "resamples=0 must be a whole number of at least 1"),
        ([], {}, "n=0 must be at least 1"),
    ],
)
def test_bootstrap_refuses(values: list[float], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bootstrap(values, mean_of, **settings)


def test_estimate() -> None:
    estimate = Estimate(0.9, 0.8, 1.0)
    assert str(estimate) == "0.900 [0.800, 1.000]"
    assert estimate.to_dict() == {"value": 0.9, "low": 0.8, "high": 1.0, "confidence": 0.95}


# evaluate


def test_evaluate_gives_one_value_per_prompt(model: Any, task: Task, graph: ComputationalGraph) -> None:
    mask = random_circuit(graph, 60, 0)
    values = evaluate(model, task, mask)
    assert values.shape == (6,)
    assert values.dtype == torch.float64
    stack = evaluate(model, task, torch.stack((mask, graph.edge_mask, mask)))
    assert stack.shape == (3, 6)
    torch.testing.assert_close(stack[0], values)
    torch.testing.assert_close(stack[2], values)
    torch.testing.assert_close(evaluate(model, task, SimpleNamespace(mask=mask)), values)
    assert evaluate(model, task, mask[None]).shape == (1, 6)


def test_the_full_and_the_empty_circuit(model: Any, task: Task, graph: ComputationalGraph) -> None:
    prompts, objective = task.prompts(model), get_objective("logit-difference")
    clean = objective(answer_logits(model, prompts), prompts)
    corrupted = objective(answer_logits(model, prompts.turned()), prompts)
    for ablation in ("patch", "zero", "mean", "mean-positional"):
        torch.testing.assert_close(evaluate(model, task, graph.edge_mask, ablation=ablation), clean)
    empty = torch.zeros_like(graph.edge_mask)
    torch.testing.assert_close(evaluate(model, task, empty), corrupted)
    # nothing of the prompt is left: the same for all, but for their answers
    assert not torch.allclose(evaluate(model, task, empty, ablation="zero"), corrupted)
    assert evaluate(model, task, empty, ablation="zero", objective="accuracy").shape == (6,)


def test_prompts_do_not_depend_on_each_other(model: Any, task: Task, graph: ComputationalGraph) -> None:
    masks = torch.stack([random_circuit(graph, n, n) for n in (10, 80)])
    values = evaluate(model, task, masks)
    order = [4, 0, 2]
    torch.testing.assert_close(evaluate(model, task.select(order), masks), values[:, order])
    torch.testing.assert_close(evaluate(model, task, masks, batch_size=2), values)
    torch.testing.assert_close(evaluate(model, task, masks, memory=1 << 20), values)


def test_measure_holds_clean_empty_and_circuits(model: Any, task: Task, graph: ComputationalGraph) -> None:
    mask = random_circuit(graph, 60, 0)
    values = measure(model, task, torch.stack((graph.edge_mask, torch.zeros_like(mask), mask)))
    torch.testing.assert_close(values.circuits[0], values.clean)
    torch.testing.assert_close(values.circuits[1], values.empty)
    torch.testing.assert_close(values.circuits[2], evaluate(model, task, mask))


def test_objective_overrides_the_tasks_own(model: Any, task: Task, graph: ComputationalGraph) -> None:
    mask = random_circuit(graph, 60, 0)
    ours = evaluate(model, task, mask, objective="log-probability")
    torch.testing.assert_close(ours, evaluate(model, task.with_objective("log-probability"), mask))
    assert (ours < 0).all()


def test_masks_per_key_value_group(model: Any, task: Task) -> None:
    grouped = ComputationalGraph.of_anatomy(anatomy_of(model), "group")
    mask = random_circuit(grouped, 60, 0)
    assert evaluate(model, task, mask).shape == (6,)
    full = evaluate(model, task, grouped.edge_mask)
    torch.testing.assert_close(
        full, evaluate(model, task, ComputationalGraph.of_anatomy(anatomy_of(model), "head").edge_mask)
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask: mask[:-1], "mask of shape .* does not fit model="),
        (lambda mask: mask[None, :, :5], "mask of shape .* does not fit model="),
        (lambda mask: mask[0], "circuit must be a bool tensor .* got shape"),
        (lambda mask: mask[None, None], "circuit must be a bool tensor .* got shape"),
        (lambda mask: mask.tolist(), "circuit must be a bool tensor .* got list"),
        (lambda mask: mask.int(), "int32"),
        (torch.ones_like, "mask"),
    ],
)
def test_bad_masks_are_refused(
    model: Any, task: Task, graph: ComputationalGraph, spoil: Callable[[torch.Tensor], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(model, task, spoil(graph.edge_mask))


def test_unknown_names_list_the_near_ones(model: Any, task: Task, graph: ComputationalGraph) -> None:
    with pytest.raises(InputError, match="ablation='zeros' is unknown; did you mean 'zero'"):
        evaluate(model, task, graph.edge_mask, ablation="zeros")
    with pytest.raises(InputError, match="objective='logprobability' is unknown; did you mean 'log-probability'"):
        evaluate(model, task, graph.edge_mask, objective="logprobability")


def test_a_nan_objective_is_refused(model: Any, task: Task, graph: ComputationalGraph) -> None:
    def broken(logits: torch.Tensor, prompts: Any, clean: Any) -> torch.Tensor:
        return logits[:, 0] * torch.nan

    with pytest.raises(InputError, match="objective='broken' is NaN on prompt 0"):
        evaluate(model, task, graph.edge_mask, objective=broken)  # type: ignore[arg-type]


# faithfulness


def test_faithfulness_by_hand() -> None:
    values = CircuitValues(
        torch.tensor([3.0, 5.0]), torch.tensor([-1.0, 1.0]), torch.tensor([[2.0, 4.0], [3.0, 5.0], [-1.0, 1.0]])
    )
    assert [one.value for one in faithfulness(values)] == pytest.approx([0.75, 1, 0])
    # each prompt alone gives the same ratio: there is no spread
    assert [one.low for one in faithfulness(values)] == pytest.approx([0.75, 1, 0])
    assert [one.high for one in faithfulness(values)] == pytest.approx([0.75, 1, 0])


def test_faithfulness_is_nan_without_a_gap() -> None:
    means = np.array([[1.0, 1.0, 0.5], [1e6, 1e6 + 1e-5, 0.0], [2.0, 1.0, 1.5]])
    ratio = faithfulness_of_means(means)
    assert np.isnan(ratio[:2]).all()
    assert ratio[2, 0] == 0.5
    flat = torch.ones(3)
    (estimate,) = faithfulness(CircuitValues(flat, flat, flat[None]))
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)


# random circuits


@pytest.mark.parametrize("n", [0, 1, 7, 60, 262])
def test_random_circuits_that_are_grown_hang_together(graph: ComputationalGraph, n: int) -> None:
    mask = random_circuit(graph, n, 0, "grown")
    assert int(mask.sum()) == n
    assert not (mask & ~graph.edge_mask).any()
    reached = {len(graph.targets) - 1}
    while True:
        sources = set(mask[:, sorted(reached)].any(1).nonzero().flatten().tolist())
        further = {t for t, fed in enumerate(graph.target_sources) if sources & set(fed)}
        if further <= reached:
            break
        reached |= further
    entered = set(mask.any(0).nonzero().flatten().tolist())
    assert entered <= reached  # each edge lies on a path to the logits


def test_random_circuits_are_decided_by_their_seed(graph: ComputationalGraph) -> None:
    assert torch.equal(random_circuit(graph, 40, 1), random_circuit(graph, 40, 1))
    assert not torch.equal(random_circuit(graph, 40, 1), random_circuit(graph, 40, 2))
    with pytest.raises(InputError, match="n=263"):
        random_circuit(graph, graph.n_edges + 1, 0)


# curves


def test_curve_is_evaluate_on_the_ladder(
    model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor
) -> None:
    curve = faithfulness_curve(model, task, scores)
    masks = [top_n(scores, graph, n) for n in ladder(graph)]
    assert curve.sizes == ladder(graph)
    assert curve.fractions == LADDER_FRACTIONS
    assert curve.edges == tuple(int(mask.sum()) for mask in masks)
    means = evaluate(model, task, torch.stack(masks)).mean(1)
    clean, empty = curve.values.clean.mean(), curve.values.empty.mean()
    expected = ((means - empty) / (clean - empty)).tolist()
    assert curve.faithfulness == pytest.approx(expected)
    assert curve.faithfulness[-1] == pytest.approx(1)
    assert curve.cpr == pytest.approx(float(cpr(LADDER_FRACTIONS, expected)))
    assert curve.cmd == pytest.approx(float(cmd(LADDER_FRACTIONS, expected)))
    log_p = np.log(LADDER_FRACTIONS)
    assert curve.log_cpr.value == pytest.approx(float(cpr(log_p, expected)) / (log_p[-1] - log_p[0]))
    assert curve.log_cmd.value == pytest.approx(float(cmd(log_p, expected)) / (log_p[-1] - log_p[0]))
    assert curve.values.circuits.shape == (10, 6)
    for estimate in (*curve.points, curve.cpr_estimate, curve.cmd_estimate, curve.log_cpr, curve.log_cmd):
        assert estimate.low <= estimate.high
    assert curve.random is None


def test_curve_as_a_table(model: Any, task: Task, scores: torch.Tensor) -> None:
    settings: dict[str, Any] = {"resamples": 50, "quiet": True}
    own = ["fraction", "size", "edges", "faithfulness", "low", "high"]
    plain = faithfulness_curve(model, task, scores, **settings)
    frame = plain.to_frame()
    assert frame.columns.tolist() == own
    assert len(frame) == 10
    assert frame["faithfulness"].tolist() == list(plain.faithfulness)
    curve = faithfulness_curve(model, task, SimpleNamespace(values=scores), n_random=2, **settings)
    assert curve.to_frame().columns.tolist() == [*own, "random", "random_low", "random_high"]
    pd.testing.assert_frame_equal(curve.to_frame()[own], frame)
    assert "CPR" in repr(curve)
    assert "<table" in curve._repr_html_()
    assert [line.name for line in curve.figure().data] == [None, "circuit", "random circuits of equal size"]
    assert len(plain.figure().data) == 1


def test_curve_of_n_random(model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor) -> None:
    curve = faithfulness_curve(model, task, scores, n_random=2, seed=5)
    assert curve.random is not None
    clean, empty = curve.values.clean.mean(), curve.values.empty.mean()
    for n, point in list(zip(curve.edges, curve.random, strict=True))[5:]:
        masks = torch.stack([random_circuit(graph, n, seed) for seed in (5, 6)])
        mean = evaluate(model, task, masks).mean()
        assert point.value == pytest.approx(float((mean - empty) / (clean - empty)))
        assert point.low <= point.high
    assert curve.random[-1].value == pytest.approx(1)


def test_ladder_masks(model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor) -> None:
    absolute, signed = (ladder_masks(Setting(model, task), scores, one) for one in (TopN(), TopN(absolute=False)))
    grown = ladder_masks(Setting(model, task), scores, Greedy())
    assert not torch.equal(absolute[6], signed[6])
    assert not torch.equal(absolute[7], grown[7])
    for masks in (absolute, signed, grown):
        assert len(masks) == 10
        assert torch.equal(masks[-1], graph.edge_mask)
        assert all(int(mask.sum()) <= size for mask, size in zip(masks, ladder(graph), strict=True))


def test_mib_selects_both_ways(model: Any, task: Task, scores: torch.Tensor) -> None:
    frame = mib(model, task, scores, resamples=50)
    assert frame.columns.tolist() == ["selection", "cpr", "cpr_low", "cpr_high", "cmd", "cmd_low", "cmd_high"]
    assert frame["selection"].tolist() == ["signed", "absolute"]
    for row, absolute in zip(frame.to_dict("records"), (False, True), strict=True):
        curve = faithfulness_curve(model, task, scores, absolute=absolute, resamples=50)
        assert (row["cpr"], row["cmd"]) == pytest.approx((curve.cpr, curve.cmd))


def test_curves_refuse(model: Any, task: Task, graph: ComputationalGraph, scores: torch.Tensor) -> None:
    with pytest.raises(InputError, match="n_random=-1 must be a whole number of at least 0"):
        faithfulness_curve(model, task, scores, n_random=-1)
    with pytest.raises(InputError, match=r"scores must be a tensor .* got list"):
        faithfulness_curve(model, task, [1.0])
    with pytest.raises(InputError, match="does not fit model="):
        faithfulness_curve(model, task, scores[:3])
    with pytest.raises(InputError, match="NaN or infinite"):
        faithfulness_curve(model, task, torch.where(graph.edge_mask, torch.nan, 0.0))
    with pytest.raises(InputError, match="selection='best' is unknown"):
        faithfulness_curve(model, task, scores, selection="best")


def test_public_names() -> None:
    assert set(metrics.__all__) >= {"evaluate", "faithfulness_curve", "cpr", "cmd", "bootstrap", "Estimate"}
    assert all(hasattr(metrics, name) for name in metrics.__all__)

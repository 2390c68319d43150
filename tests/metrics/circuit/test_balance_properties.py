"""What balanced selection promises, on models that only add up effects which hypothesis draws, and on a tiny one."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attribution import Scores, attribute
from attribution.edges.method import Method
from circuits import find_circuit
from circuits.goals import Goal
from circuits.search import CLOSE as CLOSE_NODES
from circuits.smallest import Sizes, smallest
from interp.graph import ComputationalGraph
from interp.interval import Interval
from interp.kernels.evaluate import CircuitValues
from interp.node_mask import NodeMask
from interp.run import Run
from interp.selection import connected, ladder
from interp.setting import Setting
from metrics import faithfulness
from metrics.circuit.balance import CLOSE, STEPS, Balanced, helping_weights, node_rules
from metrics.circuit.node_scores import NodeScores
from tests.drawn import scored
from tests.tiny import behaving, shared


@dataclass
class Additive:
    """Stands for a setting: a circuit does what its edges (or nodes) add up to; what is measured is written down.

    Its KL(model || circuit) is the square of what its faithfulness lacks.
    """

    effects: torch.Tensor
    graph: ComputationalGraph
    measured: list[torch.Tensor] = field(default_factory=list)

    def value(self, mask: torch.Tensor) -> float:
        """Faithfulness."""
        return float(self.effects[mask].sum() / self.effects.sum())

    def distance(self, mask: torch.Tensor) -> float:
        """From the model: of the mean and of the output together."""
        lacks = 1 - self.value(mask)
        return abs(lacks) + lacks**2

    def measure_all(
        self, masks: Sequence[torch.Tensor | NodeMask], objectives: Sequence[str | None]
    ) -> list[CircuitValues]:
        own = self.measure(masks)
        lacks = 1 - own.circuits / own.clean.mean()
        kl = CircuitValues(torch.zeros_like(own.clean), -torch.ones_like(own.clean), -(lacks**2))
        return [own if objective is None else kl for objective in objectives]

    def measure(self, masks: Sequence[torch.Tensor | NodeMask]) -> CircuitValues:
        here = [one.mask if isinstance(one, NodeMask) else one for one in masks]
        self.measured += here
        values = torch.stack([self.effects[one].sum() for one in here])
        whole = self.effects.sum().expand(2)
        return CircuitValues(whole, torch.zeros_like(whole), values[:, None].expand(-1, 2))


@st.composite
def settings_of_edges(draw: Any) -> tuple[Additive, torch.Tensor, list[int]]:
    """A setting, scores that may be right or not, and sizes."""
    graph, scores = draw(scored())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    noise = torch.randn(graph.shape, generator=generator, dtype=torch.float64) * graph.edge_mask
    effects = scores + draw(st.sampled_from([0.0, 1.0])) * noise
    assume(abs(float(effects.sum())) > 1e-3)
    parts = draw(st.lists(st.floats(0, 1), min_size=1, max_size=3))
    return Additive(effects, graph), scores, [round(part * graph.n_edges) for part in parts]


def taken(setting: Any, scores: torch.Tensor, sizes: Sequence[int], steps: int = STEPS) -> list[torch.Tensor]:
    return [rule(scores) for rule in Balanced(steps).rules(setting, scores, sizes)]


@given(drawn=settings_of_edges(), steps=st.integers(1, 6))
def test_a_size_is_kept_and_no_more_circuits_are_measured_than_allowed(drawn: Any, steps: int) -> None:
    setting, scores, sizes = drawn
    masks = taken(setting, scores, sizes, steps)
    assert [int(mask.sum()) <= n for mask, n in zip(masks, sizes, strict=True)] == [True] * len(sizes)
    assert len(sizes) <= len(setting.measured) <= steps * len(sizes)
    plain = [connected(scores, setting.graph, n) for n in sizes]
    # what starts near enough to the model is measured once
    still = sum(setting.distance(one) > CLOSE for one in plain)
    assert len(setting.measured) <= len(sizes) + (steps - 1) * still


@given(drawn=settings_of_edges(), steps=st.integers(1, 6))
def test_what_is_taken_was_measured_and_nothing_that_was_is_nearer_to_the_model(drawn: Any, steps: int) -> None:
    setting, scores, sizes = drawn
    for n in sizes:
        alone = Additive(setting.effects, setting.graph)
        (mask,) = taken(alone, scores, [n], steps)
        assert any(torch.equal(mask, one) for one in alone.measured)
        away = [alone.distance(one) for one in alone.measured]
        assert alone.distance(mask) == pytest.approx(min(away))
        assert away[0] == pytest.approx(alone.distance(connected(scores, alone.graph, n)))


@given(drawn=settings_of_edges())
def test_each_size_is_searched_for_itself(drawn: Any) -> None:
    setting, scores, sizes = drawn
    together = taken(setting, scores, sizes)
    for n, mask in zip(sizes, together, strict=True):
        assert torch.equal(mask, taken(setting, scores, [n])[0])
    for mask, again in zip(reversed(together), taken(setting, scores, sizes[::-1]), strict=True):
        assert torch.equal(mask, again)


@given(values=st.lists(st.floats(-3, 3) | st.just(math.nan), min_size=6, max_size=6), steps=st.integers(1, 6))
def test_the_weight_is_one_of_those_tried_whatever_they_gave(values: list[float], steps: int) -> None:
    tried: list[float] = []

    def measure(weights: list[float]) -> list[tuple[float, float]]:
        tried.extend(weights)
        value = values[len(tried) - 1]
        return [(value, abs(1 - value))]

    (found,) = helping_weights(lambda i, weight: weight, measure, 1, steps)
    assert all(0 <= weight <= 1 for weight in tried)
    known = [(abs(1 - value), i) for i, value in enumerate(values[: len(tried)]) if not math.isnan(value)]
    assert found == (tried[min(known)[1]] if known else 0.5)


# ---- of nodes


@st.composite
def settings_of_nodes(draw: Any) -> tuple[Additive, NodeScores]:
    """Neurons whose effects, all above 0, are their scores."""
    sizes = draw(st.integers(1, 3)), draw(st.integers(1, 16))
    effects = torch.rand(sizes, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**20)))).double() + 0.01
    return Additive(effects, ComputationalGraph(1, 1)), NodeScores(effects, "neuron")


@dataclass
class Added:
    """Stands for the nodes of such a setting."""

    setting: Additive
    scores: NodeScores
    noun = "node"

    @property
    def places(self) -> range:
        return range(self.scores.count)

    def circuit(self, mask: torch.Tensor) -> NodeMask:
        return NodeMask(mask, "neuron")

    def count(self, mask: torch.Tensor) -> int:
        return int(mask.sum())


def reaching(setting: Any, scores: NodeScores, goal: float) -> tuple[NodeMask, list[dict[str, Any]]]:
    elements: Any = Added(setting, scores)
    sizes = Sizes(elements, lambda n: scores.top(n, 1.0).mask, Goal(goal, interval=Interval(resamples=20)))
    _, n = smallest([sizes], CLOSE_NODES["node"])
    return scores.top(n, 1.0), sizes.rungs()


@given(drawn=settings_of_nodes(), goals=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_the_smallest_reaches_its_goal_by_its_own_record_and_a_higher_goal_takes_no_fewer(
    drawn: Any, goals: Any
) -> None:
    setting, scores = drawn
    counts = []
    for goal in sorted(goals):
        setting.measured.clear()
        mask, rungs = reaching(setting, scores, goal)
        record = {rung["nodes"]: rung["faithfulness"] for rung in rungs}
        assert sorted(record) == sorted(int(one.sum()) for one in setting.measured)  # no more, and none twice
        assert record[mask.n_nodes] == pytest.approx(setting.value(mask.mask))
        assert record[mask.n_nodes] >= goal - 1e-9
        if mask.n_nodes > 1:
            assert record[mask.n_nodes - 1] < goal
        counts.append(mask.n_nodes)
    assert counts == sorted(counts)


@given(drawn=settings_of_nodes(), part=st.floats(0, 1), steps=st.integers(1, 6))
def test_a_circuit_of_nodes_has_its_size_and_was_measured(drawn: Any, part: float, steps: int) -> None:
    setting, scores = drawn
    n = max(1, round(part * scores.count))
    (select,) = node_rules(setting, scores, Balanced(steps=steps), [n])
    mask = NodeMask(select(scores.values), "neuron")
    assert mask.n_nodes == n
    assert 1 <= len(setting.measured) <= steps
    assert any(torch.equal(mask.mask, one) for one in setting.measured)


# ---- of a model, from a goal


@dataclass(frozen=True)
class Known(Method):
    """Scores that are there already."""

    ready: Scores

    name = "known"

    def values(self, setting: Setting) -> torch.Tensor:
        return self.ready.values


@functools.cache
def model_case() -> tuple[Any, Any, Scores]:
    model = shared("gpt2", n_layer=1, n_head=2)
    task = behaving(model, 8)
    return model, task, attribute(model, task, "eap", quiet=True)


@settings(max_examples=6)
@given(goals=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)), seed=st.integers(0, 3))
def test_the_circuit_reaches_the_goal_where_its_ladder_says_so_and_a_higher_one_takes_no_fewer_edges(
    goals: Any, seed: int
) -> None:
    model, task, scores = model_case()
    scoring = Setting(model, task, run=Run(quiet=True)).split(0.5, seed)[0]
    sizes = []
    for goal in sorted(goals):
        found = find_circuit(
            model, task, method=Known(scores), faithfulness=goal, ladder=True, seed=seed, resamples=20, quiet=True
        )
        rungs = found.report.ladder
        assert [rung["size"] for rung in rungs] == list(ladder(found.graph))
        reached = [rung["faithfulness"] >= goal for rung in rungs]
        chosen = reached.index(True) if any(reached) else len(rungs) - 1
        assert found.n_edges == rungs[chosen]["edges"]
        (own,) = faithfulness(scoring.measure(found.mask[None]), resamples=20)
        assert own.value == pytest.approx(rungs[chosen]["faithfulness"])
        sizes.append(rungs[chosen]["size"])
    assert sizes == sorted(sizes)

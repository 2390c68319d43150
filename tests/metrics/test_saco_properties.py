"""What SaCo promises, of explanations and of circuits, on scores and effects that hypothesis draws."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from interp.graph import ComputationalGraph
from metrics.circuit.evaluate import measure
from metrics.circuit.saco import circuit_saco
from metrics.explanation.saco import saco
from tests.tiny import shared, tiny_task

ROUNDING = 1e-9  # edges that do nothing fall by about 1e-16, in an order that follows how runs are stacked
UNIT = 1024  # what is divided by it adds up without rounding
RESCALED: list[Callable[[Any], Any]] = [lambda s: s**3, lambda s: np.exp(s / 8), np.arctan, lambda s: 4 * s - 7]


def distinct(count: int) -> st.SearchStrategy[np.ndarray]:
    drawn = st.lists(st.integers(-20, 20), min_size=count, max_size=count, unique=True)
    return drawn.map(lambda values: np.array(values, float))


@st.composite
def cases(draw: Any) -> tuple[int, np.ndarray, np.ndarray]:
    """How many groups of equal size, effects [n, element] in which ties are frequent, and salience without any."""
    groups, size, n = draw(st.integers(2, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    effects = draw(arrays.arrays(np.float64, (n, groups * size), elements=st.integers(-4, 4).map(float)))
    return groups, effects / UNIT, np.stack([draw(distinct(groups * size)) for _ in range(n)])


def additive(effects: Any) -> Any:
    """Two classes, of which the second gains each input: an element that becomes zero takes its effect away."""
    p = 0.5 + effects.sum(1)
    return np.stack((1 - p, p), 1)


def run(groups: int, effects: np.ndarray, salience: np.ndarray, ties: str = "agree") -> Any:
    return saco(additive, effects, salience, groups, target=1, baseline="zero", ties=ties, resamples=20, quiet=True)


def pairs(groups: int, effects: np.ndarray, salience: np.ndarray) -> list[tuple[float, float]]:
    """Of each pair of groups, the one of larger salience first: by how much it is larger, and falls by more."""
    parts = np.argsort(-salience).reshape(groups, -1)
    sums, falls = salience[parts].sum(1), effects[parts].sum(1)
    return [(sums[i] - sums[j], falls[i] - falls[j]) for i, j in itertools.combinations(range(groups), 2)]


@given(case=cases())
def test_the_coefficient_is_the_formula_pair_by_pair_and_within_its_range(case: Any) -> None:
    groups, effects, salience = case
    for ties, of_a_tie in (("agree", 1), ("zero", 0)):
        found = run(groups, effects, salience, ties)
        assert (np.abs(found.values) <= 1).all()
        for value, tied, own, scores in zip(found.values, found.ties, effects, salience, strict=True):
            listed = pairs(groups, own, scores)
            agreed = sum(weight * (np.sign(more) or of_a_tie) for weight, more in listed)
            assert value == pytest.approx(agreed / sum(weight for weight, _ in listed), abs=1e-12)
            assert tied == pytest.approx(np.mean([more == 0 for _, more in listed]))


@given(case=cases(), exponent=st.integers(-6, 6), shift=st.integers(-9, 9))
def test_neither_a_factor_nor_a_shift_of_the_salience_changes_it(case: Any, exponent: int, shift: int) -> None:
    groups, effects, salience = case
    plain = run(groups, effects, salience).values
    np.testing.assert_array_equal(run(groups, effects, salience * 2.0**exponent).values, plain)
    np.testing.assert_allclose(run(groups, effects, salience + shift).values, plain, atol=1e-12)


@given(case=cases())
def test_reversed_salience_has_the_opposite_value_but_for_ties(case: Any) -> None:
    groups, effects, salience = case
    np.testing.assert_allclose(
        run(groups, effects, -salience, "zero").values, -run(groups, effects, salience, "zero").values, atol=1e-12
    )
    both = run(groups, effects, salience).values + run(groups, effects, -salience).values
    for total, own, scores in zip(both, effects, salience, strict=True):
        listed = pairs(groups, own, scores)
        tied = sum(weight for weight, more in listed if more == 0) / sum(weight for weight, _ in listed)
        assert total == pytest.approx(2 * tied, abs=1e-12)  # a tie agrees with both


@given(case=cases(), rescaled=st.sampled_from(RESCALED))
def test_two_groups_know_the_order_alone_and_more_do_where_it_is_right_or_wrong_throughout(
    case: Any, rescaled: Callable[[Any], Any]
) -> None:
    """The weights of the pairs change with the scale: only signs that are all the same, or a single one, do not."""
    groups, effects, salience = case
    assume(effects.shape[1] % 2 == 0)
    np.testing.assert_array_equal(run(2, effects, rescaled(salience)).values, run(2, effects, salience).values)
    truth = salience / UNIT
    np.testing.assert_allclose(run(groups, truth, rescaled(salience)).values, 1)
    np.testing.assert_allclose(run(groups, truth, -rescaled(salience)).values, -1)


@given(case=cases(), effect=st.integers(-4, 4))
def test_equal_effects_are_ties_alone(case: Any, effect: int) -> None:
    groups, effects, salience = case
    equal = np.full_like(effects, effect / UNIT)
    for ties, value in (("agree", 1), ("zero", 0)):
        found = run(groups, equal, salience, ties)
        np.testing.assert_allclose(found.values, value, atol=1e-12)
        assert (found.ties == 1).all()
        assert np.isnan(run(groups, effects, np.full_like(salience, effect), ties).values).all()  # no order to judge


# ---- of circuits


@functools.cache
def circuit_case() -> tuple[Any, Any, ComputationalGraph, np.ndarray]:
    """A model, a task, its graph of 13 edges, and how far each prompt's objective falls without each edge [n, edge]."""
    model = shared("gpt2", n_layer=1, n_head=2)
    task, graph = tiny_task(model, n=3), ComputationalGraph.of(model)
    edges = graph.edge_mask.nonzero()
    masks = graph.edge_mask.repeat(len(edges), 1, 1)
    masks[torch.arange(len(edges)), *edges.T] = False
    values = measure(model, task, masks, quiet=True)
    return model, task, graph, (values.clean - values.circuits).T.numpy()


def of_edges(values: np.ndarray, groups: int = 13, **told: Any) -> np.ndarray:
    model, task, graph, _ = circuit_case()
    scores = torch.zeros(graph.shape, dtype=torch.float64)
    scores[graph.edge_mask] = torch.from_numpy(values)
    return circuit_saco(model, task, scores, groups, resamples=20, quiet=True, **told).values


@settings(max_examples=5)
@given(scores=distinct(13), groups=st.integers(2, 13), exponent=st.integers(-6, 6))
def test_of_edges_it_is_within_its_range_and_turns_with_the_scores(
    scores: np.ndarray, groups: int, exponent: int
) -> None:
    plain = of_edges(scores, groups)
    assert (np.abs(plain) <= 1).all()
    np.testing.assert_array_equal(of_edges(scores * 2.0**exponent, groups), plain)
    turned, own = (of_edges(one, ties="zero", tolerance=ROUNDING) for one in (-scores, scores))
    np.testing.assert_allclose(turned, -own, atol=1e-12)


@settings(max_examples=5)
@given(prompt=st.integers(0, 2), rescaled=st.sampled_from(RESCALED))
def test_the_effects_of_a_prompts_edges_are_its_best_scores_in_any_scale(
    prompt: int, rescaled: Callable[[Any], Any]
) -> None:
    effects = circuit_case()[3][prompt]
    assert of_edges(rescaled(effects))[prompt] == pytest.approx(1)
    assert of_edges(-rescaled(effects))[prompt] == pytest.approx(-1)

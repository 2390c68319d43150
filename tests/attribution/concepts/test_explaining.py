"""Explanations by concepts: planted ones come out, weights by hand, the path beside other solvers, what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, MultiTaskLasso

from attribution.concepts import explain, explain_all
from attribution.concepts.losses import RIDGE, Decisions, Logits
from attribution.concepts.path import Problem, sparse_fits
from interp import InputError, Result
from interp.concepts import ConceptExplanation, read_concepts
from tests.planted_concepts import CHOSEN, CLASSES, NAMES, draw, images, network, planted_weights, true_heads

USED = {NAMES[at] for at in CHOSEN}
QUIET: dict[str, Any] = {"quiet": True}


def found(size: int = 3, **settings: Any) -> ConceptExplanation:
    return explain(network(), true_heads(), images(), size, **settings, **QUIET)


@pytest.mark.parametrize(("inputs", "unit"), [("labels", 1.0), ("logits", 0.25)])
def test_planted_concepts_and_their_weights_are_found_exactly(inputs: str, unit: float) -> None:
    one = found(inputs=inputs)
    assert set(one.used) == USED
    torch.testing.assert_close(one.weights, unit * planted_weights(), atol=1e-9, rtol=0)
    reading = read_concepts(network(), true_heads(), images(), **QUIET)
    torch.testing.assert_close(one.predict(reading), reading.logits, atol=1e-9, rtol=0)
    assert one.loss == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("inputs", ["logits", "probabilities", "labels"])
def test_planted_concepts_are_found_from_decisions_alone(inputs: str) -> None:
    one = found(inputs=inputs, target="decisions")
    assert set(one.used) == USED
    reading = read_concepts(network(), true_heads(), images(), **QUIET)
    agreed = (one.predict(reading).argmax(1) == reading.decisions).double().mean()
    assert agreed > 0.97


def test_weights_ranges_and_sizes_by_hand() -> None:
    one = found(2, inputs="logits", only=["c1", "c4"])
    x = images().concepts[:, [1, 4]].double().numpy() * 4 - 2  # the channels' averages
    y = read_concepts(network(), true_heads(), images(), **QUIET).logits.numpy()
    by_hand = np.linalg.lstsq(np.column_stack((x, np.ones(len(x)))), y, rcond=None)[0]
    np.testing.assert_allclose(one.weights[:, [1, 4]].numpy(), by_hand[:2].T, atol=1e-9)
    np.testing.assert_allclose(one.bias.numpy(), by_hand[2], atol=1e-9)
    residual = y - x @ by_hand[:2] - by_hand[2]
    assert one.loss == pytest.approx((residual**2).sum(1).mean() / 2)
    np.testing.assert_allclose(one.ranges[[1, 4]].numpy(), 4, atol=1e-9)
    frame = one.to_frame().set_index("concept")
    for column, name in enumerate(("c1", "c4")):
        squares = sum(by_hand[column, c] ** 2 for c in range(CLASSES))
        assert frame.loc[name, "size"] == pytest.approx(squares / 4)
        assert frame.loc[name, "effect"] == pytest.approx(4 * squares**0.5)
        assert frame.loc[name, "for"] == by_hand[column].argmax()
        assert frame.loc[name, "against"] == by_hand[column].argmin()


def test_salience_is_what_the_explanation_loses_of_the_decision_by_hand() -> None:
    one = found()
    reading = read_concepts(network(), true_heads(), images(), **QUIET)
    x = reading.inputs("probabilities").numpy()
    for i in (0, 7):
        c = int(reading.decisions[i])
        for j in range(len(NAMES)):
            without = np.where(np.arange(len(NAMES)) == j, x.mean(0), x[i])
            before, after = (np.exp(one.weights.numpy() @ values + one.bias.numpy()) for values in (x[i], without))
            expected = np.log(before[c] / before.sum()) - np.log(after[c] / after.sum())
            assert float(one.salience(reading)[i, j]) == pytest.approx(expected, abs=1e-12)


def test_decisions_are_fitted_as_scikit_learn_fits_them() -> None:
    columns, decisions = draw(90, 3), draw(90, 1, seed=2)[:, 0].gt(0).long() + draw(90, 1, seed=3)[:, 0].gt(0.5).long()
    ours = Problem(columns, Decisions(decisions, 3)).fit(range(3))
    other = LogisticRegression(C=1 / (RIDGE * 90), tol=1e-10, max_iter=2000).fit(columns.numpy(), decisions.numpy())
    np.testing.assert_allclose(ours.weights.numpy(), other.coef_, atol=2e-3)
    assert ours.loss == pytest.approx(float(-np.log(other.predict_proba(columns.numpy())[range(90), decisions]).mean()),
                                      abs=1e-6)  # fmt: skip


def test_the_path_is_scikit_learns_group_lasso() -> None:
    columns = draw(80, 6) @ (torch.eye(6, dtype=torch.float64) + 0.4)
    logits = columns @ draw(6, 4, seed=1) + draw(80, 4, seed=2)
    problem, start = Problem(columns, Logits(logits)), torch.zeros(7, 4, dtype=torch.float64)
    for penalty in (0.2, 1.0, 3.0):
        ours = problem.penalised(penalty, start)
        other = MultiTaskLasso(alpha=penalty, tol=1e-10, max_iter=50_000).fit(columns.numpy(), logits.numpy())
        np.testing.assert_allclose(ours[:-1].numpy(), other.coef_.T, atol=1e-4)


def test_the_penalised_decisions_are_stationary() -> None:
    """Where a column is not 0 its gradient is the penalty, against its direction; elsewhere it is no larger."""
    columns, penalty = draw(80, 6), 0.05
    target = Decisions((columns[:, :1] > 0.3).long()[:, 0] + (columns[:, 1] > 0).long(), 3)
    problem = Problem(columns, target)
    weights = problem.penalised(penalty, torch.zeros(7, 3, dtype=torch.float64))
    gradient, sizes = problem.gradient(weights), weights[:-1].norm(dim=1)
    there = sizes > 0
    assert 0 < there.sum() < 6
    expected = -penalty * weights[:-1][there] / sizes[there, None]
    torch.testing.assert_close(gradient[:-1][there], expected, atol=1e-5, rtol=0)
    assert float(gradient[:-1][~there].norm(dim=1).max()) <= penalty
    assert float(gradient[-1].norm()) < 1e-5


def test_few_concepts_are_nearly_always_the_best_of_all_choices() -> None:
    """On inputs that depend on each other, beside every choice there is; and no single exchange betters them."""
    shares = []
    for seed in range(4):
        columns = draw(60, 7, seed=seed) @ (torch.eye(7, dtype=torch.float64) + 0.5 * draw(7, 7, seed=seed + 50))
        target = Logits(columns @ draw(7, 3, seed=seed + 9) + draw(60, 3, seed=seed + 20))
        problem = Problem(columns, target)
        for fit in sparse_fits(columns, target, (1, 2, 4)):
            losses = {one: problem.fit(one).loss for one in itertools.combinations(range(7), len(fit.chosen))}
            near = [loss for one, loss in losses.items() if len({*one} - {*fit.chosen}) == 1]
            assert fit.loss <= min(near) * (1 + 1e-9)
            shares.append(fit.loss / min(losses.values()))
    assert max(shares) < 1.2
    assert sum(share < 1 + 1e-9 for share in shares) >= 10


def test_all_combinations_share_a_reading_and_are_those_of_single_calls() -> None:
    kinds = {"inputs": ["logits", "labels"], "targets": ["logits", "decisions"]}
    every = explain_all(network(), true_heads(), images(), [1, 3], n_random=2, **kinds, **QUIET)
    assert len(every) == 2 * 2 * 2 * 3
    single = found(inputs="labels", target="decisions")
    (same,) = [
        one for one in every if (one.inputs, one.target, one.size, one.control) == ("labels", "decisions", 3, False)
    ]
    torch.testing.assert_close(same.weights, single.weights)
    drawn = [one for one in every if one.control]
    assert {len(one.used) for one in drawn} == {1, 3}
    assert len({tuple(sorted(one.used)) for one in drawn if one.size == 3}) > 3
    losses = {(one.inputs, one.target, one.size): one.loss for one in every if not one.control}
    assert all(losses[one.inputs, one.target, one.size] <= one.loss + 1e-9 for one in drawn)
    assert "random concepts" in drawn[0].headline()


def test_more_concepts_than_there_are_are_all() -> None:
    assert set(found(50, only=["c1", "c6"]).used) == {"c1", "c6"}
    assert found(2, only=["c0", "c2", "c3"]).size == 2
    assert set(found(3, only=["c0", "c2"]).used) <= {"c0", "c2"}


def test_a_result_is_read_as_it_was_written(tmp_path: Any) -> None:
    one = found()
    read = Result.load(one.save(tmp_path / "one.json"))
    assert isinstance(read, ConceptExplanation)
    torch.testing.assert_close(read.weights, one.weights)
    assert read.used == one.used
    assert list(one.figure().data[0].x) == one.used
    assert "3 of 8 concepts" in repr(one)
    assert "c4" in one._repr_html_()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, "size=0 must be a whole number of at least 1"),
        ({"inputs": "pixels"}, "inputs='pixels' is unknown"),
        ({"target": "logit"}, "did you mean 'logits'"),
        ({"only": ["c9"]}, "only='c9' is unknown"),
        ({"only": []}, r"only=\[\] must be names of concepts"),
        ({"only": "c1"}, "only='c1' must be names of concepts"),
        ({"images": images().only(["c1", "c2"])}, "images have the concepts c1, c2, the heads c0"),
        ({"model": torch.nn.Linear(2, 2)}, "layer='0' is unknown"),
        ({"model": len}, "model must be a torch module"),
        ({"memory": 1}, "memory=1 must be"),
        ({"seed": 1}, "keyword of explain='seed' is unknown"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    given = {"model": network(), "heads": true_heads(), "images": images(), "size": 2, **settings, **QUIET}
    with pytest.raises(InputError, match=words) as caught:
        explain(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sizes": []}, "sizes is empty"),
        ({"sizes": [0]}, r"sizes\[0\]=0"),
        ({"inputs": "logits"}, "inputs='logits' must be some of"),
        ({"targets": []}, r"targets=\[\] must be some of"),
        ({"targets": ["x"]}, "targets='x' is unknown"),
        ({"n_random": -1}, "n_random=-1"),
    ],
)
def test_combinations_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        explain_all(network(), true_heads(), images(), **{"sizes": [1], **settings}, **QUIET)

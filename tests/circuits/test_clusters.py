"""Clusters of points: found again where they are there, not where there is one cloud; the test keeps its level."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.clusters import (
    STEADY,
    adjusted_rand,
    apart,
    clustered,
    distance,
    found_again,
    halves_apart,
    one_cluster,
    points_of,
)  # fmt: skip

N, ELEMENTS = 24, 200


def cloud(kind: str, seed: int) -> np.ndarray:
    """Scores of 24 prompts: a common part, noise, and what the kind of cloud says."""
    rng = np.random.default_rng(seed)
    scores = 2 * rng.standard_normal(ELEMENTS) + rng.standard_normal((N, ELEMENTS))
    if kind in ("two", "three"):
        scores[:10] += 1.5 * rng.standard_normal(ELEMENTS)
    if kind == "three":
        scores[10:16] += 1.5 * rng.standard_normal(ELEMENTS)
    if kind == "line":
        scores += rng.standard_normal((N, 1)) * rng.standard_normal(ELEMENTS)
    return scores


def strengths(kind: str, seed: int) -> dict[int, float]:
    points, rng = points_of(cloud(kind, seed)), np.random.default_rng(seed)
    return {k: found_again(points, k, rng) for k in (2, 3, 4)}


def test_inner_products_of_points_are_cosines_of_scores():
    scores = cloud("two", 0)
    points = points_of(scores)
    expected = np.corrcoef(np.concatenate([scores, -scores], 1))[:N, :N]  # of rows whose mean is 0
    np.testing.assert_allclose(points @ points.T, expected, atol=1e-12)
    assert points.shape[1] <= N


@pytest.mark.parametrize("seed", range(3))
def test_what_was_put_in_is_found_and_noise_is_not(seed: int):
    assert clustered(points_of(cloud("two", seed)), 2).tolist() == [1] * 10 + [0] * 14
    assert clustered(points_of(cloud("three", seed)), 3).tolist() in (
        [0] * 10 + [2] * 6 + [1] * 8, [0] * 10 + [1] * 6 + [2] * 8,
    )  # fmt: skip
    two, three = strengths("two", seed), strengths("three", seed)
    assert max(two, key=lambda k: two[k]) == 2
    assert two[2] >= STEADY
    assert max(three, key=lambda k: three[k]) == 3
    assert three[3] >= STEADY
    assert max(abs(one) for one in strengths("one", seed).values()) < 0.2


def test_the_order_of_prompts_only_moves_labels():
    points, order = points_of(cloud("two", 1)), np.random.default_rng(0).permutation(N)
    assert clustered(points[order], 2).tolist() == clustered(points, 2)[order].tolist()


def test_clusters_of_a_known_distance():
    one, other = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 3.0], [0.0, 1.0]])
    assert distance(one, other) == pytest.approx(1)
    assert distance(one, -one) == pytest.approx(2)
    assert halves_apart(one, np.random.default_rng(0)) == pytest.approx(0)
    assert apart(points_of(cloud("two", 0)), np.array([1] * 10 + [0] * 14), np.random.default_rng(0)) > 3


def test_adjusted_rand_by_hand():
    # pairs that both put together, that either does, and all of six
    first, second = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    both, rows, columns, pairs = 1 + 1, 3 + 3, 1 + 1 + 1, 15
    expected = rows * columns / pairs
    assert adjusted_rand(first, second) == pytest.approx((both - expected) / ((rows + columns) / 2 - expected))
    assert adjusted_rand(first, np.zeros(6, dtype=int)) == pytest.approx(0)
    assert adjusted_rand(np.zeros(4, dtype=int), np.zeros(4, dtype=int)) == 1


def test_two_clusters_are_told_from_one_cloud_that_was_cut_in_two():
    def p(kind: str, seed: int) -> float:
        points = points_of(cloud(kind, seed))
        return one_cluster(points, clustered(points, 2), 39, np.random.default_rng(seed))

    assert max(p("two", seed) for seed in range(3)) <= 0.1
    rejected = [p(kind, seed) <= 0.1 for kind in ("one", "line") for seed in range(6)]
    assert sum(rejected) <= 3  # 12 draws at a level of .1: more than 3 come up once in forty

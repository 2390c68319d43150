"""Clusters of prompts by their scores: how many there are, and whether one alone would look the same.

Pure functions of arrays. Prompts are points `[n, axis]` whose inner products are the cosines of their scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

Points = NDArray[np.float64]  # [n, axis]
Labels = NDArray[np.int64]  # [n], from 0 on
STEADY = 0.8  # adjusted Rand index from which on clusters count as found again
DRAWS = 20  # of halves
_NOTHING = 1e-10  # of the largest eigenvalue


def points_of(scores: NDArray[np.floating]) -> Points:
    """Prompts as points, from their scores `[n, element]`, each divided by its length: at most n axes are needed."""
    rows = scores.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = values > _NOTHING * values[-1]
    points: Points = vectors[:, kept] * np.sqrt(values[kept])
    return points


def clustered(points: Points, k: int) -> Labels:
    """The clusters of k-means, started from Ward's tree; deterministic. The largest cluster is 0.

    >>> clustered(np.array([[0.0], [5.0], [5.1], [5.2]]), 2).tolist()
    [1, 0, 0, 0]
    """
    if k == 1:
        return np.zeros(len(points), dtype=np.int64)
    start = fcluster(linkage(points, "ward"), k, "maxclust")
    centres = np.stack([points[start == one].mean(0) for one in np.unique(start)])
    _, labels = kmeans2(points, centres, minit="matrix", iter=50)
    names, counts = np.unique(labels, return_counts=True)
    rank = {name: place for place, name in enumerate(names[np.argsort(-counts, kind="stable")])}
    return np.array([rank[one] for one in labels], dtype=np.int64)


def found_again(points: Points, k: int, rng: np.random.Generator, draws: int = DRAWS) -> float:
    """How well `k` clusters of one half of the prompts are those of the other half; 1: the same, 0: as by chance.

    Each half is clustered, its prompts are also given to the nearest cluster of the other half, and the adjusted Rand
    index compares; the mean over random halves, each taken both ways. (Prediction strength of Tibshirani and Walther
    2005 is not corrected for chance: it is high where noise puts nearly all prompts into one cluster.)
    """
    found = []
    for _ in range(draws):
        order = rng.permutation(len(points))
        one, other = points[order[: len(points) // 2]], points[order[len(points) // 2 :]]
        found += [_alike(one, other, k), _alike(other, one, k)]
    return float(np.mean(found))


def _alike(known: Points, new: Points, k: int) -> float:
    labels = clustered(known, k)
    centres = np.stack([known[labels == one].mean(0) for one in np.unique(labels)])
    return adjusted_rand(clustered(new, k), cdist(new, centres).argmin(1))


def adjusted_rand(first: Labels, second: Labels) -> float:
    """Agreement of two clusterings, corrected for chance (Hubert and Arabie 1985); 1 where both are one cluster.

    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    1.0
    """
    counts = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(counts, (first, second), 1)
    both, one, other = (float(_pairs(part).sum()) for part in (counts, counts.sum(1), counts.sum(0)))
    expected, most = one * other / _pairs(len(first)), (one + other) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def _pairs(n: Any) -> Any:
    return n * (n - 1) / 2


def distance(first: Points, second: Points) -> float:
    """One minus the cosine of the mean scores of some prompts and of others.

    >>> distance(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0], [0.0, 1.0]]))
    1.0
    """
    one, other = first.mean(0), second.mean(0)
    return float(1 - one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def halves_apart(points: Points, rng: np.random.Generator, draws: int = DRAWS) -> float:
    """The mean distance of two random halves of some prompts."""
    half = len(points) // 2
    orders = [rng.permutation(len(points)) for _ in range(draws)]
    return float(np.mean([distance(points[order[:half]], points[order[half:]]) for order in orders]))


def apart(points: Points, labels: Labels, rng: np.random.Generator) -> float:
    """How many times as far from each other two clusters are as halves of one of them (the mean of both)."""
    parts = [points[labels == one] for one in np.unique(labels)]
    within = np.mean([halves_apart(one, rng) for one in parts if len(one) > 1])
    return distance(*parts) / float(within)


def one_cluster(points: Points, labels: Labels, draws: int, rng: np.random.Generator) -> float:
    """P-value of two clusters that are as far apart, measured by their halves, as these, where there is one.

    Clusters always differ by more than chance halves of the same prompts: they were made so. The null is therefore
    one normal cloud of the same mean and covariance, clustered in two the same way (as in Liu et al. 2008, SigClust).
    """
    seen, middle = apart(points, labels, rng), points.mean(0)
    _, spread, axes = np.linalg.svd(points - middle, full_matrices=False)
    spread /= np.sqrt(len(points) - 1)
    above = 0
    for _ in range(draws):
        drawn = middle + (rng.standard_normal((len(points), len(spread))) * spread) @ axes
        above += apart(drawn, clustered(drawn, 2), rng) >= seen
    return (1 + above) / (1 + draws)

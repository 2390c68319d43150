"""Rules that vote, majorities of them, and how well the best of all does by chance: pure functions of arrays.

a rule (layer, neuron, largest or smallest) votes for the candidate at which that neuron's activation is so
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

Votes = NDArray[np.int8]
_AT_ONCE = 4096  # neurons whose votes are counted together


def votes_of(neurons: Float[np.ndarray, "n candidate unit"]) -> Int[np.ndarray, "n rule"]:
    """Each rule's vote: rules of the largest activation first, then those of the smallest. Of a tie: the first."""
    return np.concatenate((neurons.argmax(1), neurons.argmin(1)), 1).astype(np.int8)


def accuracies(votes: Int[np.ndarray, "n rule"], truth: Int[np.ndarray, " n"]) -> Float[np.ndarray, " rule"]:
    """The share of questions on which each rule is right."""
    found = np.empty(votes.shape[1])
    for first in range(0, votes.shape[1], _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        found[some] = (votes[:, some] == truth[:, None]).mean(0)
    return found


def best_rules(votes: Int[np.ndarray, "n rule"], truth: Int[np.ndarray, " n"], most: int) -> Int[np.ndarray, " most"]:
    """The `most` rules that are right most often, the best first; of equals the first."""
    order: np.ndarray = np.argsort(-accuracies(votes, truth), kind="stable")[:most]
    return order


def majority(votes: Int[np.ndarray, "n voter"], count: int) -> Int[np.ndarray, " n"]:
    """The candidate of the `count` that most voters want; of a tie the first of these."""
    wanted: np.ndarray = np.stack([(votes == candidate).sum(1) for candidate in range(count)], 1).argmax(1)
    return wanted


def folds_of(groups: Int[np.ndarray, " n"], folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """The fold of each question, groups whole, in sizes as equal as groups allow."""
    names = np.unique(groups)
    fold = np.empty(groups.max() + 1, dtype=np.int64)
    fold[np.random.default_rng(seed).permutation(names)] = np.arange(len(names)) % folds
    found: np.ndarray = fold[groups]
    return found


def splits(
    folds: Int[np.ndarray, " n"], among: Bool[np.ndarray, " n"]
) -> Iterator[tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]]:
    """Of each fold who is outside (to learn from) and who is inside (to judge), of some questions alone."""
    for fold in np.unique(folds[among]):
        yield among & (folds != fold), among & (folds == fold)


def chosen_size(
    votes: Int[np.ndarray, "n rule"],
    truth: Int[np.ndarray, " n"],
    folds: Int[np.ndarray, " n"],
    among: Bool[np.ndarray, " n"],
    sizes: Sequence[int],
    count: int,
) -> int:
    """How many voters do best when chosen on other folds than they are judged on; of equals the fewest."""
    right = np.zeros(len(sizes))
    for learn, judge in splits(folds, among):
        order = best_rules(votes[learn], truth[learn], max(sizes))
        right += [(majority(votes[judge][:, order[:size]], count) == truth[judge]).sum() for size in sizes]
    return sizes[int(right.argmax())]


def drawn_truths(
    truth: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], count: int, draws: int, seed: int
) -> Iterator[Int[np.ndarray, " n"]]:
    """Labels under the null, that activations know nothing of truth: candidates of a group move on together."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield (truth + rng.integers(0, count, groups.max() + 1)[groups]) % count


def best_by_chance(
    votes: Int[np.ndarray, "n rule"],
    truth: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    count: int,
    draws: int,
    seed: int,
) -> Float[np.ndarray, " draw"]:
    """The accuracy of the best of all rules under each draw of labels, on the very questions it is chosen on."""
    return np.array([accuracies(votes, drawn).max() for drawn in drawn_truths(truth, groups, count, draws, seed)])

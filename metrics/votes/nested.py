"""Nested cross-validation: everything that is chosen (voters, their number, a probe's layer) is chosen inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from metrics.votes.probe import Grams, probe_guesses
from metrics.votes.rules import accuracies, best_rules, chosen_size, folds_of, majority, splits


@dataclass(frozen=True)
class Nested:
    """What was found on questions that chose nothing.

    Attributes:
        votes, probe: which questions a majority of voters, and a linear probe, get right: [n].
        folds: one row for each: what was chosen, how well the best rule did on the questions that chose it, and how
            well it and the majority did on the others.
        voters: the rules that voted in each fold.
    """

    votes: Bool[np.ndarray, " n"]
    probe: Bool[np.ndarray, " n"]
    folds: list[dict[str, Any]] = field(default_factory=list)
    voters: list[Int[np.ndarray, " voter"]] = field(default_factory=list)


def nested(
    votes: Int[np.ndarray, "n rule"],
    grams: Grams,
    truth: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    sizes: Sequence[int],
    folds: int,
    seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> Nested:
    """Judge each fold by what the others chose, in folds of their own; `advance` is called for each."""
    outer, inner = folds_of(groups, folds, seed), folds_of(groups, folds, seed + 1)
    found = Nested(np.zeros(len(truth), dtype=bool), np.zeros(len(truth), dtype=bool))
    for learn, judge in splits(outer, np.ones(len(truth), dtype=bool)):
        size = chosen_size(votes, truth, inner, learn, sizes, grams.count)
        voters = best_rules(votes[learn], truth[learn], size)
        found.votes[judge] = majority(votes[judge][:, voters], grams.count) == truth[judge]
        guessed, layer, penalty = probe_guesses(grams, truth, inner, learn)
        found.probe[judge] = guessed == truth[judge]
        best = voters[:1]
        found.folds.append(
            {
                "questions": int(judge.sum()),
                "voters": size,
                "best_chosen": float(accuracies(votes[learn][:, best], truth[learn])[0]),
                "best_judged": float(accuracies(votes[judge][:, best], truth[judge])[0]),
                "votes_judged": float(found.votes[judge].mean()),
                "probe_layer": layer,
                "probe_penalty": penalty,
                "probe_judged": float(found.probe[judge].mean()),
            }
        )
        found.voters.append(voters)
        advance(1)
    return found

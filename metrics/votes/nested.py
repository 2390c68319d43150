"""Nested cross-validation: everything that is chosen (voters, their number, a probe's layer) is chosen inside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metrics.votes.probe import Grams, probe_guesses
from metrics.votes.rules import accuracies, best_rules, chosen_size, folds_of, majority, splits

_FIGURES: dict[str, type[int] | type[float]] = {
    "questions": int, "voters": int, "best_chosen": float, "best_judged": float, "votes_judged": float,
    "probe_layer": int, "probe_penalty": float, "probe_judged": float,
}  # fmt: skip


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

    @classmethod
    def nothing(cls, n: int, folds: int, most: int) -> dict[str, Tensor]:
        """What a file holds of `n` questions, `folds` and at most so many voters in the beginning."""
        return {
            "judged": torch.tensor(0, device="cpu"),
            "votes": torch.zeros(n, dtype=torch.bool, device="cpu"),
            "probe": torch.zeros(n, dtype=torch.bool, device="cpu"),
            "folds": torch.zeros(folds, len(_FIGURES), dtype=torch.float64, device="cpu"),
            "voters": torch.full((folds, most), -1, dtype=torch.long, device="cpu"),
        }

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Nested:
        """What a file holds; copies."""
        done = int(state["judged"])
        folds = [
            {name: kind(value) for (name, kind), value in zip(_FIGURES.items(), row, strict=True)}
            for row in state["folds"][:done].tolist()
        ]
        voters = [row[row >= 0].numpy().copy() for row in state["voters"][:done]]
        return cls(state["votes"].numpy().copy(), state["probe"].numpy().copy(), folds, voters)

    def tensors(self, nothing: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same for a file that began with `nothing`."""
        found = {name: one.clone() for name, one in nothing.items()}
        found["judged"] = torch.tensor(len(self.folds), device="cpu")
        found["votes"], found["probe"] = torch.from_numpy(self.votes.copy()), torch.from_numpy(self.probe.copy())
        for number, (fold, voters) in enumerate(zip(self.folds, self.voters, strict=True)):
            found["folds"][number] = torch.tensor([fold[name] for name in _FIGURES], dtype=torch.float64, device="cpu")
            found["voters"][number, : len(voters)] = torch.from_numpy(np.asarray(voters))
        return found


def nested(
    votes: Int[np.ndarray, "n rule"],
    grams: Grams,
    truth: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    sizes: Sequence[int],
    folds: int,
    seed: int,
    found: Nested,
    hear: Callable[[Nested], None] = lambda found: None,
) -> Nested:
    """Judge each fold by what the others chose, in folds of their own.

    `found` holds those that are judged already, and `hear` is told of it behind each further one.
    """
    outer, inner = folds_of(groups, folds, seed), folds_of(groups, folds, seed + 1)
    each = splits(outer, np.ones(len(truth), dtype=bool))
    for learn, judge in itertools.islice(each, len(found.folds), None):
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
        hear(found)
    return found

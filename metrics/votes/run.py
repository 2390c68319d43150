"""`value_votes`: votes of value vectors for the true candidate, in nested cross-validation, with what chance gives."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from interp import numbers, ranks
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.interval import Estimate, Interval, IntervalKeywords
from interp.kernels.neurons import widths
from interp.keywords import check_keywords
from interp.resumed import Resumed
from interp.run import Run, RunKeywords
from interp.running import door
from interp.tasks.groups import read_groups
from interp.tasks.task import Task
from metrics.statistics import bootstrapped, share
from metrics.votes.candidates import Candidates, Held
from metrics.votes.nested import Nested, nested
from metrics.votes.probe import Grams
from metrics.votes.result import WAYS, ValueVotes
from metrics.votes.rules import accuracies, best_by_chance, votes_of

_SIZES = (1, 3, 11, 31, 101, 301, 1001)


class VoteKeywords(RunKeywords, IntervalKeywords, total=False):
    """The keywords of `value_votes`."""


@numbers.checked(folds=numbers.Limits(2), permutations=numbers.COUNT)
@door
def value_votes(
    model: Any,
    questions: Task,
    *,
    groups: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    folds: int = 5,
    permutations: int = 200,
    resume: str | os.PathLike[str] | None = None,
    **keywords: Unpack[VoteKeywords],
) -> ValueVotes:
    """Let neurons vote for the true candidate ("TruthV", arXiv:2509.17932), without training.

    An MLP adds up its value vectors, MLP(x) = sum_i m_i(x) v_i. m_i is read at the last token of question and
    candidate, and each rule (layer, i, largest or smallest) votes for the candidate at which m_i is so. The rules that
    are right most often on a support set are kept, and their majority decides on other questions. Of 2 x layers x d_mlp
    rules some win by chance, so everything is chosen inside: voters, and how many, in folds of the questions that are
    not judged; and labels are drawn anew to see what the best rule gets when nothing is there. Beside it, on the same
    questions: the candidates' log-likelihood, and a linear probe (ridge regression on the residual stream, layer and
    penalty chosen inside).

    Args:
        model: what `interp.load_model` returns.
        questions: a `Task` whose prompts have one correct answer and equally many incorrect ones each: candidates.
        groups: a number for each question; those of one group stay in one fold, and labels are drawn for them together
            (`tasks.truth`: `[i // 2 for i in range(n)]`). None: each question by itself.
        sizes: numbers of voters to choose from; odd ones, so that two candidates do not tie. None: 1 to 1,001, each
            about three times the last.
        folds: of the questions, outside and inside.
        permutations: draws of the labels.
        resume: a file that holds what was read of candidates and the folds that were judged; started again with it, an
            interrupted run goes on. As large as the memory below.
        **keywords: `batch_size`, `memory`, `quiet` (`interp.run.Run`); `confidence`, `resamples` of the intervals,
            `seed` of these, of folds, of draws and of the candidates' order.

    Returns:
        `ValueVotes`: `.accuracy`, `.ahead`, `.folds`, `.voters`, `.best`, `.by_chance`, `.p`.

    Cost: a forward pass for each candidate. Memory: 4 bytes for each candidate and neuron.

    Raises:
        InputError: questions with several correct or unequally many answers, too few groups for the folds, sizes below
            one or above the number of rules, a damaged or foreign `resume`.
    """
    check_keywords("value_votes", keywords, VoteKeywords)
    started, interval = time.perf_counter(), Interval.of(keywords)
    if ranks.count() > 1:
        raise InputError("value_votes runs in one process; start it without torchrun")
    counts = widths(anatomy_of(model))
    n_rules = 2 * sum(counts)
    chosen = _sizes(sizes, n_rules)
    together = read_groups(groups, len(questions))
    if folds > together.max() + 1:
        raise InputError(f"folds={folds} needs as many groups of questions; there are {together.max() + 1}")
    run = Run.of(keywords)
    candidates = Candidates.of(model, questions, interval.seed)
    told = {"seed": interval.seed, "folds": folds, "sizes": list(chosen), "task": questions.to_dict()["sha256"]}
    unjudged = Nested.nothing(len(questions), folds, chosen[-1])
    file = Resumed(
        resume,
        {**Held.nothing(anatomy_of(model), candidates), **unjudged},
        {"what": "value_votes", **told, "groups": together.tolist(), "weights": anatomy_of(model).weights_digest()},
    )
    exist = (np.arange(max(counts)) < np.array(counts)[:, None]).ravel()
    places = np.flatnonzero(exist)
    try:
        held = Held.of(model, candidates, run, file)
        votes, truth, done = votes_of(held.neurons[..., exist]), candidates.truth, Nested.of(file.state)
        with run.progress("choosing voters", folds) as bar:
            bar.advance(len(done.folds))

            def hear(found: Nested) -> None:
                file.put(**{**file.state, **found.tensors(unjudged)})
                bar.advance(1)

            grams = Grams.of(held.states, truth)
            found = nested(votes, grams, truth, together, chosen, folds, interval.seed, done, hear)
    finally:
        file.save()
    right = dict(zip(WAYS, (found.votes, found.probe, *_by_likelihood(held, candidates)), strict=True))
    by_chance = best_by_chance(votes, truth, together, candidates.count, permutations, interval.seed)
    each = accuracies(votes, truth)
    return ValueVotes(
        accuracy={way: _share(one, together, interval) for way, one in right.items()},
        ahead={way: _ahead(right["votes"], right[way], together, interval) for way in WAYS[1:]},
        right=right,
        folds=pd.DataFrame(found.folds),
        voters=_voters(found.voters, each, places, held.d_mlp),
        best=float(each.max()),
        by_chance=by_chance,
        p=float((1 + (by_chance >= each.max()).sum()) / (1 + permutations)),
        n_rules=n_rules,
        n_candidates=candidates.count,
        model=anatomy_of(model).name,
        seconds=time.perf_counter() - started,
        settings=told,
    )


def _sizes(sizes: Sequence[int] | None, n_rules: int) -> tuple[int, ...]:
    if sizes is None:
        return tuple(size for size in _SIZES if size <= n_rules)
    found = tuple(sorted(numbers.many("sizes", sizes, numbers.whole, numbers.Limits(1, n_rules))))
    if not found:
        raise InputError("sizes is empty; give at least one number of voters, or None for the usual ones")
    return found


def _by_likelihood(held: Held, candidates: Candidates) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Which questions the candidates' log-probabilities get right: summed over tokens, and their mean."""
    summed = held.log_probabilities
    per_token = summed / candidates.lengths
    return summed.argmax(1) == candidates.truth, per_token.argmax(1) == candidates.truth


def _mean(
    values: np.ndarray, groups: Int[np.ndarray, " n"], interval: Interval, possible: tuple[float, float]
) -> Estimate:
    """The mean over questions, with the interval of resampled groups."""
    sums_and_sizes = np.stack([np.bincount(groups, values.astype(np.float64)), np.bincount(groups)])
    (found,) = bootstrapped(sums_and_sizes, lambda m: m[:, :1] / m[:, 1:], interval, possible)
    return found


def _share(right: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"], interval: Interval) -> Estimate:
    """The share of right answers: Wilson's interval where questions stand alone, else groups are resampled."""
    if groups.max() + 1 == len(right):
        return share(right, interval.confidence)
    return _mean(right, groups, interval, (0.0, 1.0))


def _ahead(
    one: Bool[np.ndarray, " n"], other: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"], interval: Interval
) -> Estimate:
    return _mean(one.astype(np.float64) - other, groups, interval, (-1.0, 1.0))


def _voters(
    voters: Sequence[Int[np.ndarray, " voter"]], each: np.ndarray, places: Int[np.ndarray, " unit"], d_mlp: int
) -> pd.DataFrame:
    """The rules that voted in some fold, those of the most folds first."""
    rules, folds = np.unique(np.concatenate(voters), return_counts=True)
    place = places[rules % len(places)]
    frame = pd.DataFrame(
        {
            "layer": place // d_mlp,
            "neuron": place % d_mlp,
            "largest": rules < len(places),
            "folds": folds,
            "accuracy": each[rules],
        }
    )
    return frame.sort_values(["folds", "accuracy"], ascending=False, kind="stable", ignore_index=True)

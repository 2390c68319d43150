"""`metrics.value_votes`: votes by hand, nested choices, a null that holds, and bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import Ridge

from interp import Run, Task
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.result import Result
from interp.resumed import Resumed
from metrics import ValueVotes, value_votes
from metrics.votes import candidates as candidates_read
from metrics.votes import nested as nested_choices
from metrics.votes.candidates import Candidates, Held
from metrics.votes.probe import PENALTIES, Grams, probe_guesses
from metrics.votes.rules import (
    accuracies,
    best_by_chance,
    best_rules,
    chosen_size,
    drawn_truths,
    folds_of,
    majority,
    splits,
    votes_of,
)
from tests.planted_neurons import ASKS_NO, ASKS_YES, PLANTED, planted_model, planted_questions
from tests.tiny import LAYERS, MLP, shared, tiny_task

EVERYTHING = np.ones(12, dtype=bool)


# ---- rules, by hand


def test_each_rule_votes_for_the_largest_or_the_smallest_and_for_the_first_of_equals():
    neurons = np.array([[[1.0, 5.0, 2.0], [3.0, 4.0, 2.0], [2.0, 4.0, 2.0]]])
    assert votes_of(neurons).tolist() == [[1, 0, 0, 0, 1, 0]]


def test_accuracies_and_the_best_rules_are_counted():
    truth = np.array([0, 1, 1, 0])
    votes = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]], dtype=np.int8)
    assert accuracies(votes, truth).tolist() == [1.0, 0.25, 0.5, 0.75]
    assert best_rules(votes, truth, 3).tolist() == [0, 3, 2]


def test_a_majority_is_the_candidate_that_most_want():
    votes = np.array([[0, 1, 1], [2, 2, 0], [0, 1, 2]], dtype=np.int8)
    assert majority(votes, 3).tolist() == [1, 2, 0]


def test_folds_hold_groups_whole_and_every_question_is_judged_once():
    groups = np.repeat(np.arange(6), 2)
    folds = folds_of(groups, 3, seed=0)
    assert (folds[::2] == folds[1::2]).all()
    assert np.bincount(folds).tolist() == [4, 4, 4]
    among = EVERYTHING.copy()
    among[:4] = False
    judged = np.zeros(12, dtype=int)
    for learn, judge in splits(folds, among):
        assert not (learn & judge).any()
        assert ((learn | judge) == among).all()
        judged += judge
    assert (judged == among).all()
    assert not (folds == folds_of(groups, 3, seed=1)).all()


def test_the_number_of_voters_is_the_one_that_does_best_elsewhere():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 2, 60), np.arange(60)
    # eleven rules that are right four times in five, each on its own; alone they are worse than together
    good = np.where(rng.random((60, 11)) < 0.8, truth[:, None], 1 - truth[:, None])
    votes = np.concatenate((good, rng.integers(0, 2, (60, 20))), 1).astype(np.int8)
    folds = folds_of(groups, 5, seed=0)
    assert chosen_size(votes, truth, folds, np.ones(60, dtype=bool), (1, 9), 2) == 9
    perfect = np.concatenate((truth[:, None], votes), 1).astype(np.int8)
    assert chosen_size(perfect, truth, folds, np.ones(60, dtype=bool), (1, 31), 2) == 1


def test_by_chance_the_best_of_many_rules_is_what_the_binomial_says():
    rng = np.random.default_rng(1)
    votes = rng.integers(0, 2, (40, 300)).astype(np.int8)
    drawn = best_by_chance(votes, rng.integers(0, 2, 40), np.arange(40), 2, draws=300, seed=0)
    hits = np.arange(41)
    most = np.diff(binom.cdf(hits, 40, 0.5) ** 300, prepend=0.0)  # the most of 300 independent rules
    assert drawn.mean() == pytest.approx((most * hits).sum() / 40, abs=0.006)


def test_labels_are_drawn_for_whole_groups_and_each_is_as_likely():
    truth, groups = np.array([0, 2, 1, 1]), np.array([0, 0, 1, 1])
    drawn = np.stack([*drawn_truths(truth, groups, 3, 3000, seed=0)])
    shifts = (drawn - truth) % 3
    assert (shifts[:, 0] == shifts[:, 1]).all()
    assert (shifts[:, 2] == shifts[:, 3]).all()
    counts = [((shifts[:, 0] == a) & (shifts[:, 2] == b)).mean() for a, b in itertools.product(range(3), repeat=2)]
    assert counts == pytest.approx([1 / 9] * 9, abs=0.03)


# ---- the probe, against another implementation


def test_the_probe_is_ridge_regression_on_candidates_less_their_mean():
    rng = np.random.default_rng(2)
    states, truth = rng.normal(size=(12, 3, 2, 5)), rng.integers(0, 3, 12)
    learn = np.arange(12) < 8
    grams = Grams.of(states, truth)
    for layer in range(2):
        rows = (states - states.mean(1, keepdims=True))[:, :, layer]
        labels = (np.arange(3) == truth[:, None]) - 1 / 3
        scale = (rows**2).sum() / 36
        for number, penalty in enumerate(PENALTIES):
            ridge = Ridge(alpha=penalty * scale, fit_intercept=False)
            ridge.fit(rows[learn].reshape(-1, 5), labels[learn].ravel())
            expected = ridge.predict(rows[~learn].reshape(-1, 5)).reshape(-1, 3).argmax(1)
            assert (grams.guesses(learn, ~learn, layer)[number] == expected).all()


def test_the_probe_finds_the_layer_that_knows():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 60)
    states = rng.normal(size=(60, 2, 3, 8)).astype(np.float32)
    states[np.arange(60), truth, 1] += 3 * rng.normal(size=8)  # a direction that true candidates have in layer 1
    guessed, layer, _ = probe_guesses(Grams.of(states, truth), truth, folds_of(np.arange(60), 4, 0), np.arange(60) < 40)
    assert layer == 1
    assert (guessed == truth[40:]).mean() > 0.9


# ---- what is read of a model


def test_what_is_read_is_what_the_module_holds_at_the_last_token():
    model = shared("llama")
    task = Task.from_pairs("t", [((4, 5, 6), None, [(8, 9)], [(9,)]), ((9, 7), None, [3], [(4, 4, 4)])])
    candidates = Candidates.of(model, task, seed=0)
    held = Held.of(model, candidates, Run(quiet=True), Resumed(None, Held.nothing(anatomy_of(model), candidates), {}))
    by_truth = {(0, True): (8, 9), (0, False): (9,), (1, True): (3,), (1, False): (4, 4, 4)}
    module = model.original_model
    for number, prompt in enumerate(((4, 5, 6), (9, 7))):
        for place in range(2):
            answer = by_truth[number, place == candidates.truth[number]]
            assert candidates.rows[2 * number + place] == [*prompt, *answer]
            seen = {}
            handles = [
                block.mlp.down_proj.register_forward_pre_hook(
                    lambda _, given, layer=layer, seen=seen: seen.__setitem__(layer, given[0][0, -1])
                )
                for layer, block in enumerate(module.model.layers)
            ]
            out = module(torch.tensor([[*prompt, *answer]]), output_hidden_states=True)
            [handle.remove() for handle in handles]
            neurons = torch.stack([seen[layer] for layer in range(LAYERS)]).flatten().detach().numpy()
            assert np.allclose(held.neurons[number, place], neurons, atol=1e-5)
            assert np.allclose(held.states[number, place, 0], out.hidden_states[1][0, -1].detach(), atol=1e-5)
            logits = out.logits[0].log_softmax(-1)
            by_hand = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
            assert held.log_probabilities[number, place] == pytest.approx(by_hand, abs=1e-6)
    assert candidates.lengths.sum() == 2 + 1 + 1 + 3


# ---- the whole


@pytest.fixture(scope="module")
def planted_votes():
    return value_votes(
        planted_model(), _with_candidates(40), sizes=(1, 3, 5), folds=4, permutations=50, quiet=True, resamples=200
    )


def _with_candidates(n):
    """The planted questions turned round: candidates are the tokens that neurons read, one of them the true one."""
    rows = [example.clean[:-1] for example in planted_questions(n).examples]
    return Task.from_pairs("candidates", [(row, None, [ASKS_YES], [ASKS_NO]) for row in rows])


def test_planted_neurons_vote_for_what_is_true(planted_votes):
    found = planted_votes
    assert found.accuracy["votes"].value == 1.0
    assert found.accuracy["votes"].low > 0.9
    assert found.best == 1.0
    voters = {(row.layer, row.neuron) for row in found.voters.itertuples() if row.largest}
    assert set(PLANTED) & voters
    assert found.p == pytest.approx(1 / 51)
    assert found.n_rules == 2 * LAYERS * MLP
    assert found.chance == 0.5


def test_where_nothing_is_true_votes_do_no_better_than_guessing_though_the_best_rule_seems_to():
    model = shared("llama")
    found = value_votes(
        model, tiny_task(model, 60, seed=3), sizes=(1, 3, 11), folds=4, permutations=100, quiet=True, resamples=200
    )
    assert found.accuracy["votes"].low < 0.5
    assert found.best > 0.6
    assert found.p > 0.01
    assert found.folds["best_chosen"].mean() > found.folds["best_judged"].mean()
    right = found.right["votes"]
    assert found.accuracy["votes"].value == pytest.approx(right.mean())
    assert found.ahead["probe"].value == pytest.approx(right.mean() - found.right["probe"].mean())
    assert (found.right["likelihood"] == found.right["likelihood_per_token"]).all()  # one token each


def test_a_seed_gives_the_same_and_batches_change_nothing():
    model = shared("llama")
    task, groups = tiny_task(model, 12, ragged=True), [i // 2 for i in range(12)]
    told = {"groups": groups, "sizes": (1, 3), "folds": 3, "permutations": 10, "quiet": True, "resamples": 50}
    one, other, third = (value_votes(model, task, **told, **more) for more in ({}, {"batch_size": 2}, {"seed": 1}))
    assert one.accuracy == other.accuracy
    assert (one.by_chance == other.by_chance).all()
    assert one.voters.equals(other.voters)
    assert not one.folds.equals(third.folds)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    """Cut off while candidates are read, and again between folds."""
    model = shared("llama")
    task, file = tiny_task(model, 12, ragged=True), tmp_path / "votes"
    told = {"sizes": (1, 3), "folds": 3, "permutations": 10, "quiet": True, "resamples": 50}
    monkeypatch.setattr(candidates_read, "_TOGETHER", 10)
    whole = value_votes(model, task, **told)
    for place, name, calls in ((candidates_read, "last_tokens", 1), (nested_choices, "chosen_size", 2)):
        kept, left = getattr(place, name), iter(range(calls))

        def cut_off(*given, kept=kept, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return kept(*given)

        monkeypatch.setattr(place, name, cut_off)
        with pytest.raises(KeyboardInterrupt):
            value_votes(model, task, resume=file, **told)
        monkeypatch.setattr(place, name, kept)
    monkeypatch.setattr(candidates_read, "last_tokens", None)  # nothing is read again
    again = value_votes(model, task, resume=file, **told)
    assert again.folds.equals(whole.folds)
    assert again.voters.equals(whole.voters)
    assert again.accuracy == whole.accuracy
    with pytest.raises(InputError, match="belongs to another run"):
        value_votes(model, task, resume=file, **{**told, "seed": 1})


def test_a_result_is_kept_and_shown(planted_votes, tmp_path):
    found = planted_votes
    again = Result.load(found.save(tmp_path / "votes.json"))
    assert isinstance(again, ValueVotes)
    assert again.to_frame().equals(found.to_frame())
    assert again.folds.equals(found.folds)
    assert found.to_frame()["way"].tolist() == ["votes", "probe", "likelihood", "likelihood_per_token"]
    assert found.null_frame()["rules"].tolist() == [2 * LAYERS * MLP]
    assert len(found.figure().data[0].x) == 4
    assert "the best of 144 rules 1.000, by chance" in repr(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sizes": ()}, "sizes is empty"),
        ({"sizes": (0,)}, "sizes[0]=0"),
        ({"sizes": (145,)}, "sizes[0]=145"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 7}, "folds=7 needs as many groups of questions; there are 6"),
        ({"groups": [0] * 6, "folds": 2}, "there are 1"),
        ({"groups": [0, 1]}, "one entry for each of the 6 questions"),
        ({"permutations": 0}, "permutations=0"),
        ({"seeds": 1}, "keyword of value_votes='seeds' is unknown"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(given, sentence):
    model = shared("llama")
    with pytest.raises(InputError) as caught:
        value_votes(model, tiny_task(model, 6), quiet=True, **given)
    assert sentence in str(caught.value)


def test_questions_without_candidates_are_refused():
    model = shared("llama")
    several = Task.from_pairs("t", [((4, 5), None, [6], [7]), ((4, 6), None, [6, 8], [7])])
    with pytest.raises(InputError, match="question 1 has 2 correct and 1 incorrect answers"):
        value_votes(model, several, folds=2, quiet=True)
    uneven = Task.from_pairs("t", [((4, 5), None, [6], [7]), ((4, 6), None, [6], [7, 8])])
    with pytest.raises(InputError, match="questions have 2 to 3 answers"):
        value_votes(model, uneven, folds=2, quiet=True)

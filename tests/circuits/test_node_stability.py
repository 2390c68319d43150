"""Stability of circuits of nodes: against resamples that are scored anew, and sets that are counted by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import metrics
from attribution import EAP
from attribution.units.nodes import scores_of_nodes
from circuits import Stability, stability
from interp import InputError, Run, Setting
from interp.dictionaries.sets import DictionarySet
from interp.node_mask import NodeMask
from metrics.circuit.balance import Balanced
from metrics.circuit.elements import NodeElements
from metrics.statistics import resample
from tests.dictionaries import unequal
from tests.oracle import model_of
from tests.tiny import D_MODEL, LAYERS, MLP, behaving, tiny_task

QUIET: dict[str, Any] = {"quiet": True, "seed": 3}
UNITS = unequal(D_MODEL)
FEATURES: dict[str, Any] = {"dictionaries": UNITS, "errors": "nodes"}
N, RESAMPLES, SIZE = 10, 5, 4


@pytest.fixture(scope="module")
def model():
    return model_of("llama")


@pytest.fixture(scope="module")
def task(model):
    return behaving(model, N)


def largest(scores):
    """The names of the nodes of largest |score|, from the table of scores."""
    frame = scores.to_frame()
    frame = frame[frame["node"] != "input"]
    return set(frame["node"].head(SIZE))


def overlap(first, second):
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("level", ["neuron", "head", "node", "feature"])
def test_resamples_are_those_that_are_scored_anew(model, task, level):
    told = FEATURES if level == "feature" else {}
    found = stability(
        model, task, level=level, method="eap", nodes=SIZE, resamples=RESAMPLES, chunks=N, **told, **QUIET
    )
    setting = Setting(model, task, run=Run(quiet=True), features=DictionarySet(UNITS, "nodes") if told else None)

    def scored(chosen):
        return scores_of_nodes(setting.select(chosen), EAP(), level)

    order = np.random.default_rng(3).permutation(N)  # of prompts over chunks, of one each
    whole = scored(range(N))
    assert torch.allclose(found.scores.values, whole.values, atol=1e-12)
    again = [scored(order[chosen]) for chosen in resample(N, RESAMPLES, 3)]
    sets = [largest(one) for one in again]
    own = largest(whole)
    assert found.jaccard.value == pytest.approx(np.median([overlap(own, one) for one in sets]))
    pairs = [overlap(*pair) for pair in itertools.combinations(sets, 2)]
    assert found.pairs.value == pytest.approx(np.median(pairs))
    halves = []
    for seed in range(3, 3 + RESAMPLES):
        mixed = np.random.default_rng(seed).permutation(N)
        halves.append(overlap(*(largest(scored(order[part])) for part in (mixed[: N // 2], mixed[N // 2 :]))))
    assert found.halves.value == pytest.approx(np.median(halves))
    frame = found.to_frame()
    counts = {name: sum(name in one for one in sets) / RESAMPLES for name in set.union(*sets)}
    assert dict(zip(frame["node"], frame["frequency"], strict=True)) == pytest.approx(counts)
    assert set(frame.loc[frame["selected"], "node"]) == own & set(counts)
    share = SIZE / len(whole.to_frame().query("node != 'input'"))
    assert found.chance == pytest.approx(share / (2 - share))
    assert f"{SIZE} {level}s over {RESAMPLES} resamples" in repr(found)


def test_what_survives_is_a_circuit_of_nodes_that_can_be_run_and_kept(model, task, tmp_path):
    found = stability(model, task, level="neuron", method="eap", nodes=0.2, resamples=6, **QUIET)
    assert isinstance(found.mask, NodeMask)
    assert found.mask.n_nodes == found.edges == int(0.2 * LAYERS * MLP)
    steady = found.stable(0.8)
    assert torch.equal(steady.mask, found.frequency >= 0.8 - 1e-6)
    assert metrics.evaluate(model, task, steady, quiet=True).shape == (N,)
    again = Stability.load(found.save(tmp_path / "stability.json"))
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert torch.equal(again.mask.mask, found.mask.mask)
    assert "neurons" in found.figure().layout.title.subtitle.text


def test_a_share_that_nothing_reaches_is_said(model, task, caplog):
    found = stability(model, task, level="node", method="eap", nodes=2, resamples=6, **QUIET)
    assert found.stable(1.1).n_nodes == 0
    assert found.stable(1.1).mask[0]  # the input is always in
    assert "share=1.1 leaves no nodes" in caplog.text


def test_positions_and_other_selections(model):
    task = tiny_task(model, n=8)
    found = stability(model, task, level="neuron", positions=[2, 4], method="eap", nodes=9, resamples=3, **QUIET)
    assert found.frequency.shape == (LAYERS, 2, MLP)
    assert found.mask.spans == (2, 4)
    assert set(found.to_frame()["node"].str.split("@").str[1]) <= {"2", "4"}
    told: dict[str, Any] = {"level": "neuron", "method": "eap", "nodes": 9, "resamples": 3, **QUIET}
    balanced = stability(model, task, selection="balanced", **told)
    setting = Setting(model, task, run=Run(quiet=True))
    values = balanced.scores.values
    (mask,) = NodeElements(setting, "neuron").chosen(Balanced(), values, [9])
    assert torch.equal(balanced.mask.mask, mask.mask)
    anew = stability(model, task, ablation="mean", **told)
    assert np.isnan(anew.halves.value)  # every resample has means of its own
    chosen = task.select(resample(8, 3, 3)[1])
    once = scores_of_nodes(Setting(model, chosen, "mean", run=Run(quiet=True)), EAP(), "neuron")
    order = once.values.flatten().abs().argsort(descending=True)[:9]
    assert (anew.frequency.flatten()[order] > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 5}, "nodes is for circuits of nodes: give level="),
        ({"level": "neuron", "edges": 5}, "edges is for circuits of edges"),
        ({"level": "neuron", "nodes": 10**6}, "there are 72 neurons"),
        ({"level": "neurons"}, "did you mean 'neuron'"),
        ({"level": "neuron", "selection": "greedy"}, "selects edges"),
        ({"level": "feature"}, "needs dictionaries"),
        ({"level": "head", "positions": [3]}, "'mask-ig' and 'exact'"),
        ({"edges": 10**6}, "the graph has"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(model, settings, message):
    with pytest.raises(InputError, match=message):
        stability(model, tiny_task(model, n=8), method="eap", resamples=2, **settings, **QUIET)

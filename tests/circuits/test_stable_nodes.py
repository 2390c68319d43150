"""`find_circuit(level=..., stable=True)`: the nodes that resamples of the scoring prompts agree on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import metrics
from attribution import EAP
from attribution.units.nodes import scores_of_nodes
from circuits import Circuit, Stable, find_circuit, stability
from interp import InputError, Run, Setting
from interp.dictionaries.sets import DictionarySet
from metrics.statistics import resample
from tests.dictionaries import unequal
from tests.oracle import model_of
from tests.tiny import D_MODEL, LAYERS, MLP, behaving

QUIET: dict[str, Any] = {"quiet": True, "seed": 3, "method": "eap"}
UNITS = unequal(D_MODEL)
FEATURES: dict[str, Any] = {"dictionaries": UNITS, "errors": "nodes"}
N, SIZE = 12, 8


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return behaving(model, N)


@pytest.mark.parametrize("level", ["neuron", "head", "node", "feature"])
def test_nodes_of_a_size_are_those_that_resamples_scored_anew_agree_on(model: Any, task: Any, level: str) -> None:
    told = FEATURES if level == "feature" else {}
    stable = Stable(share=0.6, resamples=5)
    found = find_circuit(model, task, level=level, nodes=SIZE, selection="top-n", stable=stable, **told, **QUIET)
    scoring, _ = task.split(0.5, 3)  # of so few prompts each is a chunk
    features = DictionarySet(UNITS, "nodes") if told else None
    setting = Setting(model, scoring, run=Run(quiet=True), features=features)
    order = np.random.default_rng(3).permutation(N // 2)
    often: dict[str, int] = {}
    for chosen in resample(N // 2, 5, 3):
        frame = scores_of_nodes(setting.select(order[chosen]), EAP(), level).to_frame()
        for name in frame[frame["node"] != "input"]["node"].head(SIZE):
            often[name] = often.get(name, 0) + 1
    assert set(found.nodes) == {name for name, count in often.items() if count >= 3}
    about = found.report.stability
    assert (about["nodes_kept"], about["nodes_of_size"]) == (found.n_nodes, SIZE)
    assert about["frequency"] == {name: often[name] / 5 for name in found.nodes}
    assert f"{found.n_nodes} {level}s that at least 60% of 5 resamples put among their 8" in str(found.report)
    steady = stability(model, scoring, level=level, nodes=SIZE, **told, **{**QUIET, "resamples": 5}).stable(0.6)
    assert torch.equal(steady.mask, found.node_mask)


@pytest.mark.parametrize("selection", ["top-n", "balanced"])
def test_the_smallest_stable_circuit_reaches_the_goal(model: Any, task: Any, selection: str, tmp_path: Any) -> None:
    found = find_circuit(model, task, level="neuron", faithfulness=0.7, selection=selection, stable=True, **QUIET)
    ladder = {row["size"]: row for row in found.report.ladder}
    chosen = ladder[found.report.stability["nodes_of_size"]]
    assert chosen["nodes"] == found.n_nodes == found.report.nodes <= chosen["size"]
    assert chosen["faithfulness"] >= 0.7
    assert any(row["nodes"] < row["size"] for row in ladder.values())
    scoring, held_out = task.split(0.5, 3)
    for prompts, value in ((scoring, chosen["faithfulness"]), (held_out, found.report.faithfulness)):
        (own,) = metrics.faithfulness(metrics.measure(model, prompts, found, quiet=True))
        assert own.value == pytest.approx(value, rel=1e-6)
    assert found.provenance["stable_share"] == 0.75
    again = Circuit.load(found.save(tmp_path / "stable.json"))
    assert again.report == found.report
    assert torch.equal(again.node_mask, found.node_mask)


def test_positions_and_mean_ablations_are_resampled_too(model: Any) -> None:
    task = behaving(model, 8)
    found = find_circuit(
        model, task, level="neuron", nodes=30, positions="all", ablation="mean",
        stable=Stable(share=0.5, resamples=3), **{**QUIET, "method": "mask-ig", "steps": 1},
    )  # fmt: skip
    assert found.spans is not None
    assert found.node_mask.shape == (LAYERS, len(found.spans), MLP)
    assert 0 < found.n_nodes <= 30
    assert all("@" in name for name in found.report.stability["frequency"])


def test_where_resamples_agree_on_nothing_a_note_says_so(
    model: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuits import search

    monkeypatch.setattr(search, "selection_frequency", lambda drawn, rule: torch.zeros(drawn.scores.values.shape))
    found = find_circuit(model, task, level="neuron", nodes=SIZE, stable=True, **QUIET)
    assert found.n_nodes == 0
    assert "The circuit holds no neurons: none is selected by so many resamples" in str(found.report)


def test_resampling_refuses_what_it_refuses_for_edges(model: Any, task: Any) -> None:
    with pytest.raises(InputError, match="resume keeps the scores of one run"):
        find_circuit(model, task, level="head", nodes=2, stable=True, **{**QUIET, "method": "exact", "resume": "file"})

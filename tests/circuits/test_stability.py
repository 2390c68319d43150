"""Stability under resampled prompts: weighted chunks against real resamples, and what find_circuit keeps."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import metrics
from attribution import EdgePruning, Learned, Schedule, attribute
from attribution.edges.gradient import EAP, EAPIG
from attribution.edges.method import Method
from circuits import Circuit, Stability, Stable, find_circuit, stability
from circuits.resampling import ResampledScores, resampled_scores, selection_frequency, steady
from circuits.stable import jaccard
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.run import Run
from interp.selection import SELECTIONS, Selection, prune, top_n
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.balance import Balanced
from metrics.circuit.elements import EdgeElements
from metrics.statistics import resample
from tests.tiny import behaving, shared, tiny, tiny_task

N = 12


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return behaving(model, N)


def setting(model: Any, task: Task, ablation: str = "patch") -> Setting:
    return Setting(model, task, ablation, run=Run(quiet=True))


def edges_in(model: Any, task: Task, ablation: str = "patch") -> EdgeElements:
    return EdgeElements(setting(model, task, ablation))


@pytest.fixture(scope="module")
def drawn(model: Any, task: Task) -> ResampledScores:
    return resampled_scores(edges_in(model, task), EAPIG(), resamples=6, chunks=N, seed=2)


def test_chunks_are_mixed_into_what_scoring_the_resample_gives(model: Any, task: Task, drawn: ResampledScores) -> None:
    torch.testing.assert_close(drawn.scores.values, attribute(model, task, "eap-ig", quiet=True).values)
    assert drawn.scores.task == task.to_dict()
    order = np.random.default_rng(2).permutation(N)
    for number, chosen in enumerate(resample(N, 6, 2)):
        again = attribute(model, task.select(order[chosen]), "eap-ig", quiet=True)
        torch.testing.assert_close(drawn.values(number), again.values)


def test_chunks_of_unequal_size_weigh_by_their_prompts(model: Any, task: Task) -> None:
    found = resampled_scores(edges_in(model, task), EAP(), resamples=4, chunks=5, seed=0)
    assert sorted(found.sizes or ()) == [2, 2, 2, 3, 3]
    torch.testing.assert_close(found.scores.values, attribute(model, task, "eap", quiet=True).values)
    first, second = found.halves(0)  # type: ignore[misc]
    sizes = torch.tensor(found.sizes, dtype=torch.float64)
    order = np.random.default_rng(0).permutation(5).tolist()
    left = sum(sizes[order[:2]]) / N
    torch.testing.assert_close(left * first + (1 - left) * second, found.scores.values)


def test_mean_ablation_is_scored_anew(model: Any, task: Task) -> None:
    found = resampled_scores(edges_in(model, task, "mean"), EAP(), resamples=3, chunks=4, seed=1)
    again = task.select(resample(N, 3, 1)[2])
    torch.testing.assert_close(found.values(2), attribute(model, again, "eap", ablation="mean", quiet=True).values)
    assert found.halves(0) is None


def test_frequencies_count_the_resamples_that_select(drawn: ResampledScores) -> None:
    graph = drawn.scores.graph
    select = partial(top_n, graph=graph, n=60)
    masks = torch.stack([select(drawn.values(i)) for i in range(6)])
    frequency = selection_frequency(drawn, select)
    torch.testing.assert_close(frequency, masks.float().mean(0))
    assert torch.equal(steady(frequency, 1.0, drawn.scores), prune(masks.all(0), graph))
    assert torch.equal(steady(frequency, 0.5, drawn.scores), prune(masks.sum(0) >= 3, graph))


def test_stability_of_a_circuit(model: Any, task: Task) -> None:
    found = stability(model, task, method="eap", edges=60, resamples=8, quiet=True)
    scores = attribute(model, task, "eap", quiet=True)
    assert torch.equal(found.mask, scores.mask(60))
    assert 0 < found.jaccard.low <= found.jaccard.value <= found.jaccard.high <= 1
    assert found.jaccard.value > found.chance
    assert found.rank_correlation.value > 0.5
    assert found.halves.value <= found.jaccard.value  # half of the prompts, and no prompt in common
    frame = found.to_frame()
    assert frame["frequency"].is_monotonic_decreasing
    assert (frame["low"] <= frame["frequency"]).all()
    assert (frame["frequency"] <= frame["high"]).all()
    assert frame["selected"].sum() == found.mask.sum()
    assert torch.equal(found.stable(0.5), prune(found.frequency >= 0.5, scores.graph))
    assert "Jaccard with all prompts" in repr(found)
    assert "<table" in found._repr_html_()
    assert len(found.figure().data[0].x) == len(frame)


class Nothing(Selection):
    """Takes no edge at all."""

    name = "nothing"

    def mask(self, scores: torch.Tensor, graph: ComputationalGraph, n: int) -> torch.Tensor:
        return graph.edge_mask & False


@pytest.mark.parametrize(
    "selection",
    ["greedy", "connected", "program", "balanced", Balanced(steps=2), Learned(EdgePruning(schedule=Schedule(steps=2)))],
)
def test_every_selection_can_be_resampled(model: Any, task: Task, selection: str | Selection) -> None:
    found = stability(model, task, method=EAP(), edges=60, resamples=4, selection=selection, quiet=True)
    whole = setting(model, task)
    (rule,) = SELECTIONS.make(selection).rules(whole, EAP().scores(whole).values, [60])
    assert torch.equal(found.mask, rule(found.scores.values))
    assert 0 < found.jaccard.value <= 1


def test_it_is_kept_in_a_file(model: Any, task: Task, tmp_path: Path) -> None:
    found = stability(model, task, method="eap", edges=60, resamples=4, quiet=True)
    again = Stability.load(found.save(tmp_path / "stability.json"))
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert repr(again) == repr(found)
    assert torch.equal(again.stable(0.5), found.stable(0.5))


def test_circuits_without_edges_say_so(model: Any, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    found = stability(model, task, method="eap", edges=20, resamples=4, quiet=True)
    assert not found.stable(1.1).any()
    assert "share=1.1 leaves no edges" in caplog.text
    caplog.clear()
    report = find_circuit(model, task, method="eap", edges=5, selection=Nothing(), quiet=True).report
    assert report.edges == 0
    assert any("The circuit holds no edges" in note for note in report.notes)
    assert "Ask for more edges, for selection='connected'" in caplog.text


def test_equal_prompts_give_the_same_circuit_every_time(model: Any, task: Task) -> None:
    found = stability(model, task.select([3] * 6), method="eap", edges=40, resamples=4, chunks=6, quiet=True)
    assert (found.jaccard.low, found.pairs.low, found.halves.low) == (1, 1, 1)
    assert found.rank_correlation.low == pytest.approx(1)


def test_overlap_by_hand() -> None:
    assert jaccard(np.array([True, True, False]), np.array([True, False, True])) == pytest.approx(1 / 3)
    assert jaccard(np.zeros(2, bool), np.zeros(2, bool)) == 1


@pytest.mark.parametrize("selection", ["top-n", "greedy", "balanced"])
def test_find_circuit_keeps_what_survives(model: Any, task: Task, tmp_path: Path, selection: str) -> None:
    task = behaving(model, 16)
    settings: dict[str, Any] = {"method": "eap", "selection": selection, "edges": 80, "quiet": True}
    plain, stable = find_circuit(model, task, **settings), find_circuit(model, task, stable=True, **settings)
    torch.testing.assert_close(plain.scores.values, stable.scores.values)
    about = stable.report.stability
    assert 0 < stable.n_edges <= 80
    assert (about["edges_kept"], about["edges_of_size"], about["resamples"]) == (stable.n_edges, 80, 20)
    assert about["frequency"].keys() == set(stable.edges)
    assert min(about["frequency"].values()) >= 0.75
    assert stable.provenance["stable_share"] == 0.75
    assert plain.provenance["stable_share"] is None
    assert "resamples put among their 80" in str(stable.report)
    again = Circuit.load(stable.save(tmp_path / "stable.json"))
    assert again.report == stable.report
    every = find_circuit(model, task, stable=Stable(share=0.05), **settings)
    assert every.n_edges >= stable.n_edges


def test_find_circuit_reports_the_tests_that_it_is_asked_for(model: Any, tmp_path: Path) -> None:
    task = behaving(model, 16)
    settings: dict[str, Any] = {"method": "eap", "selection": "top-n", "edges": 80, "quiet": True}
    found = find_circuit(model, task, tests=True, **settings)
    _, held_out = task.split(0.5, 0)
    expected = metrics.circuit_tests(model, held_out, found.mask, quiet=True)
    assert [row["test"] for row in found.report.tests] == [one.test for one in expected.tests]
    for row, one in zip(found.report.tests, expected.tests, strict=True):
        assert row["p_corrected"] == pytest.approx(one.p_corrected)
        assert f"Test of {one.test}: {'passed' if one.passed else 'failed'}, corrected p" in str(found.report)
    assert Circuit.load(found.save(tmp_path / "tested.json")).report == found.report
    assert find_circuit(model, task, **settings).report.tests == []


def test_stable_circuits_climb_the_ladder(model: Any) -> None:
    found = find_circuit(
        model, behaving(model, 16), method="eap", faithfulness=0.8, stable=True, ladder=True, quiet=True
    )
    reached = next(row for row in found.report.ladder if row["faithfulness"] >= 0.8)
    assert found.n_edges == reached["edges"]
    assert found.report.stability["edges_of_size"] == reached["size"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stable_share": 0.5}, r"it belongs to stability now: stable=Stable\(share=0.75\)"),
        ({"resamples": 30}, r"resamples=30 are the bootstrap draws .* stable=Stable\(resamples=20\)"),
        ({"method": "exact", "resume": "file"}, "resume keeps the scores of one run"),
    ],
)
def test_bad_input_is_refused(model: Any, task: Task, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_circuit(model, task, edges=20, stable=True, quiet=True, **settings)


def test_how_many_resamples_and_which_share_are_checked() -> None:
    with pytest.raises(InputError, match=r"share=0.0 must be a number above 0"):
        Stable(share=0.0)
    with pytest.raises(InputError, match="resamples=1 must be a whole number of at least 2"):
        Stable(resamples=1)


def test_four_prompts_are_needed(model: Any, task: Task) -> None:
    with pytest.raises(InputError, match="at least 4"):
        stability(model, task.select([0, 1, 2]), method="eap", quiet=True)


class Alike(Method):
    """Scores in which all edges are alike."""

    name = "alike"

    def values(self, setting):
        return setting.graph.edge_mask.float()


def test_constant_scores_have_no_order_and_no_warning_says_so():
    model = tiny("gpt2", torch.float32)
    found = stability(model, tiny_task(model, 6), method=Alike(), edges=200, resamples=4, quiet=True)
    assert math.isnan(found.rank_correlation.value)
    assert "rank correlation none, for scores are constant" in repr(found)

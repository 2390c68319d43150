"""`compare_methods` on tiny models: its figures against the public functions, its controls, costs and refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import metrics
from attribution import EdgePruning, Learned, Schedule, Scores, attribute
from attribution.edges.gradient import EAP, EAPIG, EAPIGActivations
from attribution.edges.method import Method
from attribution.edges.named import METHODS
from attribution.edges.patched import ActivationPatching, Exact
from circuits import MethodComparison, compare_methods
from circuits.candidates import passes_of
from circuits.cost import measured
from interp import ComputationalGraph
from interp.errors import InputError
from interp.run import Run
from interp.selection import LADDER_FRACTIONS, SELECTIONS, Selection, TopN, ladder, top_n
from interp.setting import Setting
from metrics.circuit.balance import Balanced
from metrics.circuit.evaluate import measure
from metrics.circuit.samples import random_circuit
from tests.tiny import shared, tiny_task

QUIET: dict[str, Any] = {"quiet": True, "resamples": 50}


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return tiny_task(model, n=10)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of(model)


@pytest.fixture(scope="module")
def truth(graph: ComputationalGraph) -> torch.Tensor:
    noise = torch.rand(graph.shape, generator=torch.Generator().manual_seed(5))
    return top_n(noise * graph.edge_mask, graph, 40)


@pytest.fixture(scope="module")
def table(model: Any, task: Any, truth: torch.Tensor) -> MethodComparison:
    methods = {"eap": {}, "long": {"method": "eap-ig", "steps": 7}, "greedy": {"method": "relp", "selection": "greedy"}}
    return compare_methods(model, task, methods, truth=truth, exact=60, inverted=True, seed=3, **QUIET)


def row(table: MethodComparison, method: str) -> dict[str, Any]:
    frame = table.to_frame()
    (found,) = frame[frame["method"] == method].to_dict("records")
    return {str(key): value for key, value in found.items()}


def test_one_row_a_method_best_cmd_first(table: MethodComparison) -> None:
    frame = table.to_frame()
    assert sorted(frame["method"]) == ["eap", "greedy", "inverted eap", "long", "random"]
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5]
    assert frame["cmd"].is_monotonic_increasing
    areas = [f"{log}{area}{how}" for log in ("", "log_") for area in ("cpr", "cmd") for how in ("", "_signed")]
    needed = [f"edges_{goal}{how}" for goal in (85, 95) for how in ("", "_signed")]
    for name in [*areas, *needed]:
        assert (frame[f"{name}_low"] <= frame[name]).all()
        assert (frame[name] <= frame[f"{name}_high"]).all()
    others = {"auroc", "average_precision", "pearson", "spearman", "forwards", "backwards", "seconds", "peak_memory_mb"}
    assert others <= set(frame.columns)


@pytest.mark.parametrize(
    ("name", "settings", "selection"),
    [("eap", {"method": "eap"}, "top-n"), ("long", {"method": "eap-ig", "steps": 7}, "top-n"),
     ("greedy", {"method": "relp"}, "greedy")],
)  # fmt: skip
def test_figures_are_those_of_the_curve_on_the_judging_half(
    model: Any, task: Any, table: MethodComparison, name: str, settings: dict[str, Any], selection: str
) -> None:
    scoring, judging = task.split(0.5, 3)
    scores = attribute(model, scoring, **settings, quiet=True)
    for suffix, absolute in (("", True), ("_signed", False)):
        curve = metrics.faithfulness_curve(model, judging, scores, selection=selection, absolute=absolute, quiet=True)
        found = row(table, name)
        assert found[f"cpr{suffix}"] == pytest.approx(curve.cpr)
        assert found[f"cmd{suffix}"] == pytest.approx(curve.cmd)
        assert found[f"log_cpr{suffix}"] == pytest.approx(curve.log_cpr.value)
        assert found[f"log_cmd{suffix}"] == pytest.approx(curve.log_cmd.value)
        points = table.points.query("method == @name and ranking == @ranking", local_dict={
            "name": name, "ranking": "absolute" if absolute else "signed"
        })  # fmt: skip
        assert points["faithfulness"].tolist() == pytest.approx(list(curve.faithfulness))
        assert points["edges"].tolist() == list(curve.edges)
        assert points["fraction"].tolist() == list(LADDER_FRACTIONS)


def test_the_random_row_is_the_mean_of_random_circuits_of_the_same_sizes(
    model: Any, task: Any, graph: ComputationalGraph, table: MethodComparison
) -> None:
    _, judging = task.split(0.5, 3)
    masks = torch.stack([random_circuit(graph, n, 3 + draw) for n in ladder(graph) for draw in range(3)])
    values = measure(model, judging, masks, quiet=True)
    f = (values.circuits.unflatten(0, (10, 3)).mean((1, 2)) - values.empty.mean()) / (
        values.clean.mean() - values.empty.mean()
    )
    assert row(table, "random")["cmd"] == pytest.approx(float(metrics.cmd(LADDER_FRACTIONS, f.numpy())))
    assert row(table, "random")["cpr_signed"] == pytest.approx(float(metrics.cpr(LADDER_FRACTIONS, f.numpy())))


def test_the_inverted_row_takes_the_smallest_scores_first(
    model: Any, task: Any, graph: ComputationalGraph, table: MethodComparison
) -> None:
    scoring, judging = task.split(0.5, 3)
    values = attribute(model, scoring, "eap", quiet=True).values
    order = values[graph.edge_mask].abs().argsort()
    mask = torch.zeros_like(graph.edge_mask)
    mask[tuple(graph.edge_mask.nonzero()[order[: int(0.5 * graph.n_edges)]].T)] = True
    expected = metrics.evaluate(model, judging, mask, quiet=True).mean()
    values = measure(model, judging, mask[None], quiet=True)
    clean, empty = values.clean.mean(), values.empty.mean()
    half = table.points.query("method == 'inverted eap' and ranking == 'absolute' and fraction == 0.5")
    assert half["faithfulness"].item() == pytest.approx(float((expected - empty) / (clean - empty)), abs=1e-6)
    assert row(table, "inverted eap")["auroc"] == pytest.approx(1 - row(table, "eap")["auroc"])


def test_only_the_scoring_half_is_scored(model: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, scores = [], Method.scores

    def spy(method: Method, setting: Setting) -> Scores:
        seen.append(setting.task.to_dict()["sha256"])
        return scores(method, setting)

    monkeypatch.setattr(Method, "scores", spy)
    table = compare_methods(model, task, ["eap", "relp"], scoring_share=0.3, seed=1, n_random=0, **QUIET)
    scoring, judging = task.split(0.3, 1)
    assert seen[1:] == [scoring.to_dict()["sha256"]] * 2
    assert seen[0] == scoring.select([0]).to_dict()["sha256"]  # to warm up
    assert (table.about["n_scoring"], table.about["n_judging"]) == (3, len(judging)) == (3, 7)
    assert sorted(table.to_frame()["method"]) == ["eap", "relp"]


def test_a_known_circuit(model: Any, task: Any, graph: ComputationalGraph, truth: torch.Tensor) -> None:
    scoring, _ = task.split(0.5, 0)
    scores = attribute(model, scoring, "eap", quiet=True)
    table = compare_methods(model, task, {"eap": scores, "oracle": truth * -2.0}, truth=truth, **QUIET)
    assert row(table, "eap")["auroc"] == pytest.approx(metrics.auroc(scores, truth))
    assert row(table, "eap")["average_precision"] == pytest.approx(metrics.average_precision(scores, truth))
    assert (row(table, "oracle")["auroc"], row(table, "oracle")["average_precision"]) == (1, 1)
    assert abs(row(table, "random")["auroc"] - 0.5) < 0.15
    assert compare_methods(model, task, ["eap"], **QUIET).to_frame()["auroc"].isna().all()


def test_agreement_with_exact_patching(model: Any, task: Any, table: MethodComparison) -> None:
    scoring, _ = task.split(0.5, 0)
    exact = attribute(model, scoring, "exact", quiet=True)
    found = compare_methods(model, task, {"exact": exact, "eap": "eap"}, exact=80, **QUIET)
    assert (row(found, "exact")["pearson"], row(found, "exact")["spearman"]) == pytest.approx((1, 1))
    assert -1 < row(found, "eap")["pearson"] < 1
    assert math.isnan(row(table, "inverted eap")["pearson"])
    assert abs(row(table, "random")["spearman"]) < 0.4
    assert "pearson" not in compare_methods(model, task, ["eap"], **QUIET).to_frame()


def test_passes_are_numbers(table: MethodComparison, graph: ComputationalGraph) -> None:
    assert (row(table, "eap")["forwards"], row(table, "eap")["backwards"]) == (2, 1)
    assert (row(table, "long")["forwards"], row(table, "long")["backwards"]) == (8, 7)
    assert (row(table, "random")["forwards"], row(table, "random")["seconds"]) == (0, 0)
    layers = 2 * graph.n_layers + 1
    assert EAPIGActivations().passes(graph) == (5 * layers + 2, 5 * layers)
    assert Exact().passes(graph) == (graph.n_edges / 2, 0)
    assert ActivationPatching().passes(graph) == (len(graph.sources) / 2, 0)


def test_ready_scores_remember_what_they_cost(model: Any, task: Any, graph: ComputationalGraph) -> None:
    for method, told in (("eap", {}), ("eap-ig", {"steps": 3}), ("exact", {"sample": 10}), ("mask-ig", {"steps": 2})):
        made = METHODS.make(method, told)
        scores = attribute(model, task, made, quiet=True)
        assert passes_of(scores) == made.passes(graph)
    theirs = Scores(torch.zeros(graph.shape), graph, method="somebody:Else")
    assert all(map(math.isnan, passes_of(theirs)))


def test_costs_are_measured(table: MethodComparison) -> None:
    assert (table.to_frame().query("method in ('eap', 'long', 'greedy')")["seconds"] > 0).all()
    with measured(torch.device("cpu")) as cost:
        held = torch.ones(20_000_000)  # 80 MB
        del held
    assert cost.seconds > 0
    if cost.memory_kind:  # on Linux
        assert 75e6 < cost.memory < 200e6
        with measured(torch.device("cpu")) as nothing:
            pass
        assert nothing.memory < 10e6


def test_ready_scores_on_judging_prompts_are_told(model: Any, task: Any) -> None:
    everything = attribute(model, task, "eap", quiet=True)
    seen = compare_methods(model, task, {"mine": everything}, **QUIET)
    assert any("'mine'" in note and "too rosy" in note for note in seen.about["notes"])
    assert row(seen, "mine")["seconds"] == everything.seconds
    apart = compare_methods(model, task, [attribute(model, task.split(0.5, 0)[0], "eap", quiet=True)], **QUIET)
    assert not any("rosy" in note for note in apart.about["notes"])
    assert "eap" in apart.to_frame()["method"].tolist()


def test_other_ablations_and_graphs(model: Any, task: Any) -> None:
    table = compare_methods(model, task, ["eap", "relp"], ablation="mean", kv="group", n_random=1, **QUIET)
    scoring, judging = task.split(0.5, 0)
    scores = attribute(model, scoring, "eap", ablation="mean", kv="group", quiet=True)
    curve = metrics.faithfulness_curve(model, judging, scores, ablation="mean", quiet=True)
    assert row(table, "eap")["cmd"] == pytest.approx(curve.cmd)


def test_the_same_seed_gives_the_same_table(model: Any, task: Any) -> None:
    first, second = (compare_methods(model, task, ["eap"], seed=2, **QUIET) for _ in range(2))
    timed = ["seconds", "peak_memory_mb", "memory_kind"]
    pd.testing.assert_frame_equal(first.to_frame().drop(columns=timed), second.to_frame().drop(columns=timed))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": []}, "names no method"),
        ({"methods": ["eapp"]}, "'eapp' is unknown; did you mean 'eap'"),
        ({"methods": ["eap", "eap"]}, "two of the name 'eap'"),
        ({"methods": {"random": "eap"}}, "which is what a control is called"),
        ({"methods": {"x": {"method": "eap", "stepz": 3}}}, "'stepz' is unknown"),
        (
            {"methods": {"x": 3}},
            "a method, by name or as an object, its settings, scores, or a circuit; got int",
        ),
        ({"methods": [{"method": "eap"}]}, "without a name"),
        ({"methods": {"x": {"method": "eap", "selection": "best"}}}, "'best' is unknown"),
        ({"methods": ["attribution-patching"]}, "scores nodes"),
        ({"methods": ["eap-ig"], "ablation": "zero"}, "follows a path between two prompts"),
        ({"methods": {"x": torch.zeros(2, 2)}}, r"scores of shape \(2, 2\)"),
        ({"n_random": -1}, "n_random=-1"),
        ({"random": 3}, "compare_methods takes no random: it is called n_random now"),
        ({"exact": 2}, "exact=2 must be"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"resamples": 0}, "resamples=0"),
        ({"correction": "bonferroni"}, "correction='bonferroni' is unknown"),
        ({"selection": "best"}, "selection='best' is unknown"),
        ({"truth": torch.ones(2, 2)}, "truth must be a torch.bool tensor"),
    ],
)
def test_refusals(model: Any, task: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_methods(model, task, **{"methods": ["eap"], **QUIET, **settings})


def test_too_few_prompts(model: Any, task: Any) -> None:
    with pytest.raises(InputError, match="needs at least 4"):
        compare_methods(model, task.select(range(3)), ["eap"], **QUIET)
    few = compare_methods(model, task, ["eap"], n_random=0, **QUIET)
    assert any("Only 5 judging prompts" in note for note in few.about["notes"])


class Backwards(Selection):
    """A third party's selection, which knows of no signed scores: it takes the smallest."""

    name = "backwards"

    def mask(self, scores: torch.Tensor, graph: ComputationalGraph, n: int) -> torch.Tensor:
        return top_n(-scores.abs(), graph, n, False)


@pytest.mark.parametrize(
    "selection",
    ["balanced", "connected", Balanced(steps=2), Backwards(), Learned(EdgePruning(schedule=Schedule(steps=2)))],
)
def test_every_selection_is_taken_and_chooses_on_the_scoring_prompts(
    model: Any, task: Any, selection: str | Selection
) -> None:
    found = compare_methods(model, task, ["eap"], selection=selection, n_random=1, **QUIET)
    rule = SELECTIONS.make(selection)
    scoring, judging = Setting(model, task, run=Run(quiet=True)).split(0.5, 0)
    values = EAP().scores(scoring).values
    masks = [one(values) for one in rule.rules(scoring, values, ladder(scoring.graph))]
    f = [one.value for one in metrics.faithfulness(judging.measure(torch.stack(masks)))]
    points = found.points.query("method == 'eap' and ranking == 'absolute'")
    assert points["faithfulness"].tolist() == pytest.approx(f)
    assert ("cpr_signed" in found.to_frame()) == (selection == "connected")
    assert found.about["selection"] == rule.name
    assert 'id="chart-0"' in found.to_html()


@dataclass(frozen=True)
class Theirs(Method):
    """A third party's method."""

    name = "theirs"

    def values(self, setting: Setting) -> torch.Tensor:
        return setting.graph.edge_mask * torch.linspace(0, 1, setting.graph.shape[1])


def test_methods_as_objects(model: Any, task: Any) -> None:
    given = [Theirs(), EAPIG(steps=7), "eap", f"{__name__}:Theirs"]
    frame = compare_methods(model, task, given, n_random=0, **QUIET).to_frame().set_index("method")
    assert sorted(frame.index) == ["eap", "eap-ig", f"{__name__}:Theirs", "theirs"]
    assert frame.loc["theirs", "cmd"] == frame.loc[f"{__name__}:Theirs", "cmd"]
    assert (frame.loc["eap-ig", "forwards"], frame.loc["eap-ig", "backwards"]) == (8, 7)
    assert math.isnan(frame.loc["theirs", "forwards"])
    mixed = {"one": {"method": EAPIG(steps=2), "selection": TopN()}, "two": {"method": "eap-ig", "steps": 2}}
    both = compare_methods(model, task, mixed, n_random=0, **QUIET).to_frame()
    assert both["cmd"].nunique() == 1


def test_it_holds_a_data_frame_and_is_kept(table: MethodComparison, tmp_path: Path) -> None:
    best = table.to_frame().sort_values("cpr").set_index("method")
    assert np.isfinite(best.loc["eap", "cmd"])
    assert len(table.pairs) == 6 * 10
    assert "scored on 5 prompts, judged on 5 others" in repr(table)
    assert table.markdown().count("\n") == 1 + len(table.to_frame())
    with pytest.raises(InputError, match=r"holds a data frame and is none any more: take its columns from .to_frame"):
        table["cmd"]
    with pytest.raises(AttributeError, match=r"\.to_frame\(\)\.sort_values"):
        table.sort_values("cmd")
    again = MethodComparison.load(table.save(tmp_path / "methods.json"))
    pd.testing.assert_frame_equal(again.to_frame(), table.to_frame())
    pd.testing.assert_frame_equal(again.points, table.points)
    assert repr(again) == repr(table)
    assert again.about == table.about

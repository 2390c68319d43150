"""`compare_methods` on nodes: its figures against curves of the same scores, its controls, costs and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import metrics
from attribution import EAP, EAPIG, Exact, MaskIG
from attribution.units.nodes import scores_of_nodes
from circuits import MethodComparison, compare_methods
from interp import InputError, Run, Setting
from interp.dictionaries.sets import DictionarySet
from interp.node_mask import NodeMask
from interp.selection import LADDER_FRACTIONS, node_ladder, top_nodes
from metrics.circuit.controls import random_nodes
from metrics.circuit.evaluate import measure
from tests.dictionaries import UNEQUAL, unequal
from tests.oracle import model_of
from tests.tiny import D_MODEL, LAYERS, MLP, behaving, tiny_task

QUIET: dict[str, Any] = {"quiet": True, "resamples": 50, "seed": 3}
COUNT = LAYERS * MLP


@pytest.fixture(scope="module")
def model():
    return model_of("llama")


@pytest.fixture(scope="module")
def task(model):
    return behaving(model, 10)


@pytest.fixture(scope="module")
def truth():
    return torch.rand(LAYERS, MLP, generator=torch.Generator().manual_seed(5)) < 0.2


@pytest.fixture(scope="module")
def table(model, task, truth):
    methods = {"eap-ig": {}, "short": {"method": "mask-ig", "steps": 2}, "exact": {}}
    return compare_methods(model, task, methods, level="neuron", truth=truth, exact=30, inverted=True, **QUIET)


@pytest.fixture(scope="module")
def scores(model, task):
    setting = Setting(model, task.split(0.5, 3)[0], run=Run(quiet=True))
    return {
        name: scores_of_nodes(setting, method, "neuron")
        for name, method in (("eap-ig", EAPIG()), ("short", MaskIG(steps=2)), ("exact", Exact()))
    }


def row(table, method):
    (found,) = table.to_frame().query("method == @method", local_dict={"method": method}).to_dict("records")
    return found


@pytest.mark.parametrize("name", ["eap-ig", "short", "exact"])
def test_figures_are_those_of_the_curve_on_the_judging_half(model, task, table, scores, name):
    _, judging = task.split(0.5, 3)
    for suffix, absolute in (("", True), ("_signed", False)):
        curve = metrics.faithfulness_curve(model, judging, scores[name], absolute=absolute, quiet=True)
        found = row(table, name)
        for area in ("cpr", "cmd"):
            assert found[f"{area}{suffix}"] == pytest.approx(getattr(curve, area), rel=1e-6)
        reached = [n for n, f in zip(curve.sizes, curve.faithfulness, strict=True) if f >= 0.85]
        assert found[f"nodes_85{suffix}"] == reached[0]
        points = table.points.query("method == @name and ranking == @ranking", local_dict={
            "name": name, "ranking": "absolute" if absolute else "signed"
        })  # fmt: skip
        assert points["faithfulness"].tolist() == pytest.approx(list(curve.faithfulness), abs=1e-9)
        assert points["nodes"].tolist() == list(curve.sizes) == list(node_ladder(COUNT))


def test_random_nodes_are_like_those_of_the_first_methods_circuits(model, task, table, scores):
    _, judging = task.split(0.5, 3)
    setting = Setting(model, task.split(0.5, 3)[0], run=Run(quiet=True))
    circuits = [scores["eap-ig"].mask(n) for n in node_ladder(COUNT)]
    drawn = torch.stack([one.mask for one in random_nodes(setting, circuits, 3, 3)])
    values = measure(model, judging, drawn, level="neuron", quiet=True)
    gap = values.clean.mean() - values.empty.mean()
    f = (values.circuits.unflatten(0, (-1, 3)).mean((1, 2)) - values.empty.mean()) / gap
    assert row(table, "random")["cmd"] == pytest.approx(float(metrics.cmd(LADDER_FRACTIONS, f.numpy())), rel=1e-6)
    assert row(table, "random")["cpr_signed"] == row(table, "random")["cpr"]


def test_the_inverted_row_takes_the_smallest_scores_first(model, task, table, scores):
    _, judging = task.split(0.5, 3)
    order = scores["eap-ig"].values.flatten().abs().argsort()
    mask = torch.zeros(LAYERS, MLP, dtype=torch.bool)
    mask.view(-1)[order[: COUNT // 2]] = True
    values = measure(model, judging, mask, level="neuron", quiet=True)
    expected = (values.circuits.mean() - values.empty.mean()) / (values.clean.mean() - values.empty.mean())
    half = table.points.query("method == 'inverted eap-ig' and ranking == 'absolute' and fraction == 0.5")
    assert half["faithfulness"].item() == pytest.approx(float(expected), abs=1e-9)
    assert row(table, "inverted eap-ig")["auroc"] == pytest.approx(1 - row(table, "eap-ig")["auroc"])


def test_known_circuits_exact_patching_and_costs(table, scores, truth):
    for name, one in scores.items():
        assert row(table, name)["auroc"] == pytest.approx(metrics.auroc(one.values, truth, level="neuron"))
    assert (row(table, "exact")["pearson"], row(table, "exact")["spearman"]) == pytest.approx((1, 1))
    assert -1 < row(table, "eap-ig")["pearson"] < 1
    assert math.isnan(row(table, "inverted eap-ig")["pearson"])
    passes = {name: (row(table, name)["forwards"], row(table, name)["backwards"]) for name in scores}
    assert passes == {"eap-ig": (6, 5), "short": (4, 2), "exact": (COUNT, 0)}
    assert row(table, "exact")["seconds"] > 0


def test_it_is_told_and_kept(table, tmp_path):
    assert f"{COUNT} neurons, ablation patch" in repr(table)
    assert {"nodes_85", "nodes_95"} <= set(table.summary())
    assert table.about["reference"] == "matched"
    assert table.curves().layout.xaxis.title.text == "share of neurons"
    assert 'id="chart-0"' in table.to_html()
    again = MethodComparison.load(table.save(tmp_path / "methods.json"))
    pd.testing.assert_frame_equal(again.to_frame(), table.to_frame())
    assert repr(again) == repr(table)


@pytest.mark.parametrize(
    ("told", "shape"),
    [
        ({"level": "head"}, None),
        ({"level": "node", "selection": "balanced"}, None),
        ({"level": "neuron", "positions": "all", "ablation": "mean"}, None),
        ({"level": "feature", "dictionaries": unequal(D_MODEL), "errors": "nodes"}, sum(UNEQUAL) + 3),
    ],
)
def test_every_level_is_compared(model, told, shape):
    task = tiny_task(model, n=8)
    found = compare_methods(model, task, ["mask-ig"], n_random=1, exact=5, **told, **QUIET)
    scoring, judging = task.split(0.5, 3)
    features = DictionarySet(told["dictionaries"], "nodes") if "dictionaries" in told else None
    setting = Setting(model, scoring, told.get("ablation"), run=Run(quiet=True), features=features)
    length = task.prompts(model).clean.shape[1]
    spans = tuple(range(length)) if "positions" in told else None
    scores = scores_of_nodes(setting, MaskIG(), told["level"], spans)
    chosen: dict[str, Any] = {"selection": "balanced", "choosing": scoring} if "selection" in told else {}
    curve = metrics.faithfulness_curve(model, judging, scores, level=told["level"], **chosen, quiet=True)
    assert row(found, "mask-ig")["cmd"] == pytest.approx(curve.cmd, rel=1e-6)
    assert found.about["nodes"] == curve.sizes[-1] == (shape or curve.sizes[-1])
    assert np.isfinite(row(found, "mask-ig")["spearman"])


def test_ready_scores_and_tensors_are_taken(model, task, scores, truth):
    oracle = truth * -2.0
    given = {"mine": scores["short"], "oracle": oracle}
    mask = NodeMask(truth, "neuron")
    found = compare_methods(model, task, given, level="neuron", truth=mask, n_random=0, **QUIET)
    assert row(found, "oracle")["auroc"] == 1
    assert (row(found, "mine")["forwards"], row(found, "mine")["backwards"]) == (4, 2)
    assert row(found, "mine")["seconds"] == scores["short"].seconds
    values = measure(model, task.split(0.5, 3)[1], top_nodes(oracle, 7), level="neuron", quiet=True)
    expected = (values.circuits.mean() - values.empty.mean()) / (values.clean.mean() - values.empty.mean())
    point = found.points.query("method == 'oracle' and ranking == 'absolute' and nodes == 7")
    assert point["faithfulness"].item() == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "heads"}, "did you mean 'head'"),
        ({"positions": "all"}, "positions is for circuits of nodes"),
        ({"level": "neuron", "reference": "grown"}, "reference is for circuits of edges"),
        ({"level": "neuron", "selection": "greedy"}, "selects edges"),
        ({"level": "neuron", "methods": ["edge-pruning"]}, "no meaning for neurons"),
        ({"level": "head", "methods": ["eap"], "positions": [3]}, "'mask-ig' and 'exact'"),
        ({"level": "neuron", "positions": [99]}, "position 99"),
        ({"level": "neuron", "truth": NodeMask(torch.ones(3, 4, dtype=torch.bool), "head")}, "circuit of heads"),
        ({"level": "neuron", "truth": torch.ones(3, 4, dtype=torch.bool)}, "does not fit"),
        ({"truth": NodeMask(torch.ones(3, 4, dtype=torch.bool), "head")}, "truth is a circuit of heads"),
        ({"level": "neuron", "nodes": 5}, "'nodes' is unknown"),
        ({"level": "feature"}, "needs dictionaries"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(model, task, settings, message, monkeypatch):
    monkeypatch.setattr("circuits.compare.score", lambda *given: pytest.fail("scored before it was refused"))
    with pytest.raises(InputError, match=message):
        compare_methods(model, task, **{"methods": [EAP()], **QUIET, **settings})


def test_scores_of_other_nodes_are_refused(model, task, scores):
    with pytest.raises(InputError, match=r"methods\['x'\] has scores of neurons"):
        compare_methods(model, task, {"x": scores["short"]}, level="head", **QUIET)
    with pytest.raises(InputError, match=r"scores of shape \(2, 2\); the model has"):
        compare_methods(model, task, {"x": torch.zeros(2, 2)}, level="neuron", **QUIET)
    with pytest.raises(InputError, match="no values for edges"):
        compare_methods(model, task, {"x": scores["short"]}, **QUIET)

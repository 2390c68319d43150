"""`compare_explanations`: values as the metrics give them, tests, ranks, what people see and what it refuses."""

from __future__ import annotations

import re
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import metrics
from benchmarks import known
from interp.errors import InputError
from metrics.explanation.named import explanation_columns
from metrics.explanation.report import compare_explanations
from metrics.testing import adjust, paired_test

FAST: dict[str, Any] = {"resamples": 100, "permutations": 199, "quiet": True}


@pytest.fixture(scope="module")
def model() -> known.Known:
    return known.features(16)


@pytest.fixture(scope="module")
def explainers(model: known.Known) -> dict[str, Any]:
    noise = torch.rand(model.truth.shape, generator=torch.Generator().manual_seed(0))
    return {"true": model.truth, "noise": noise.numpy(), "inverted": lambda x, y: -model.truth[: len(x)]}


@pytest.fixture(scope="module")
def report(model: known.Known, explainers: dict[str, Any]) -> metrics.ExplanationReport:
    return compare_explanations(
        model.predict, model.inputs, explainers, ["saco", "erasure", "flip-fraction"], seed=3, **model.settings, **FAST
    )


def interval(estimate: metrics.Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def test_values_are_those_of_the_metrics_themselves(
    model: known.Known, explainers: dict[str, Any], report: metrics.ExplanationReport
) -> None:
    settings = {"seed": 3, "n_random": 3, "resamples": 100, **model.settings}
    for name in ("true", "noise"):
        one = metrics.saco(model.predict, model.inputs, explainers[name], **settings)
        other = metrics.erasure(model.predict, model.inputs, explainers[name], **settings)
        result = report.results[name]
        np.testing.assert_allclose(result.columns["saco"], one.values, rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.columns["log-odds"], other.columns["log_odds"], rtol=0, atol=1e-6)
        assert result.random_columns is not None
        np.testing.assert_allclose(result.random_columns["saco"], one.random_columns["saco"], rtol=0, atol=1e-6)
        assert interval(result["sufficiency"]) == pytest.approx(interval(other["sufficiency"]), abs=1e-6)
        row = report.frame.set_index(["metric", "explainer"]).loc["saco", name]
        assert [row["value"], row["low"], row["high"]] == pytest.approx(interval(one.mean), abs=1e-6)
        assert row["difference"] == pytest.approx((one.values - one.random_columns["saco"]).mean())


def test_tests_are_paired_and_corrected_over_their_table(report: metrics.ExplanationReport) -> None:
    tests = report.tests
    assert len(tests) == 5 * 3  # metrics, pairs
    for row in tests.to_dict("records"):
        a, b = (report.values(row["metric"], row[which]) for which in ("first", "second"))
        assert row["p"] == paired_test(a, b, resamples=199, seed=3)
        assert row["difference"] == pytest.approx((a - b).mean())
        assert row["low"] <= row["difference"] <= row["high"]
    np.testing.assert_array_equal(tests["p_adjusted"], adjust(tests["p"], "holm"))
    np.testing.assert_array_equal(report.frame["p_adjusted"], adjust(report.frame["p"], "holm"))
    # 199 permutations and 15 tests: nothing can be significant, and the report says so
    assert set(tests["favours"]) == {""}
    assert any("no single p-value can reach 0.05" in note for note in report.notes)


def test_favours_the_better_one_whichever_way_is_better(model: known.Known, explainers: dict[str, Any]) -> None:
    settings = {**FAST, "permutations": 1999}
    report = compare_explanations(
        model.predict, model.inputs, explainers, ["morf", "lerf"], correction="bh", **model.settings, **settings
    )
    assert not report.notes
    tests = report.tests.set_index(["metric", "first", "second"])["favours"]
    assert tests["morf", "true", "inverted"] == tests["lerf", "true", "inverted"] == "true"
    assert tests["lerf", "noise", "inverted"] == "noise"


def test_ranks_by_hand() -> None:
    inputs = torch.rand(2, 3)

    def first(predict: Any, inputs: Any, salience: Any) -> Any:
        return salience[:, 0]

    def second(predict: Any, inputs: Any, salience: Any) -> Any:
        return salience[:, 1]

    saliences = {"a": [[3.0, 1, 0], [1, np.e, 0]], "b": [[2.0, 1, 0], [2, 0, 0]], "c": [[1.0, 0, 0], [3, 1, 0]]}
    report = compare_explanations(
        lambda x: torch.full((len(x), 2), 0.5), inputs, saliences, [first, second], n_random=0, **FAST
    )
    # first: sample 0 a b c = 1 2 3, sample 1 = 3 2 1; second: 1.5 1.5 3 and 1 3 2
    ranks = report.ranks.set_index("explainer")
    assert ranks["first"].to_dict() == {"a": 2, "b": 2, "c": 2}
    assert ranks["second"].to_dict() == {"a": 1.25, "b": 2.25, "c": 2.5}
    assert ranks["mean_rank"].to_dict() == {"a": 1.625, "b": 2.125, "c": 2.25}
    assert list(ranks.index) == ["a", "b", "c"]
    assert "random" not in report.frame
    assert "p" not in report.frame


def test_a_metric_of_ones_own_has_random_scores_beside_it(model: known.Known, explainers: dict[str, Any]) -> None:
    def top(predict: Any, inputs: Any, salience: Any, *, target: Any) -> Tensor:
        """Whether the largest score stands at the first feature."""
        assert target.shape == (16,)
        return torch.as_tensor(salience).argmax(1) == 0

    named = {"top": top, "few groups": partial(metrics.saco, groups=2), "morf": "morf"}
    report = compare_explanations(model.predict, model.inputs, explainers, named, **model.settings, **FAST)
    assert list(report.better) == ["top", "few groups", "morf"]
    few = metrics.saco(model.predict, model.inputs, model.truth, 2, **model.settings)
    np.testing.assert_allclose(report.values("few groups", "true"), few.values, rtol=0, atol=1e-6)
    random = report.results["true"].random_columns
    assert random is not None
    assert 0 < random["top"].mean() < 0.5


def test_metrics_without_random_scores_stand_beside_others(model: known.Known) -> None:
    assert model.slope is not None
    report = compare_explanations(
        model.predict, model.inputs, {"slope": model.slope}, ["saco", "infidelity"], **model.settings, **FAST
    )
    frame = report.frame.set_index("metric")
    assert np.isnan(frame.loc["infidelity", ["random", "p", "p_adjusted"]].astype(float)).all()
    assert np.isfinite(frame.loc["saco", ["random", "p"]].astype(float)).all()
    assert report.tests.empty
    assert "saco" in report._repr_html_()
    report.figure()


def test_decided_by_its_seed_and_not_by_its_batches(model: known.Known, explainers: dict[str, Any]) -> None:
    arguments = {**model.settings, **FAST, "metrics": ["saco", "soft-erasure", "lerf"]}
    fixed = {name: one for name, one in explainers.items() if name != "inverted"} | {"slope": model.slope}
    one, same, other = (
        compare_explanations(model.predict, model.inputs, fixed, seed=seed, batch_size=size, **arguments).frame
        for seed, size in ((0, 64), (0, 5), (1, 64))
    )
    numbers = one.select_dtypes("number").columns
    np.testing.assert_allclose(one[numbers], same[numbers], atol=1e-6)
    assert not one.equals(other)


def test_arrays_in_arrays_to_the_explainer(model: known.Known) -> None:
    inputs = model.inputs.double().numpy()

    def predict(x: np.ndarray) -> np.ndarray:
        assert isinstance(x, np.ndarray)
        return np.asarray(model.predict(torch.from_numpy(x).float()))

    def explain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        assert isinstance(x, np.ndarray)
        assert y.dtype == np.int64
        return np.asarray(x * (2 * y[:, None] - 1))

    names = ["morf", "soft-sufficiency", "max-sensitivity"]
    report = compare_explanations(predict, inputs, {"x": explain}, names, **model.settings, **FAST)
    assert np.isfinite(report.frame["value"]).all()


@pytest.mark.parametrize("kind", ["images", "text"])
def test_images_and_tokens(kind: str) -> None:
    model = known.MODELS[kind](8)
    settings = {"soft-erasure": model.soft} if kind == "text" else {}
    names = [
        name
        for name in explanation_columns()
        if name not in ("sensitivity", "road" if kind == "text" else "soft-erasure")
    ]
    truth = SimpleNamespace(values=model.truth)  # as attribution.tokens gives
    coarse = torch.rand(8, 4, 4) if kind == "images" else model.truth * 2
    explainers = {"true": truth, "other": coarse}
    report = compare_explanations(
        model.predict, model.inputs, explainers, names, settings=settings, batch_size=4096, n_random=1,
        **model.settings, **FAST,
    )  # fmt: skip
    assert len(report.frame) == 2 * len(report.better)
    assert np.isfinite(report.frame["value"]).all()


def test_sensitivity_of_images_with_one_channel() -> None:
    model = known.images(4)
    weights = torch.zeros(8, 8)
    weights[known.PATCH] = 1.0
    explain = {"patch": lambda x, y: weights * (2.0 * y - 1)[:, None, None]}
    report = compare_explanations(model.predict, model.inputs, explain, "sensitivity", **model.settings, **FAST)
    assert report.values("max-sensitivity", "patch").tolist() == [0, 0, 0, 0]


def test_what_people_see(model: known.Known, explainers: dict[str, Any], tmp_path: Any) -> None:
    evil = "</script><b>x"
    named = {evil: explainers["true"], "noise": explainers["noise"]}
    report = compare_explanations(model.predict, model.inputs, named, ["morf", "saco"], **model.settings, **FAST)
    text = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    for shown in (text, report._repr_html_()):
        assert evil not in shown
        assert "&lt;/script&gt;&lt;b&gt;x" in shown
    assert "light-dark(" in text
    assert "Content-Security-Policy" in text
    assert not re.search(r'<(script|link|img)\b[^>]*(src|href)="?http', text)  # plotly.js itself names addresses
    assert report.headline().startswith("2 explanations, 2 metrics, 16 samples")
    figure = report.figure()
    assert figure.layout.annotations[0].text == "mean rank (1 is best)"
    assert len(figure.data) == 1 + 2 * 2
    assert report.to_frame() is not report.frame


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"explainers": {"a": lambda x, y: x[:, :3]}}, r"explainers\['a'\]: attributions have shape \[16, 3\]"),
        ({"explainers": {"a": lambda x, y: x * torch.nan}}, r"explainers\['a'\]: attributions hold 160 values"),
        ({"explainers": {"a": lambda x, y: x[0]}}, r"explainers\['a'\]: it must return attributions \[16, ...\]"),
        ({"explainers": {"a": lambda x, y: "no"}}, r"explainers\['a'\]: attributions must be an array"),
        ({"explainers": {"a": object()}}, r"explainers\['a'\]: attributions must be an array"),
        ({"explainers": {}}, "explainers must be functions or arrays by name"),
        ({"metrics": ["sacco"]}, "metric='sacco' is unknown; did you mean 'saco'"),
        ({"metrics": []}, "metrics is empty"),
        ({"metrics": ["road"]}, r"metric 'road' on explainers\['true'\]: imputes pixels of images"),
        ({"metrics": ["infidelity"]}, r"metric 'sensitivity' on explainers\['true'\]: .*not an array"),
        ({"metrics": ["saco"], "settings": {"saco": {"groups": 11}}}, "groups=11 is more than the 10 elements"),
        ({"metrics": ["saco"], "settings": {"saco": {"group": 2}}}, "group is no setting of metric='saco', .* groups"),
        ({"metrics": ["saco"], "settings": {"morf": {"fractions": 2}}}, "'morf', which is not among the metrics saco"),
        ({"metrics": ["morf"], "settings": {"morf": {"fractions": 0}}}, "settings of 'removal-curves': fractions=0"),
        ({"metrics": [lambda p, x, s: 1.0]}, "must return a PerSample or 16 real values"),
        ({"metrics": {"morf": len}}, "'morf' must be a name, an ExplanationMetric, or a function, each under"),
        ({"correction": "bonferroni"}, "correction='bonferroni' is unknown"),
        ({"n_random": -1}, "n_random=-1"),
        ({"predict": lambda x: x}, "predict must return probabilities"),
        ({"baseline": "blur"}, "baseline='blur' is for images"),
    ],
)  # fmt: skip
def test_refuses(model: known.Known, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "predict": model.predict, "inputs": model.inputs, "explainers": {"true": model.truth}, "metrics": ["morf"],
        **model.settings, **change,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        compare_explanations(**arguments, **FAST)


def test_refuses_what_tokens_lack() -> None:
    model = known.text(4)
    for names, message in (
        (["soft-erasure"], "'soft-erasure' .* needs embeddings"),
        (["infidelity"], "these are token ids"),
    ):
        with pytest.raises(InputError, match=message):
            compare_explanations(
                model.predict, model.inputs, {"t": lambda x, y: x}, names, **{**model.settings, **FAST}
            )
    with pytest.raises(InputError, match="baseline is needed"):
        compare_explanations(model.predict, model.inputs, {"t": model.truth}, **FAST)


def test_problems_are_found_before_any_metric_runs(model: known.Known) -> None:
    seen: list[int] = []

    def watch(predict: Any, inputs: Any, salience: Any) -> np.ndarray:
        seen.append(1)
        return np.zeros(16)

    with pytest.raises(InputError, match="imputes pixels"):
        compare_explanations(
            model.predict, model.inputs, {"true": model.truth}, [watch, "road"], **model.settings, **FAST
        )
    assert not seen


def test_a_metric_that_writes_into_what_it_gets_leaves_the_others_alone(
    model: known.Known, explainers: dict[str, Any]
) -> None:
    def writes(predict: Any, inputs: Any, salience: Any) -> np.ndarray:
        found = np.abs(salience).reshape(len(salience), -1).sum(1)
        inputs[:] = 0
        salience[:] = 0
        return np.asarray(found)

    before = model.inputs.clone()
    given = (model.predict, model.inputs, explainers)
    found = compare_explanations(*given, {"writes": writes, "saco": "saco"}, **model.settings, **FAST)
    expected = compare_explanations(*given, ["saco"], **model.settings, **FAST)
    assert torch.equal(model.inputs, before)
    for name in explainers:
        np.testing.assert_allclose(found.values("saco", name), expected.values("saco", name))
        ours, theirs = found.results[name].random_columns, expected.results[name].random_columns
        assert ours is not None
        assert theirs is not None
        np.testing.assert_allclose(ours["saco"], theirs["saco"])

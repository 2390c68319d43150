"""Models whose true importances are known: true explanations score best, random ones between, inverted ones worst."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import metrics
from benchmarks import known
from metrics.explanation.named import explanation_columns

NAMES = [name for family in explanation_columns() if family != "sensitivity" for name in explanation_columns()[family]]
ORDER_ONLY = ("morf", "lerf", "between", "comprehensiveness", "sufficiency", "log-odds", "flip-first", "flip-fraction",
              "normalised-comprehensiveness", "normalised-sufficiency")  # fmt: skip
EXACT = {"normalised-aopc": {"exact": 10, "beam": 1}}


def saliences(model: known.Known) -> dict[str, torch.Tensor]:
    noise = torch.rand(model.truth.shape, generator=torch.Generator().manual_seed(9))
    return {"true": model.truth, "random": noise, "inverted": -model.truth}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "images")) for kind in known.MODELS]
)
def test_true_above_random_above_inverted(kind: str) -> None:
    model = known.MODELS[kind](30, seed=1)
    wanted: Any = {name: name for name in NAMES if not name.startswith("road") and not name.startswith("normalised")}
    settings: dict[str, Any] = {}
    if kind == "features":
        wanted |= {name: name for name in explanation_columns()["normalised-aopc"]}
        settings = EXACT
    if kind == "text":
        settings = {"soft-erasure": model.soft}
    if kind == "images":
        wanted = {name: name for name in wanted if not name.startswith("soft")}
        wanted |= {name: name for name in explanation_columns()["road"]}
    wanted["saco, ties zero"] = partial(metrics.saco, ties="zero")
    report = metrics.compare_explanations(
        model.predict, model.inputs, saliences(model), wanted, settings=settings, batch_size=4096, resamples=200,
        permutations=99, **model.settings,
    )  # fmt: skip
    for metric, better in report.better.items():
        sign = 1 if better == "higher" else -1
        true, random, inverted = (sign * np.nanmean(report.values(metric, name)) for name in report.results)
        # removing one element seldom turns the prediction: random and inverted may both have none
        assert true > random >= inverted if metric == "flip-first" else true > random > inverted, metric
    frame = report.frame.set_index(["explainer", "metric"])
    assert (frame.loc["random", "p"] > 0.01).all()
    assert report.ranks["explainer"].tolist() == ["true", "random", "inverted"]


def test_no_order_is_better_than_the_true_one() -> None:
    """All 720 orders of six features, for five samples."""
    model = known.features(5, seed=2, d=6)
    orders = torch.tensor(list(itertools.permutations(range(6))), dtype=torch.float64)
    for i in range(5):
        scores = torch.cat((model.truth[i : i + 1].double(), -model.truth[i : i + 1].double(), orders))
        report = metrics.compare_explanations(
            model.predict, model.inputs[i].expand(len(scores), -1), {"all": scores}, ORDER_ONLY, n_random=0,
            baseline="zero", settings=EXACT, batch_size=8192, resamples=1,
        )  # fmt: skip
        for metric, better in report.better.items():
            values = report.values(metric, "all") * (1 if better == "higher" else -1)
            assert values[0] == pytest.approx(values.max(), abs=1e-6), metric
            assert values[1] == pytest.approx(values.min(), abs=1e-6), metric


def test_saco_of_the_truth_is_one_and_of_its_opposite_minus_one() -> None:
    """One element a group. Only those that the model reads are ordered; the rest ties on both sides."""
    model = known.text(20)
    real = model.settings["real"]
    few = int(real.sum(1).min())
    found = metrics.saco(model.predict, model.inputs, model.truth, few, **model.settings)
    assert (found.values > 0.9).all()
    opposite = metrics.saco(model.predict, model.inputs, -model.truth, few, ties="zero", **model.settings)
    assert (opposite.values < -0.9).all()


def test_the_models_read_nothing_else() -> None:
    model = known.text(20)
    read = torch.isin(model.inputs, torch.tensor(list(known.READ)))
    other = torch.where(read | (model.inputs == known.PAD), model.inputs, 11 + (model.inputs * 7) % 29)
    assert not torch.equal(other, model.inputs)
    assert torch.equal(model.predict(other), model.predict(model.inputs))
    assert torch.equal(model.truth != 0, read)
    torch.testing.assert_close(model.soft["predict"](model.soft["embeddings"]), model.predict(model.inputs))
    images = known.images(20)
    changed = torch.full_like(images.inputs, 3.0)
    changed[:, 0, *known.PATCH] = images.inputs[:, 0, *known.PATCH]
    assert torch.equal(images.predict(changed), images.predict(images.inputs))


def test_infidelity_knows_the_gradient_and_max_sensitivity_says_nothing_of_truth() -> None:
    model = known.features(40)
    slope = model.slope
    assert slope is not None
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    report = metrics.compare_explanations(
        model.predict, model.inputs,
        {"true": slope, "random": lambda x, y: slope(x, y)[:, order], "inverted": lambda x, y: -slope(x, y)},
        "sensitivity", resamples=50, permutations=99,
    )  # fmt: skip
    means = {name: report.values("infidelity", name).mean() for name in report.results}
    assert means["true"] < means["random"] < means["inverted"]
    for name in ("random", "inverted"):
        np.testing.assert_allclose(
            report.values("max-sensitivity", name), report.values("max-sensitivity", "true"), rtol=1e-4
        )


@pytest.mark.parametrize("recursive", [True, False])
def test_retrained_without_the_truth(recursive: bool) -> None:
    sizes = {"train": 300, "validation": 10, "test": 300}
    data = {split: known.labelled(n, i) for i, (split, n) in enumerate(sizes.items())}
    true = known.true_weights
    explain = {"true": true, "scores": known.chance, "inverted": known.inverted(true)}
    ratios = [0.2, 0.4, 0.6, 0.8, 1.0]
    found = metrics.recursive_roar(known.least_squares, data, explain, ratios=ratios, seeds=5, recursive=recursive)
    true_area, random, opposite = found.racu.values()
    assert true_area.low > max(random.high, 0.3)
    assert abs(random.value) < 0.2
    assert opposite.high < min(random.low, -0.3)

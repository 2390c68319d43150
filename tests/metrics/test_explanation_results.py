"""Results of explanation metrics are kept in files, and a metric of somebody else's stands beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import metrics
from interp.errors import InputError
from interp.result import Result
from metrics.explanation.masf import MaSF

WEIGHTS = torch.tensor([4.0, 3.0, 2.0, 1.0])
INPUTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
FAST: dict[str, Any] = {"baseline": "zero", "resamples": 50, "quiet": True}


def predict(x: Tensor) -> Tensor:
    p = (x @ WEIGHTS).sigmoid()
    return torch.stack((1 - p, p), 1)


def slope(x: Tensor, y: Tensor) -> Tensor:
    return WEIGHTS.expand_as(x) * (2.0 * y[:, None] - 1)


def nearest(train: Any, validation: Any, seed: int) -> Tensor:
    return torch.stack([train[0][train[1] == label].mean(0) for label in range(2)])


def roar() -> Result:
    labels = predict(INPUTS).argmax(1)
    data = dict.fromkeys(("train", "validation", "test"), (INPUTS, labels))
    return metrics.recursive_roar(
        nearest, data, {"own": lambda model, x, y, seed: x * WEIGHTS}, seeds=2, ratios=[1, 2, 4], quiet=True,
        predict=lambda means, x: -torch.cdist(x, means), resamples=50,
    )  # fmt: skip


def curve() -> Result:
    ids = torch.ones(6, 4, dtype=torch.long)
    return metrics.erasure_curve(
        None, (ids, ids[:, 0]), lambda model, x, y, seed: torch.arange(4.0).expand(6, 4), mask=0, ratios=[0.5, 1.0],
        predict=lambda model, x: torch.stack((1 - x[:, 0], x[:, 0]), 1).double(), resamples=50, quiet=True,
    )  # fmt: skip


class Bag(nn.Module):
    """Logits from the sum of a token's vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 2)

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        return self.table(ids).sum(1)


def tuned() -> Result:
    ids = torch.randint(1, 9, (12, 4), generator=torch.Generator().manual_seed(0))
    return metrics.masked_finetune(Bag(), (ids, ids[:, 0] % 2), (ids, ids[:, 0] % 2), mask_id=0, epochs=2, quiet=True)


def usual() -> Result:
    ids = torch.randint(1, 9, (60, 4), generator=torch.Generator().manual_seed(0))
    table = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    test = MaSF.fit(lambda ids, attention: [table[ids]], ids[:40], mask_id=0, quiet=True)
    return test.in_distribution(ids[40:], ratios=[0.0, 0.5])


def randomised() -> Result:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
    return metrics.randomisation(net, INPUTS, {"x": lambda m, x, y: x}, draws=1, resamples=50, quiet=True)


MADE: dict[str, Callable[[], Result]] = {
    "saco": lambda: metrics.saco(predict, INPUTS, INPUTS * WEIGHTS, 3, n_random=1, **FAST),
    "curves": lambda: metrics.removal_curves(predict, INPUTS, INPUTS * WEIGHTS, fractions=4, n_random=1, **FAST),
    "erasure": lambda: metrics.erasure(predict, INPUTS, INPUTS * WEIGHTS, n_random=1, **FAST),
    "flips": lambda: metrics.decision_flips(predict, INPUTS, INPUTS * WEIGHTS, **FAST),
    "normalised": lambda: metrics.normalised_aopc(predict, INPUTS, INPUTS * WEIGHTS, **FAST),
    "sensitivity": lambda: metrics.sensitivity(predict, INPUTS, slope, resamples=50, quiet=True),
    "report": lambda: metrics.compare_explanations(
        predict, INPUTS, {"slope": slope, "x": lambda x, y: x}, ["morf", "infidelity"], permutations=99, **FAST
    ),
    "roar": roar,
    "erasure curve": curve,
    "fine-tuning": tuned,
    "in distribution": usual,
    "randomisation": randomised,
}


@pytest.mark.parametrize("name", MADE)
def test_results_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    found = MADE[name]()
    path = found.save(tmp_path / "result.json")
    again = type(found).load(path)
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert repr(again) == repr(found)
    assert "\n" not in repr(found)
    assert again._repr_html_() == found._repr_html_()
    assert again.figure().to_json() == found.figure().to_json()
    for named in found.to_frame().columns:
        assert " " not in str(named)


@dataclass(frozen=True)
class Largest(metrics.ExplanationMetric):
    """Somebody else's: whether the element of the largest score is the first; `place` is its setting."""

    place: int = 0

    name = "largest"

    def objection(self, case: metrics.Case) -> str | None:
        return "is for features" if case.tensor.ndim != 2 else None

    def run(self, case: metrics.Case) -> metrics.PerSample:
        values = (np.asarray(case.attributions).argmax(1) == self.place).astype(float)
        return metrics.PerSample(columns={"hit": values}, better={"hit": "higher"}, interval=case.interval)


def test_a_metric_of_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    explain = {"slope": slope, "weights": WEIGHTS.expand_as(INPUTS)}
    report = metrics.compare_explanations(predict, INPUTS, explain, [Largest(), "morf"], permutations=99, **FAST)
    assert list(report.better) == ["largest", "morf"]
    assert report.values("largest", "weights").tolist() == [1.0] * 8
    monkeypatch.setattr(metrics.EXPLANATION_METRICS, "_own", dict(metrics.EXPLANATION_METRICS._own))
    metrics.EXPLANATION_METRICS.register("largest", Largest)
    named = metrics.compare_explanations(
        predict, INPUTS, explain, "largest", settings={"largest": {"place": 1}}, permutations=99, **FAST
    )
    assert named.values("largest", "weights").tolist() == [0.0] * 8
    two = {"first": Largest(), "second": Largest(1)}
    both = metrics.compare_explanations(predict, INPUTS, explain, two, permutations=99, **FAST)
    assert list(both.better) == ["first", "second"]
    images = torch.rand(4, 1, 4, 4)
    with pytest.raises(InputError, match=r"metric 'largest' on explainers\['x'\]: is for features"):
        metrics.compare_explanations(
            lambda x: torch.full((len(x), 2), 0.5), images, {"x": images[:, 0]}, [Largest()], quiet=True
        )


def test_objects_have_settings_of_their_own_and_names_are_not_mixed_with_them() -> None:
    given = predict, INPUTS, {"slope": slope}
    report = metrics.compare_explanations(*given, [metrics.SaCoMetric(groups=2)], permutations=99, **FAST)
    direct = metrics.saco(predict, INPUTS, slope(INPUTS, predict(INPUTS).argmax(1)), 2, **FAST)
    np.testing.assert_allclose(report.values("saco", "slope"), direct.values)
    for asked, settings, message in (
        ([metrics.SaCoMetric()], {"saco": {"groups": 2}}, "has settings of its own"),
        ([metrics.RemovalCurvesMetric(), "morf"], None, "is there as an object already"),
        ([metrics.SaCoMetric(), metrics.SaCoMetric(2)], None, "under a name of its own"),
    ):
        with pytest.raises(InputError, match=message):
            metrics.compare_explanations(*given, asked, settings=settings, **FAST)


def needy(predict: Any, inputs: Any, salience: Any, *, replacement: Any) -> Any:
    return np.zeros(len(inputs))


def test_old_keywords_are_refused_with_the_new_ones() -> None:
    scores = INPUTS * WEIGHTS
    for call, message in (
        (lambda: metrics.saco(predict, INPUTS, scores, 2, random=1), "n_random"),
        (lambda: metrics.saco(predict, INPUTS, scores, 2, replacement="zero"), "baseline"),
        (lambda: metrics.erasure(predict, INPUTS, salience=scores), "attributions"),
        (lambda: metrics.erasure_curve(None, None, len, mask=0, random=3), "n_random"),
        (lambda: metrics.road(predict, INPUTS, scores, replacement="zero"), "its own baseline"),
        (lambda: metrics.saco(predict, INPUTS, scores, 2, sed=1), "keyword of saco='sed' is unknown"),
        (lambda: metrics.compare_explanations(predict, INPUTS, {"x": scores}, needy, **FAST), "needs replacement"),
        (lambda: metrics.compare_explanations(predict, INPUTS, {"x": scores}, random=1), "n_random"),
    ):
        with pytest.raises(InputError, match=message):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match="to_frame"):
        usual()["in distribution"]  # type: ignore[index]

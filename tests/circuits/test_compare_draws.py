"""`compare_methods` over draws of scoring prompts and over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import metrics
from attribution import attribute
from attribution.edges.acdc import ACDC
from attribution.edges.ensemble import Ensemble
from attribution.edges.gradient import EAP, EAPIG
from attribution.edges.learned import EdgePruning
from attribution.edges.method import Method
from attribution.edges.patched import Exact
from circuits import MethodComparison, compare_methods
from circuits.drawn import reseeded
from interp.errors import InputError
from interp.setting import Setting
from metrics.statistics import resample
from tests.tiny import shared, tiny_task

QUIET: dict[str, Any] = {"quiet": True, "resamples": 100}


@dataclass(frozen=True)
class Drawn(Method):
    """Scores that a seed draws."""

    seed: int = 0

    name = "drawn"
    calls: ClassVar[list[int]] = []

    def drawn_with(self) -> int:
        return self.seed

    def values(self, setting: Setting) -> torch.Tensor:
        self.calls.append(self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        return setting.graph.edge_mask * torch.rand(setting.graph.shape, generator=generator)


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return tiny_task(model, n=10)


@pytest.fixture(scope="module")
def table(model: Any, task: Any) -> MethodComparison:
    Drawn.calls.clear()
    return compare_methods(model, task, ["eap", Drawn()], draws=3, seeds=2, n_random=1, **QUIET)


def test_every_draw_is_scored_and_judged_on_the_same_prompts(model: Any, task: Any, table: MethodComparison) -> None:
    scoring, judging = task.split(0.5, 0)
    draws = table.draws.query("method == 'eap'")
    assert list(zip(draws["draw"], draws["seed"], strict=True)) == [(d, s) for d in range(3) for s in range(2)]
    for draw, some in enumerate(resample(len(scoring), 3, 0)):
        scores = attribute(model, scoring.select(some), "eap", quiet=True)
        curve = metrics.faithfulness_curve(model, judging, scores, absolute=True, quiet=True)
        of_draw = draws[draws["draw"] == draw]
        assert of_draw["cmd"].tolist() == pytest.approx([curve.cmd] * 2)
        assert of_draw["log_cpr"].tolist() == pytest.approx([curve.log_cpr.value] * 2)


def test_seeds_are_those_of_methods_that_draw(model: Any, task: Any, table: MethodComparison) -> None:
    assert Drawn.calls == [0, 0, 1, 2, 3, 4, 5]
    draws = table.draws.query("method == 'drawn'")
    assert draws["cmd"].nunique() > 1
    _, judging = task.split(0.5, 0)
    scores = attribute(model, judging, Drawn(5), quiet=True)
    curve = metrics.faithfulness_curve(model, judging, scores, absolute=True, quiet=True)
    assert draws["cmd"].iloc[-1] == pytest.approx(curve.cmd)


def test_intervals_are_over_draws_whose_seeds_are_averaged(table: MethodComparison) -> None:
    frame = table.to_frame().set_index("method")
    by_draw = table.draws.groupby(["method", "draw"])["cmd"].mean().unstack()
    for name in ("eap", "drawn"):
        assert frame.loc[name, "cmd_drawn"] == pytest.approx(by_draw.loc[name].mean())
        assert frame.loc[name, "cmd_drawn_low"] <= frame.loc[name, "cmd_drawn"] <= frame.loc[name, "cmd_drawn_high"]
    assert np.isnan(frame.loc["random", "cmd_drawn"])
    pair = table.pairs.query("area == 'cmd' and first == 'eap' and second == 'drawn'").iloc[0]
    assert pair["difference_drawn"] == pytest.approx((by_draw.loc["eap"] - by_draw.loc["drawn"]).mean())
    assert 0 < pair["p_drawn"] <= pair["p_adjusted_drawn"] <= 1
    assert (table.about["draws"], table.about["seeds"]) == (3, 2)
    assert "cmd_drawn" in table.summary()


def test_seeds_alone(model: Any, task: Any) -> None:
    table = compare_methods(model, task, ["eap", Drawn()], seeds=3, n_random=0, **QUIET)
    frame = table.to_frame().set_index("method")
    assert frame.loc["eap", "cmd_drawn"] == pytest.approx(frame.loc["eap", "cmd"])
    assert frame.loc["eap", "cmd_drawn_high"] == pytest.approx(frame.loc["eap", "cmd"])
    assert frame.loc["drawn", "cmd_drawn_high"] > frame.loc["drawn", "cmd_drawn_low"]


def test_seeds_of_methods_inside_methods() -> None:
    eap, exact, acdc = EAP(), Exact(), ACDC(seed=3)
    assert reseeded(eap, 2) is eap
    assert reseeded(exact, 2) is exact
    assert reseeded(Exact(sample=5), 2).seed == 2
    assert reseeded(acdc, 2).seed == 5
    assert reseeded(EdgePruning(start=acdc), 1).start == ACDC(seed=4)
    again = reseeded(Ensemble(methods=(eap, acdc)), 1)
    assert again.members[0] is eap
    assert again.members[1] == ACDC(seed=4)


def test_what_cannot_be_drawn(model: Any, task: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="draws=0"):
        compare_methods(model, task, ["eap"], draws=0, **QUIET)
    with pytest.raises(InputError, match="resume="):
        compare_methods(model, task, {"one": {"method": "exact", "resume": tmp_path / "x"}}, draws=2, **QUIET)
    assert not [*tmp_path.iterdir()]  # refused before any work
    ready = attribute(model, task.split(0.5, 0)[0], EAPIG(), quiet=True)
    assert "cmd_drawn" not in compare_methods(model, task, [ready], draws=2, n_random=0, **QUIET).to_frame()

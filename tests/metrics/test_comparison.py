"""Curves of several methods compared: by hand, against plain loops, and on resamples that are known."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import InputError
from interp.interval import Interval
from interp.selection import LADDER_FRACTIONS
from metrics import cmd, cpr
from metrics.circuit.comparison import AREAS, Ladder, compare_curves, kept, needed
from metrics.statistics import resample
from metrics.testing import adjust
from tests.expanded import expanded

SIZES = len(LADDER_FRACTIONS)
EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
N = 12


def ladder_of(method: str, ranking: str = "absolute", seed: int = 0, edges: tuple[int, ...] = EDGES) -> Ladder:
    """Objectives that rise from 0 to about 1, with noise of their own for every prompt."""
    noise = np.random.default_rng(seed).normal(0, 0.2, (SIZES, N))
    return Ladder(method, ranking, edges, np.linspace(0, 1, SIZES)[:, None] + noise)


@pytest.fixture
def prompts() -> tuple[np.ndarray, np.ndarray]:
    """Objectives of the clean model and of the empty circuit."""
    generator = np.random.default_rng(9)
    return 1 + generator.normal(0, 0.1, N), generator.normal(0, 0.1, N)


def test_edges_needed_by_hand() -> None:
    f = np.array([0.1, 0.9, 0.6, 0.86, 0.84, 0.86, 0.9, 0.96, 0.94, 1.0])
    edges = np.array(EDGES, dtype=float)
    assert needed(f, edges, 0.85) == 2
    assert needed(f, edges, 0.95) == 200
    assert kept(f, edges, 0.85) == 50
    assert kept(f, edges, 0.95) == 1000
    assert np.isnan(needed(f, edges, 1.01))
    assert np.isnan(kept(np.where(f == 1, 0.5, f), edges, 0.95))
    both = needed(np.stack([f, np.ones(SIZES)]), np.stack([edges, edges]), 0.85)
    assert both.tolist() == [2, 1]


def test_rows_are_the_curves_own_figures(prompts: tuple[np.ndarray, np.ndarray]) -> None:
    clean, empty = prompts
    ladders = [ladder_of("a"), ladder_of("a", "signed", 1), ladder_of("b", seed=2), ladder_of("b", "signed", 3)]
    found = compare_curves(clean, empty, ladders, Interval(resamples=50))
    assert found.rows["method"].tolist() == ["a", "b"]
    for i, (method, suffix) in enumerate((m, s) for m in (0, 1) for s in ("", "_signed")):
        f = (ladders[i].values.mean(1) - empty.mean()) / (clean.mean() - empty.mean())
        row = found.rows.loc[method]
        assert row[f"cpr{suffix}"] == pytest.approx(float(cpr(LADDER_FRACTIONS, f)))
        assert row[f"cmd{suffix}"] == pytest.approx(float(cmd(LADDER_FRACTIONS, f)))
        assert row[f"edges_85{suffix}"] == next(e for e, value in zip(EDGES, f, strict=True) if value >= 0.85)
        part = found.points.iloc[i * SIZES : (i + 1) * SIZES]
        assert part["faithfulness"].tolist() == pytest.approx(f.tolist())
        assert part["edges"].tolist() == list(EDGES)
    log_p = np.log(LADDER_FRACTIONS)
    f = (ladders[0].values.mean(1) - empty.mean()) / (clean.mean() - empty.mean())
    assert found.rows.at[0, "log_cmd"] == pytest.approx(np.trapezoid(np.abs(1 - f), log_p) / (log_p[-1] - log_p[0]))


def test_differences_are_paired_over_prompts_by_a_plain_loop(prompts: tuple[np.ndarray, np.ndarray]) -> None:
    clean, empty = prompts
    a, b = ladder_of("a"), ladder_of("b", seed=2)
    found = compare_curves(clean, empty, [a, b], Interval(resamples=40, seed=5), correction="none")

    def area(ladder: Ladder, chosen: np.ndarray) -> float:
        low = empty[chosen].mean()
        f = (ladder.values[:, chosen].mean(1) - low) / (clean[chosen].mean() - low)
        return float(cmd(LADDER_FRACTIONS, f))

    everyone = np.arange(N)
    differences = np.array([area(a, drawn) - area(b, drawn) for drawn in resample(N, 40, 5)])
    (row,) = found.pairs[found.pairs["area"] == "cmd"].to_dict("records")
    assert (row["first"], row["second"]) == ("a", "b")
    assert row["difference"] == pytest.approx(area(a, everyone) - area(b, everyone))
    left_out = [area(a, np.delete(everyone, i)) - area(b, np.delete(everyone, i)) for i in everyone]
    assert (row["low"], row["high"]) == pytest.approx(expanded(differences, left_out, N, 0.95))
    # p by its definition: the interval of confidence 1 - p ends at zero
    ends = expanded(differences, left_out, N, 1 - row["p"])
    assert min(map(abs, ends)) == pytest.approx(0, abs=1e-9)
    # what makes pairing worth it: the methods share their prompts' luck
    shared = np.random.default_rng(1).normal(0, 1, N)
    better = Ladder("better", "absolute", EDGES, a.values + shared + 0.05)
    worse = Ladder("worse", "absolute", EDGES, a.values + shared)
    paired = compare_curves(clean, empty, [better, worse], Interval(resamples=400))
    width = paired.rows.at[0, "cpr_high"] - paired.rows.at[0, "cpr_low"]
    (row,) = paired.pairs[paired.pairs["area"] == "cpr"].to_dict("records")
    assert row["low"] > 0
    assert row["high"] - row["low"] < width / 5


def test_a_method_does_not_differ_from_itself(prompts: tuple[np.ndarray, np.ndarray]) -> None:
    a = ladder_of("a")
    twin = Ladder("twin", "absolute", EDGES, a.values.copy())
    pairs = compare_curves(*prompts, [a, twin], Interval(resamples=30)).pairs
    assert pairs["area"].tolist() == list(AREAS)
    assert (pairs[["difference", "low", "high"]] == 0).all(axis=None)
    assert (pairs[["p", "p_adjusted"]] == 1).all(axis=None)


def test_p_values_are_corrected_over_the_pairs_of_an_area(prompts: tuple[np.ndarray, np.ndarray]) -> None:
    ladders = [ladder_of(name, seed=i) for i, name in enumerate("abcd")]
    pairs = compare_curves(*prompts, ladders, Interval(resamples=60)).pairs
    for _, part in pairs.groupby("area"):
        assert len(part) == 6
        assert part["p_adjusted"].tolist() == pytest.approx(adjust(part["p"], "holm").tolist())
    assert compare_curves(*prompts, ladders[:1], Interval(resamples=10)).pairs.empty


def test_without_a_behaviour_there_are_no_figures() -> None:
    flat = np.zeros(N)
    found = compare_curves(flat, flat, [ladder_of("a"), ladder_of("b", seed=1)], Interval(resamples=10))
    assert found.rows[["cpr", "cmd", "edges_85", "edges_85_kept"]].isna().all(axis=None)
    assert found.pairs[["difference", "p", "p_adjusted"]].isna().all(axis=None)


def test_a_comparison_of_nothing_is_refused_and_one_prompt_decides_nothing() -> None:
    with pytest.raises(InputError, match="ladders is empty"):
        compare_curves(np.ones(4), np.zeros(4), [], Interval())
    a, b = (Ladder(name, "absolute", EDGES, np.full((SIZES, 1), value)) for name, value in (("a", 0.9), ("b", 0.2)))
    pairs = compare_curves(np.ones(1), np.zeros(1), [a, b], Interval(resamples=10)).pairs
    assert (pairs["difference"].abs() > 0).all()
    assert pairs[["low", "high", "p", "p_adjusted"]].isna().all(axis=None)

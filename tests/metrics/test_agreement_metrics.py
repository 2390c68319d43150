"""`metrics.agreement`: correlations with intervals, against scipy and against resampling done the slow way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import metrics
from interp.errors import InputError
from metrics.agreement_table import AgreementTable, combine
from tests.expanded import expanded


def draw(n=60, seed=0, noise=0.5):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    return x, x + noise * generator.normal(size=n)


def one(x, y, **settings):
    """The single row of a comparison."""
    table = metrics.agreement(x, {"y": y}, **{"drop": (0,), "resamples": 50, **settings})
    return table.to_frame().iloc[0]


# ---- the statistics


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys(seed):
    x, y = draw(seed=seed)
    row = one(x, y)
    assert row["pearson"] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
    assert row["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


def test_ties_get_their_mean_rank():
    x, y = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 5.0]), np.array([2.0, 1.0, 1.0, 1.0, 4.0, 4.0])
    assert one(x, y, top=())["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


def test_signs_are_compared_where_the_reference_has_one():
    row = one([1.0, -2.0, 3.0, 0.0, 4.0], [5.0, 6.0, 0.0, 7.0, 1.0], top=())
    assert row["sign"] == 2 / 4  # agree: first and last; a zero agrees with nothing; the reference's zero is left out


def test_top_k_overlap_by_hand():
    reference, candidate = [9.0, -8.0, 7.0, 1.0, 0.5], [1.0, -9.0, 8.0, -7.0, 0.1]
    row = one(reference, candidate, top=(1, 2, 3, 5, 6))
    assert [row[f"top_{k}"] for k in (1, 2, 3, 5)] == [0.0, 1 / 2, 2 / 3, 1.0]
    assert np.isnan(row["top_6"])  # there are but five points


def test_one_huge_point_makes_a_correlation_and_dropping_it_unmakes_it():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 200))
    x[7], y[7] = -300, -290
    table = metrics.agreement(x, {"y": y}, drop=(0, 1), resamples=200)
    assert table.to_frame()["pearson"][0] > 0.99
    assert abs(table.to_frame()["pearson"][1]) < 0.2
    assert table.to_frame()["spearman"][0] < 0.2
    assert table.to_frame()["n"].tolist() == [200, 199]


def test_a_constant_has_no_correlation_and_raises_no_warning():
    row = one(np.arange(5.0), np.full(5, 0.1), top=())
    assert np.isnan(row["pearson"])
    assert np.isnan(row["spearman"])
    assert np.isnan(row["pearson_low"])
    assert row["sign"] == 1.0


# ---- the intervals


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_are_those_of_resampling_the_slow_way(clustered):
    n, resamples = 40, 60
    x, y = draw(n)
    x, y = x.round(1), y.round(1)  # ties
    clusters = np.arange(n) // 4 if clustered else np.arange(n)
    names = np.unique(clusters)
    drawn = np.random.default_rng(3).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    slow = {"pearson": [], "spearman": [], "sign": []}
    for counts in (*drawn, *(1 - np.eye(len(names), dtype=int))):  # resamples, then each cluster left out
        chosen = np.repeat(np.arange(n), counts[clusters])
        slow["pearson"].append(stats.pearsonr(x[chosen], y[chosen])[0])
        slow["spearman"].append(stats.spearmanr(x[chosen], y[chosen])[0])
        there = x[chosen] != 0
        slow["sign"].append((np.sign(x[chosen]) == np.sign(y[chosen]))[there].mean())
    row = one(x, y, clusters=clusters if clustered else None, resamples=resamples, seed=3, confidence=0.9)
    for name, values in slow.items():
        ends = expanded(values[:resamples], values[resamples:], len(names), 0.9)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(ends, abs=1e-9)


def test_top_k_in_resamples_is_that_of_the_points_written_out():
    x, y = draw(30)
    resamples, k = 40, 5
    drawn = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=resamples)
    slow = []
    for counts in (*drawn, *(1 - np.eye(30, dtype=int))):
        chosen = np.repeat(np.arange(30), counts)
        places = [chosen[np.argsort(-np.abs(v[chosen]), kind="stable")[:k]].tolist() for v in (x, y)]
        slow.append(sum(min(places[0].count(i), places[1].count(i)) for i in set(places[0])) / k)
    row = one(x, y, top=(k,), resamples=resamples, seed=1)
    assert (row["top_5_low"], row["top_5_high"]) == pytest.approx(
        np.clip(expanded(slow[:resamples], slow[resamples:], 30, 0.95), 0, 1), abs=1e-12
    )


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    truth, n = 0.8, 100
    covered = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        x = generator.normal(size=n)
        y = truth * x + np.sqrt(1 - truth**2) * generator.normal(size=n)
        row = one(x, y, resamples=300, seed=seed, top=())
        covered += row["pearson_low"] <= truth <= row["pearson_high"]
    assert 0.88 < covered / 200 < 0.99


def test_clusters_that_move_together_make_wider_intervals():
    generator = np.random.default_rng(0)
    common = np.repeat(generator.normal(size=(2, 10)), 20, axis=1)
    x, y = common + 0.1 * generator.normal(size=(2, 200))
    apart, together = one(x, y), one(x, y, clusters=np.repeat(np.arange(10), 20))
    assert (together["pearson_high"] - together["pearson_low"]) > 2 * (apart["pearson_high"] - apart["pearson_low"])


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    x, y = draw()
    assert one(x, y, seed=1).equals(one(x, y, seed=1))
    assert one(x, y, seed=1)["pearson_low"] != one(x, y, seed=2)["pearson_low"]


def test_other_candidates_and_long_blocks_change_nothing(monkeypatch):
    x, y = draw()
    alone = one(x, y)
    both = metrics.agreement(x, {"other": -y, "y": y}, drop=(0,), resamples=50)
    assert both.to_frame().iloc[1].drop("method").equals(alone.drop("method"))
    monkeypatch.setattr("metrics.correlation._BLOCK", 200)
    few = one(x, y)
    # blocks of another size draw the same counts in the same order
    assert few["pearson_low"] == alone["pearson_low"]


def test_differences_are_paired():
    x, y = draw(200, noise=0.3)
    worse = y + 0.3 * np.random.default_rng(5).normal(size=200)
    table = metrics.agreement(x, {"worse": worse, "better": y}, drop=(0, 1))
    frame = table.differences()
    assert frame["method"].tolist() == ["better", "better"]
    assert frame["pearson"][0] == pytest.approx(table.to_frame()["pearson"][1] - table.to_frame()["pearson"][0])
    assert frame["pearson_low"][0] > 0
    widths = table.to_frame()["pearson_high"] - table.to_frame()["pearson_low"]
    assert frame["pearson_high"][0] - frame["pearson_low"][0] < widths[0] + widths[1]
    assert table.differences("better")["pearson"][0] == -frame["pearson"][0]
    with pytest.raises(InputError, match="baseline"):
        table.differences("none")


# ---- the table


def test_tensors_of_any_shape_are_taken_and_points_are_kept():
    x, y = (torch.tensor(v).reshape(6, 10).requires_grad_() for v in draw())
    table = metrics.agreement(
        x, {"y": y}, labels=[f"p{i}" for i in range(60)], clusters=np.arange(60) // 6, resamples=20
    )
    assert isinstance(table, AgreementTable)
    assert table.points.columns.tolist() == ["label", "cluster", "reference", "y"]
    assert table.points["label"][3] == "p3"


def test_html_and_markdown_show_values_with_their_intervals():
    x, y = draw()
    table = metrics.agreement(x, {"y<": y}, resamples=20)
    cell, row = table.summary()["pearson"][0], table.to_frame().iloc[0]
    assert cell == f"{row['pearson']:.3f} [{row['pearson_low']:.3f}, {row['pearson_high']:.3f}]"
    assert cell in table._repr_html_()
    assert "y&lt;" in table._repr_html_()
    lines = table.markdown().splitlines()
    assert lines[0] == "| method | dropped | n | pearson | spearman | sign | top_10 | top_50 |"
    assert len(lines) == 2 + 3
    assert cell in lines[2]


def test_the_figure_has_a_panel_for_each_candidate_and_marks_large_points():
    x, y = draw()
    figure = metrics.agreement(x, {"a": y, "b": -y}, resamples=20, drop=(0, 2)).figure()
    scatters = [trace for trace in figure.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in scatters] == [58, 2, 58, 2]
    assert set(np.abs(scatters[1].x)) == set(np.sort(np.abs(x))[-2:])
    assert "r = " in figure.layout.annotations[0].text


def test_tables_are_combined_under_a_column_of_their_own():
    x, y = draw()
    one, two = (metrics.agreement(x, {"y": v}, resamples=20) for v in (y, -y))
    both = combine({"first": one, "second": two}, "component")
    assert both.to_frame().columns[0] == "component"
    assert both.to_frame()["component"].tolist() == ["first"] * 3 + ["second"] * 3
    assert both.to_frame()["pearson"].tolist() == [*one.to_frame()["pearson"], *two.to_frame()["pearson"]]
    assert set(both.points["component"]) == {"first", "second"}
    assert len([t for t in both.figure().data if t.mode == "markers"]) == 4
    assert both.markdown().startswith("| component | method |")
    with pytest.raises(InputError, match="combined already"):
        combine({"x": both}, "y")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": {}}, "candidates is empty"),
        ({"candidates": {"y": [1.0, 2.0]}}, r"candidates\['y'\] has 2 values, reference 5"),
        ({"reference": [1, 2, 3, 4, np.nan]}, "reference holds 1 values that are NaN"),
        ({"reference": ["a"] * 5}, "reference must be numbers"),
        ({"labels": ["a"]}, "labels has 1 names for 5 points"),
        ({"clusters": [0, 1]}, "clusters must be 5 integers"),
        ({"clusters": [0, 0, 0, 0, 0]}, "single cluster"),
        ({"top": (0,)}, "top"),
        ({"drop": (-1,)}, "drop"),
        ({"drop": ()}, "drop is empty"),
        ({"drop": (3,)}, "fewer than 3 of 5 points"),
        ({"resamples": 0}, "resamples=0"),
        ({"confidence": 1.0}, "confidence=1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    given = {"reference": [1.0, 2, 3, 4, 5], "candidates": {"y": [1.0, 2, 3, 5, 4]}, "drop": (0,), **change}
    reference, candidates = given.pop("reference"), given.pop("candidates")
    with pytest.raises(InputError, match=message):
        metrics.agreement(reference, candidates, **given)


def test_it_is_kept_in_a_file(tmp_path):
    x, y = draw()
    found = metrics.agreement(x, {"y": y}, resamples=20, drop=(0, 2))
    again = AgreementTable.load(found.save(tmp_path / "agreement.json"))
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    pd.testing.assert_frame_equal(again.points, found.points)
    assert repr(again) == repr(found)

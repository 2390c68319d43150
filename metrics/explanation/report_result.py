"""`ExplanationReport`: explanations beside each other, with tests, mean ranks, a figure and a page."""

from __future__ import annotations

import html
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from interp import theme
from interp.charts import charts
from interp.files import write_text
from interp.interval import Estimate, Interval
from interp.result import Result
from interp.tables import html_table, page
from metrics.explanation.prediction import Array
from metrics.explanation.samples import PerSample, means
from metrics.testing import Testing, adjust, paired_test

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, repr=False)
class ExplanationReport(Result):
    """What `compare_explanations` found.

    Attributes:
        results: by explainer, values of all metrics for each sample, and those of scores dealt out at random.
        testing: how p-values are corrected (all of one table together) and judged.
        interval: how the intervals are made.
        n_random: how often scores were dealt out at random.
    """

    results: Mapping[str, PerSample]
    testing: Testing
    interval: Interval
    n_random: int

    @property
    def better(self) -> Mapping[str, str]:
        """By metric, `higher` or `lower`."""
        return next(iter(self.results.values())).better

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per metric and explainer.

        Columns: metric, explainer, better, n, value, low, high; with random scores also random, difference (paired, the
        explanation less its scores dealt out at random), each with `_low` and `_high`, p and p_adjusted.
        """
        parts = [result.summary().assign(explainer=name) for name, result in self.results.items()]
        table = pd.concat(parts, ignore_index=True)
        table["metric"] = pd.Categorical(table["metric"], list(self.better))
        table = table.sort_values("metric", kind="stable", ignore_index=True)
        table["metric"] = table["metric"].astype(str)
        if self.n_random and "random" in table:
            table["p"] = [self._p_of_random(*pair) for pair in zip(table["explainer"], table["metric"], strict=True)]
            table["p_adjusted"] = adjust(table["p"], self.testing.correction)
        return table[["metric", "explainer", *table.columns.drop(["metric", "explainer"])]]

    def to_frame(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Paired tests of all pairs of explainers by each metric.

        Columns: metric, better, first, second, n, difference (first less second) with its interval, p, p_adjusted and
        favours: the better one where p_adjusted is at most the level, else nothing.
        """
        rows = []
        for metric, better in self.better.items():
            for first, second in itertools.combinations(self.results, 2):
                a, b = self.values(metric, first), self.values(metric, second)
                mean = means([a - b], self.interval)[0]
                rows.append(
                    {
                        "metric": metric, "better": better, "first": first, "second": second,
                        "n": int(np.isfinite(a - b).sum()), "difference": mean.value, "low": mean.low,
                        "high": mean.high, "p": self._test(a, b),
                    }
                )  # fmt: skip
        columns = ["metric", "better", "first", "second", "n", "difference", "low", "high", "p"]
        table = pd.DataFrame(rows, columns=columns)
        table["p_adjusted"] = adjust(table["p"].to_numpy(float), self.testing.correction)
        rising = [way == "higher" for way in table["better"]]
        ahead = np.where((table["difference"].to_numpy(float) > 0) == rising, table["first"], table["second"])
        table["favours"] = np.where(table["p_adjusted"] <= self._level, ahead, "")
        return table

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """Mean rank of each explainer, 1 being best: over metrics and samples with an interval, and by metric.

        Ranks are taken sample by sample, ties sharing theirs; samples that an explainer has no value for are left
        out. Columns: explainer, mean_rank, low, high, and one for each metric.
        """
        by_metric = {metric: self._ranks(metric) for metric in self.better}
        stacked = np.stack(list(by_metric.values()))  # [metric, explainer, n]
        there = np.isfinite(stacked)
        mean = np.where(there, stacked, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)
        overall = means(list(mean), self.interval)
        columns: dict[str, Any] = {
            "explainer": list(self.results),
            "mean_rank": [one.value for one in overall],
            "low": [one.low for one in overall],
            "high": [one.high for one in overall],
        }
        columns |= {metric: [one.value for one in means(list(own), self.interval)] for metric, own in by_metric.items()}
        return pd.DataFrame(columns).sort_values("mean_rank", kind="stable", ignore_index=True)

    def values(self, metric: str, explainer: str) -> Array:
        """A metric's values `[n]`."""
        return self.results[explainer].columns[metric]

    @property
    def notes(self) -> list[str]:
        """What a reader must know."""
        notes = [f"{name}: {result.note}" for name, result in self.results.items() if result.note]
        n = max(int(np.isfinite(v).sum()) for one in self.results.values() for v in one.columns.values())
        smallest = max(2 / (self.testing.permutations + 1), 2.0 ** (1 - n))  # two-sided
        count = max(len(self.tests), len(self.frame) if "p" in self.frame else 0)
        if self.testing.correction == "holm" and smallest * count > self._level:
            notes.append(
                f"{count} tests of {n} samples with {self.testing.permutations} permutations: after correction no "
                f"single p-value can reach {self._level:.2g}. Give more samples or permutations, or fewer metrics."
            )
        return notes

    def figure(self) -> Figure:
        """Mean ranks, and a panel for each metric: means with intervals, scores dealt out at random in grey."""
        from plotly.subplots import make_subplots

        names = list(self.ranks["explainer"])
        titles = ["mean rank (1 is best)", *(f"{name} ({way} is better)" for name, way in self.better.items())]
        columns = min(3, len(titles))
        figure = make_subplots(
            rows=-(-len(titles) // columns), cols=columns, shared_yaxes=True,
            subplot_titles=[theme.label(title) for title in titles],
        )  # fmt: skip
        ranks = [Estimate(*row) for row in self.ranks[["mean_rank", "low", "high"]].to_numpy().tolist()]
        _points(figure, (1, 1), names, ranks, theme.OWN)
        for place, metric in enumerate(self.better, 1):
            cell = place // columns + 1, place % columns + 1
            random = [self.results[name].random for name in names]
            if all(one is not None for one in random):
                _points(figure, cell, names, [one[metric] for one in random if one is not None], theme.CONTROL)
            _points(figure, cell, names, [self.results[name].estimates[metric] for name in names], theme.OWN)
        figure.update_yaxes(autorange="reversed", type="category")
        figure.update_yaxes(title="explanation", col=1)
        for place in range(len(titles)):
            axis = "value" if place else "rank"
            figure.update_xaxes(title=axis, row=place // columns + 1, col=place % columns + 1)
        height = 170 + -(-len(titles) // columns) * (90 + 34 * len(names))
        return theme.styled(
            figure, self.headline(), "grey: scores dealt out at random", height=height, showlegend=False
        )

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as one page that needs no network (about 2 MB, most of it plotly.js); written to `path` if given.

        Raises:
            InputError: the folder of `path` does not exist, or `path` cannot be written.
        """
        tables = {"Mean ranks": self.ranks, "Explanations": _readable(self.frame)}
        tables["All pairs of explainers"] = _readable(self.tests)
        parts = [f"<h1>{html.escape(self.headline())}</h1>", f"<p>{html.escape(self._reading)}</p>"]
        parts += [f"<p class='note'>{html.escape(note)}</p>" for note in self.notes]
        parts += [charts([self.figure()])]
        parts += [f"<h2>{name}</h2>\n<div class='wide'>{html_table(table)}</div>" for name, table in tables.items()]
        text = page(self.headline(), "\n".join(parts))
        if path is not None:
            write_text(path, text)
        return text

    def headline(self) -> str:
        n = len(next(iter(next(iter(self.results.values())).columns.values())))
        best = "; best by mean rank: " + str(self.ranks["explainer"].iloc[0]) if len(self.results) > 1 else ""
        return f"{len(self.results)} explanations, {len(self.better)} metrics, {n} samples{best}"

    def _repr_html_(self) -> str:
        tables = html_table(self.ranks) + html_table(_readable(self.frame))
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p><b>{html.escape(repr(self))}</b></p>{tables}{notes}"

    @property
    def _reading(self) -> str:
        level = f"{self.interval.confidence:.0%}"
        adjusted = {"holm": "Holm's method", "bh": "Benjamini and Hochberg's method", "none": "no correction"}
        against = (
            f" Random: the same scores dealt out at random over each sample's elements, mean of {self.n_random} draws."
            if self.n_random
            else ""
        )
        return (
            f"Means over samples with {level} bootstrap intervals, seed {self.interval.seed}.{against} P-values by "
            f"paired sign flips, adjusted for all tests of a table by {adjusted[self.testing.correction]}."
        )

    @property
    def _level(self) -> float:
        return self.testing.alpha + 1e-12

    def _test(self, first: Array, second: Array) -> float:
        return paired_test(first, second, resamples=self.testing.permutations, seed=self.interval.seed)

    def _p_of_random(self, explainer: str, metric: str) -> float:
        random = self.results[explainer].random_columns
        return np.nan if random is None else self._test(self.values(metric, explainer), random[metric])

    def _ranks(self, metric: str) -> Array:
        """Ranks `[explainer, n]`, NaN in samples that an explainer has no value for."""
        values = np.stack([result.columns[metric] for result in self.results.values()])
        sign = -1 if self.better[metric] == "higher" else 1
        # what differs by rounding alone is a tie
        ranks = rankdata(np.round(sign * values, 9), axis=0, nan_policy="omit")
        return np.where(np.isfinite(values).all(0), ranks, np.nan)


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Intervals in the cell of their value."""
    result = frame.copy()
    for name in ("value", "random", "difference"):
        prefix = "" if name == "value" or f"{name}_low" not in result else f"{name}_"
        if name in result:
            triples = zip(result[name], result[f"{prefix}low"], result[f"{prefix}high"], strict=True)
            result[name] = ["" if np.isnan(value) else str(Estimate(value, *ends)) for value, *ends in triples]
    for name in ("p", "p_adjusted"):
        if name in result:
            result[name] = ["" if np.isnan(value) else f"{value:.2g}" for value in result[name]]
    return result[[name for name in result if not str(name).endswith(("low", "high"))]]


def _points(
    figure: Figure, cell: tuple[int, int], names: Sequence[str], points: Sequence[Estimate], colour: str
) -> None:
    figure.add_scatter(
        x=[point.value for point in points], y=[theme.label(name) for name in names], mode="markers",
        marker={"color": colour, "size": 8}, row=cell[0], col=cell[1], error_x=theme.error_bars(points),
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )  # fmt: skip

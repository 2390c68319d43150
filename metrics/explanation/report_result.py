"""`ExplanationReport`: explanations beside each other, with tests, mean ranks, a figure and a page."""

from __future__ import annotations

import html
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from interp.files import write_text
from metrics.explanation.prediction import Array
from metrics.explanation.report_page import page
from metrics.explanation.saco import PerSample, means
from metrics.testing import adjust, paired_test

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, repr=False)
class ExplanationReport:
    """What `compare_explanations` found.

    Attributes:
        results: by explainer, values of all metrics for each sample, and their baseline.
        correction: how p-values are corrected, all of one table together.
        permutations: of each test.
        random: how many dealt-out saliences the baseline is the mean of.
    """

    results: Mapping[str, PerSample]
    correction: str
    permutations: int
    settings: Mapping[str, Any]
    random: int

    @property
    def better(self) -> Mapping[str, str]:
        """By metric, `higher` or `lower`."""
        return next(iter(self.results.values())).better

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per metric and explainer.

        Columns: metric, explainer, better, n, value, low, high; with a baseline also random, difference (paired, the
        explanation less its scores dealt out at random), each with `low` and `high`, p and adjusted p.
        """
        parts = [result.summary().assign(explainer=name) for name, result in self.results.items()]
        table = pd.concat(parts, ignore_index=True)
        table["metric"] = pd.Categorical(table["metric"], list(self.better))
        table = table.sort_values("metric", kind="stable", ignore_index=True)
        table["metric"] = table["metric"].astype(str)
        if self.random and "random" in table:
            table["p"] = [self._p_of_baseline(*pair) for pair in zip(table["explainer"], table["metric"], strict=True)]
            table["adjusted p"] = adjust(table["p"], self.correction)
        return table[["metric", "explainer", *table.columns.drop(["metric", "explainer"])]]

    def to_frame(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Paired tests of all pairs of explainers by each metric.

        Columns: metric, better, first, second, n, difference (first less second) with its interval, p, adjusted p and
        favours: the better one where the adjusted p is at most 1 - confidence, else nothing.
        """
        rows = []
        for metric, better in self.better.items():
            for first, second in itertools.combinations(self.results, 2):
                a, b = self.values(metric, first), self.values(metric, second)
                mean = means([a - b], self.settings)[0]
                rows.append(
                    {
                        "metric": metric, "better": better, "first": first, "second": second,
                        "n": int(np.isfinite(a - b).sum()), "difference": mean.value, "low": mean.low,
                        "high": mean.high, "p": self._test(a, b),
                    }
                )  # fmt: skip
        columns = ["metric", "better", "first", "second", "n", "difference", "low", "high", "p"]
        table = pd.DataFrame(rows, columns=columns)
        table["adjusted p"] = adjust(table["p"].to_numpy(float), self.correction)
        rising = [way == "higher" for way in table["better"]]
        ahead = np.where((table["difference"].to_numpy(float) > 0) == rising, table["first"], table["second"])
        table["favours"] = np.where(table["adjusted p"] <= self._level, ahead, "")
        return table

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """Mean rank of each explainer, 1 being best: over metrics and samples with an interval, and by metric.

        Ranks are taken sample by sample, ties sharing theirs; samples that an explainer has no value for are left
        out. Columns: explainer, mean rank, low, high, and one for each metric.
        """
        by_metric = {metric: self._ranks(metric) for metric in self.better}
        stacked = np.stack(list(by_metric.values()))  # [metric, explainer, n]
        there = np.isfinite(stacked)
        mean = np.where(there, stacked, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)
        overall = means(list(mean), self.settings)
        columns: dict[str, Any] = {
            "explainer": list(self.results),
            "mean rank": [one.value for one in overall],
            "low": [one.low for one in overall],
            "high": [one.high for one in overall],
        }
        columns |= {metric: [one.value for one in means(list(own), self.settings)] for metric, own in by_metric.items()}
        return pd.DataFrame(columns).sort_values("mean rank", kind="stable", ignore_index=True)

    def values(self, metric: str, explainer: str) -> Array:
        """A metric's values `[n]`."""
        return self.results[explainer].columns[metric]

    @property
    def notes(self) -> list[str]:
        """What a reader must know."""
        notes = [f"{name}: {result.note}" for name, result in self.results.items() if result.note]
        n = max(int(np.isfinite(v).sum()) for one in self.results.values() for v in one.columns.values())
        smallest = max(2 / (self.permutations + 1), 2.0 ** (1 - n))  # two-sided
        count = max(len(self.tests), len(self.frame) if "p" in self.frame else 0)
        if self.correction == "holm" and smallest * count > self._level:
            notes.append(
                f"{count} tests of {n} samples with {self.permutations} permutations: after correction no single "
                f"p-value can reach {self._level:.2g}. Give more samples or permutations, or fewer metrics."
            )
        return notes

    def figure(self) -> Figure:
        """Mean ranks, and a panel for each metric: means with intervals, the dealt-out baseline in grey."""
        from plotly.subplots import make_subplots

        names = list(self.ranks["explainer"])
        labels = [html.escape(name, quote=False) for name in names]
        titles = ["mean rank (1 is best)", *(f"{name} ({way} is better)" for name, way in self.better.items())]
        columns = min(3, len(titles))
        figure = make_subplots(
            rows=-(-len(titles) // columns), cols=columns, shared_yaxes=True,
            subplot_titles=[html.escape(title, quote=False) for title in titles],
        )  # fmt: skip
        _points(figure, 1, 1, labels, self.ranks[["mean rank", "low", "high"]].to_numpy(), "#0072B2")
        for place, metric in enumerate(self.better, 1):
            own = self.frame[self.frame["metric"] == metric].set_index("explainer").loc[names]
            row, column = place // columns + 1, place % columns + 1
            if "random" in own:
                triples = own[["random", "random low", "random high"]].to_numpy()
                _points(figure, row, column, labels, triples, "#999999")
            _points(figure, row, column, labels, own[["value", "low", "high"]].to_numpy(), "#0072B2")
        figure.update_yaxes(autorange="reversed", type="category")
        height = 130 + -(-len(titles) // columns) * (70 + 34 * len(names))
        figure.update_layout(template="plotly_white", height=height, showlegend=False)
        return figure

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as one page that needs no network (about 5 MB, most of it plotly.js); written to `path` if given.

        Raises:
            InputError: the folder of `path` does not exist, or `path` cannot be written.
        """
        tables = {
            "Mean ranks": self.ranks,
            "Explanations": self._readable(self.frame),
            "All pairs of explainers": self._readable(self.tests),
        }
        text = page(self._title, self._reading, self.notes, self.figure(), tables)
        if path is not None:
            write_text(path, text)
        return text

    def __repr__(self) -> str:
        ranks, table = (
            frame.to_string(index=False, float_format=lambda v: f"{v:.3f}")
            for frame in (self.ranks, self._readable(self.frame))
        )
        return "\n".join([self._title, ranks, table, *self.notes])

    def _repr_html_(self) -> str:
        parts = (
            frame.to_html(index=False, border=0, float_format="{:.3f}".format)
            for frame in (self.ranks, self._readable(self.frame))
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p><b>{html.escape(self._title)}</b></p>{''.join(parts)}{notes}"

    @property
    def _title(self) -> str:
        n = len(next(iter(next(iter(self.results.values())).columns.values())))
        return f"{len(self.results)} explanations, {len(self.better)} metrics, {n} samples"

    @property
    def _reading(self) -> str:
        level = f"{self.settings['confidence']:.0%}"
        adjusted = {"holm": "Holm's method", "bh": "Benjamini and Hochberg's method", "none": "no correction"}
        against = (
            f" Random: the same scores dealt out at random over each sample's elements, mean of {self.random} draws."
            if self.random
            else ""
        )
        return (
            f"Means over samples with {level} bootstrap intervals, seed {self.settings['seed']}.{against} P-values by "
            f"paired sign flips, adjusted for all tests of a table by {adjusted[self.correction]}."
        )

    @property
    def _level(self) -> float:
        return 1 - float(self.settings["confidence"]) + 1e-12

    def _test(self, first: Array, second: Array) -> float:
        return paired_test(first, second, resamples=self.permutations, seed=int(self.settings["seed"]))

    def _p_of_baseline(self, explainer: str, metric: str) -> float:
        baseline = self.results[explainer].baseline
        return np.nan if baseline is None else self._test(self.values(metric, explainer), baseline[metric])

    def _ranks(self, metric: str) -> Array:
        """Ranks `[explainer, n]`, NaN in samples that an explainer has no value for."""
        values = np.stack([result.columns[metric] for result in self.results.values()])
        sign = -1 if self.better[metric] == "higher" else 1
        # what differs by rounding alone is a tie
        ranks = rankdata(np.round(sign * values, 9), axis=0, nan_policy="omit")
        return np.where(np.isfinite(values).all(0), ranks, np.nan)

    def _readable(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Intervals in the cell of their value."""
        result = frame.copy()
        for name in ("value", "random", "difference"):
            prefix = "" if name == "value" or f"{name} low" not in result else f"{name} "
            if name in result:
                triples = zip(result[name], result[f"{prefix}low"], result[f"{prefix}high"], strict=True)
                result[name] = [
                    "" if np.isnan(v) else f"{v:z.3f} [{low:z.3f}, {high:z.3f}]" for v, low, high in triples
                ]
        for name in ("p", "adjusted p"):
            if name in result:
                result[name] = ["" if np.isnan(v) else f"{v:.2g}" for v in result[name]]
        return result[[name for name in result if not str(name).endswith(("low", "high"))]]


def _points(figure: Figure, row: int, column: int, labels: list[str], triples: Array, colour: str) -> None:
    value, low, high = triples.T
    figure.add_scatter(
        x=value, y=labels, mode="markers", marker={"color": colour, "size": 8}, row=row, col=column,
        error_x={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )  # fmt: skip

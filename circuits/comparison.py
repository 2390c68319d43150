"""The result that `compare_methods` returns: methods in a table, with pairs, points, figures and a page."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp import theme
from interp.charts import charts
from interp.errors import InputError, choose
from interp.files import write_text
from interp.interval import Estimate
from interp.renamed import OnceFrame
from interp.result import Result
from interp.tables import html_table, markdown_table, page, text_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# the theme's, and three more, since many methods are compared; controls are grey
COLOURS = (*theme.SERIES, "#000000", "#8C564B", "#7F7F00")
COST_TITLES = {
    "seconds": "seconds to score",
    "passes": "forward and backward passes per prompt",
    "peak_memory_mb": "peak memory of scoring (MB)",
}


@dataclass(frozen=True, eq=False, repr=False)
class MethodComparison(OnceFrame, Result):
    """Methods ranked by CMD: `to_frame()` has one row a method.

    Columns, those with an interval followed by `_low` and `_high`:

    - `method`, `rank` (1 has the smallest CMD); `random` and `inverted NAME` are controls;
    - `cpr`, `cmd`: areas under faithfulness (no upper bound) and under its distance from 1 (0 is perfect) over the
      share of edges; `log_cpr`, `log_cmd`: their means over the logarithm of it, which the two largest sizes do not
      rule. Circuits hold the edges of largest |score|; with `_signed` those of largest signed score. MIB reports
      `cpr_signed` and `cmd`;
    - `edges_85`, `edges_95`: edges of the smallest circuit on the ladder that reaches this faithfulness;
      `edges_85_kept`: of the smallest from which on no larger one falls below it. Of nodes `nodes_85` and so on;
    - `kl`, `same_argmax`: KL(model || circuit) in nats, and the share of prompts whose most likely token is the
      model's: means over the logarithm of the share of edges, like `log_cmd`. At every size they stand in `points`;
    - `cmd_drawn` and so on, of areas and outputs: means over the draws of scoring prompts that were asked for, with
      their interval over draws (over seeds, where there is one draw);
    - `auroc`, `average_precision`: against a known circuit, by |score|; NaN without one;
    - `pearson`, `spearman`: with exact patching on a sample of edges, if it was asked for; intervals are over edges;
    - `forwards`, `backwards`: passes per prompt by the method's formula; `seconds` by the clock, of scoring alone;
    - `peak_memory_mb`: what scoring held beyond what was held before; `memory_kind`: `process` (resident memory, by
      the kernel) or `gpu` (torch's allocator).

    A selection that ranks in one way alone (`balanced`) has no `_signed` figures.

    `pairs` is a frame of paired differences between methods in the four areas and both outputs (by |score|), with
    intervals and p-values from the same resamples, corrected over the pairs of an area; columns that end in `_drawn`
    are paired over draws. `points` is a frame of faithfulness and outputs at every size. `about` says what was
    compared, on what.

    `circuits` has a row for each single circuit that was given, and behind it one for the circuit of its size that
    each method chooses, and for the mean of random ones: `faithfulness`, `kl`, `same_argmax`, and `farther`, by how
    much |1 - faithfulness| is larger than that of the circuit given, with its paired p-value. `draws` has a row for
    each method, draw and seed.
    """

    frame: pd.DataFrame
    pairs: pd.DataFrame
    points: pd.DataFrame
    about: dict[str, Any]
    circuits: pd.DataFrame = field(default_factory=pd.DataFrame)
    draws: pd.DataFrame = field(default_factory=pd.DataFrame)

    def to_frame(self) -> pd.DataFrame:
        return self.frame.copy()

    @property
    def level(self) -> str:
        """What circuits are made of: `edge`, or `neuron`, `head`, `node`, `feature`."""
        return str(self.about.get("level", "edge"))  # not in files of earlier versions

    @property
    def counted(self) -> str:
        """What columns of sizes are called by: `edges` or `nodes`."""
        return "edges" if self.level == "edge" else "nodes"

    def summary(self) -> pd.DataFrame:
        """The columns that most readers want, with cells such as `0.041 [0.030, 0.052]`."""
        plain = self.frame
        result = plain[["rank", "method"]].copy()
        for name in ("cmd", "cpr", "cpr_signed", "log_cmd", "kl", "same_argmax"):
            if name in plain:
                result[name] = _cells(plain, name, "{:z.3f}")
        for name in ("cmd_drawn", "log_cmd_drawn"):
            if name in plain:
                result[name] = _cells(plain, name, "{:z.3f}")
        for name in (f"{self.counted}_85", f"{self.counted}_95"):
            result[name] = _cells(plain, name, "{:,.0f}")
        for name in ("auroc", "average_precision"):
            if plain[name].notna().any():
                result[name] = [_number(value, "{:.3f}") for value in plain[name]]
        for name in ("pearson", "spearman"):
            if name in plain:
                result[name] = _cells(plain, name, "{:z.3f}")
        result["passes"] = [
            f"{_number(f, '{:g}')} + {_number(b, '{:g}')}" if np.isfinite(f) else "n/a"
            for f, b in zip(plain["forwards"], plain["backwards"], strict=True)
        ]
        result["seconds"] = [_number(value, "{:.1f}") for value in plain["seconds"]]
        result["peak MB"] = [_number(value, "{:,.0f}") for value in plain["peak_memory_mb"]]
        return result

    def markdown(self) -> str:
        """The summary as a table in GitHub's Markdown."""
        return markdown_table(self.summary().astype(str))

    def fits(self) -> None:
        super().fits()
        self.curves()

    def headline(self) -> str:
        about, best = self.about, self.frame.iloc[0]
        return (
            f"{best['method']} has the smallest CMD, {best['cmd']:.3f}, of {len(self.frame)}; "
            f"{about['task'].get('name', 'task')} in {about['model'] or 'a model'}: scored on {about['n_scoring']} "
            f"prompts, judged on {about['n_judging']} others; {about[self.counted]:,} {self.level}s, ablation "
            f"{about['ablation']}, selection {about['selection']}, {about['confidence']:.0%} bootstrap intervals, seed "
            f"{about['seed']}"
        )

    def single(self) -> pd.DataFrame:
        """`circuits` with cells such as `0.041 [0.030, 0.052]`."""
        result = self.circuits[["circuit", "method", self.counted]].copy()
        for name in ("faithfulness", "kl", "same_argmax", "farther"):
            result[name] = _cells(self.circuits, name, "{:z.3f}")
        result["p_adjusted"] = [_number(value, "{:.3f}") for value in self.circuits["p_adjusted"]]
        return result

    def __str__(self) -> str:
        tables = [self.summary(), *([self.single()] if len(self.circuits) else [])]
        return "\n".join([repr(self), *map(text_table, tables)])

    def _repr_html_(self) -> str:
        tables = [self.summary(), *([self.single()] if len(self.circuits) else [])]
        return f"<p>{html.escape(repr(self))}</p>{''.join(map(html_table, tables))}"

    def curves(self, ranking: str = "absolute") -> Figure:
        """Faithfulness over the share of edges (nodes), on a logarithmic axis, with the intervals as bands."""
        import plotly.graph_objects as go

        points = self.points[self.points["ranking"] == choose("ranking", ranking, self.points["ranking"].unique())]
        figure = go.Figure()
        for name, colour in self._colours().items():
            part = points[points["method"] == name]
            label = theme.label(name)
            theme.band(figure, part["fraction"].tolist(), part["low"].tolist(), part["high"].tolist(), colour)
            figure.data[-1].legendgroup = label
            figure.add_scatter(
                x=part["fraction"],
                y=part["faithfulness"],
                name=label,
                legendgroup=label,
                mode="lines+markers",
                line={"color": colour, "dash": "dash" if colour == theme.CONTROL else "solid"},
                customdata=part[self.counted],
                hovertemplate=f"%{{y:.3f}} with %{{customdata:,}} {self.level}s<extra>" + label + "</extra>",
            )
        theme.target_line(figure)
        figure.update_xaxes(type="log", title=f"share of {self.level}s")
        figure.update_yaxes(title="faithfulness")
        return theme.styled(figure, self._title(f"faithfulness by size, {ranking} scores"))

    def pareto(self, cost: str = "seconds", quality: str = "cmd") -> Figure:
        """What methods cost against how good they are, with intervals; a line joins those that none beats in both.

        `cost` is `seconds`, `passes` (forward and backward together) or `peak_memory_mb`; `quality` an area of the
        table. Rows without that cost, and controls, are left out.
        """
        import plotly.graph_objects as go

        choose("cost", cost, COST_TITLES)
        choose("quality", quality, [f"{a}{s}" for s in ("", "_signed") for a in ("cmd", "log_cmd", "cpr", "log_cpr")])
        plain = self.frame.assign(passes=self.frame["forwards"] + self.frame["backwards"])
        colours = self._colours()
        plain = plain[np.isfinite(plain[cost]) & (plain["method"].map(colours) != theme.CONTROL)].sort_values(cost)
        better = plain[quality] if "cmd" in quality else -plain[quality]
        front = plain[better < better.cummin().shift(fill_value=np.inf)]
        figure = go.Figure()
        figure.add_scatter(
            x=front[cost], y=front[quality], mode="lines", line={"color": theme.FAINT, "shape": "hv"}, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
        for row in plain.to_dict("records"):
            value, label = row[quality], theme.label(str(row["method"]))
            error = theme.error_bars([Estimate(value, row[f"{quality}_low"], row[f"{quality}_high"])])
            figure.add_scatter(
                x=[row[cost]], y=[value], mode="markers+text", text=[label], textposition="top right", name=label,
                marker={"size": 10, "color": colours[row["method"]]}, error_y=error,
                showlegend=False, hovertemplate="%{y:.3f} at %{x:.3g}<extra>" + label + "</extra>",
            )  # fmt: skip
        figure.update_xaxes(type="log", title=COST_TITLES[cost])
        figure.update_yaxes(title=quality.replace("_", " ").upper().replace("LOG", "log").replace("SIGNED", "(signed)"))
        return theme.styled(figure, self._title("cost against quality"))

    def figure(self) -> Figure:
        """`curves()` of circuits by |score|."""
        return self.curves()

    def to_html(self, path: str | os.PathLike[str] | None = None, **of_pandas: Any) -> str:
        """The whole comparison as one page that needs no network; written to `path` if there is one.

        Raises `InputError` for settings of pandas' own, which this took in 0.1.
        """
        if of_pandas:
            raise InputError(f"{self._holds()}: .to_frame().to_html takes {', '.join(of_pandas)}")
        text = _page(self)
        if path is not None:
            write_text(path, text)
        return text

    def _title(self, what: str) -> str:
        """Model, task and what is shown; methods have their names in the picture."""
        return theme.named(self.about["model"], self.about["task"].get("name"), what)

    def _colours(self) -> dict[str, str]:
        names = self.points["method"].unique().tolist()  # in the order given, whoever won
        own = [name for name in names if name.split(" ")[0] not in ("random", "inverted")]
        return {name: COLOURS[own.index(name) % len(COLOURS)] if name in own else theme.CONTROL for name in names}


def _number(value: float, shape: str) -> str:
    return shape.format(value) if np.isfinite(value) else "n/a"


def _cells(frame: pd.DataFrame, name: str, shape: str) -> list[str]:
    triples = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
    return [
        f"{shape.format(value)} [{shape.format(low)}, {shape.format(high)}]" if np.isfinite(value) else "n/a"
        for value, low, high in triples
    ]


def _page(table: MethodComparison) -> str:
    title = f"Methods compared on {table.about['task'].get('name', 'a task')}"
    notes = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in table.about["notes"])
    rankings = table.points["ranking"].unique()
    pairs = table.pairs[table.pairs["area"].isin(["cmd", "cpr"])]
    correction = html.escape(str(table.about["correction"]))
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(table.headline())}</p>{notes}",
        f"<div class='wide'>{html_table(table.summary())}</div>",
        charts([*map(table.curves, rankings), table.pareto(), table.pareto("passes")]),
        f"<h2>Differences between methods</h2><p>Paired over prompts; p-values corrected by {correction}.</p>",
        f"<div class='wide'>{html_table(pairs, digits=4)}</div>",
    ]
    if len(table.circuits):
        told = "Behind each, what methods make of its size, and by how much it is farther from the model."
        parts += [f"<h2>Single circuits</h2><p>{told}</p><div class='wide'>{html_table(table.single())}</div>"]
    return page(title, "\n".join(parts))

"""What `sweep` returns: one row a circuit, over models, tasks, methods and seeds."""

from __future__ import annotations

import html
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp import theme
from interp.charts import charts
from interp.files import write_text
from interp.interval import Estimate
from interp.result import Result
from interp.tables import html_table, markdown_table, page

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

KEYS = ["model", "task", "method", "seed"]


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(Result):
    """Circuits of a sweep: `to_frame()` has one row for each that was found, in the order of the grid.

    Columns:

    - `model`, `task`, `method`, `seed`: which one;
    - `faithfulness` on held-out prompts, with the ends `_low` and `_high` of its interval over prompts;
    - `random`: mean faithfulness of random circuits of the same size, with `random_low`, `random_high`;
    - `kl`: mean KL divergence of the circuit's output from the model's, in nats;
    - `size`: edges (of circuits of nodes, nodes); `fraction`: of all; `level` says of what;
    - `n_scoring`, `n_held_out`: prompts; `seconds`: by the clock, of the machine that found it;
    - `notes`: what its report remarks.

    What is not known is NaN.

    Attributes:
        frame: these rows.
        kept: all edges (nodes) of all circuits with their scores, under the same first four columns.
        failed: jobs that raised, and `error`.
        about: the grid.
    """

    frame: pd.DataFrame
    kept: pd.DataFrame
    failed: pd.DataFrame
    about: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        return self.frame.copy()

    def over_seeds(self) -> pd.DataFrame:
        """One row a model, task and method: seeds, and of each figure its mean over them, lowest and highest."""
        grouped = self.frame.groupby(KEYS[:3], sort=False)
        found = grouped.agg(
            seeds=("seed", "size"), faithfulness=("faithfulness", "mean"), lowest=("faithfulness", "min"),
            highest=("faithfulness", "max"), random=("random", "mean"), kl=("kl", "mean"), size=("size", "mean"),
            fraction=("fraction", "mean"), seconds=("seconds", "mean"),
        )  # fmt: skip
        return found.reset_index()

    def headline(self) -> str:
        counts = [f"{self.frame[name].nunique()} {name}s" for name in KEYS]
        failed = f"; {len(self.failed)} failed" if len(self.failed) else ""
        return f"{len(self.frame)} circuits of {', '.join(counts)}{failed}"

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        return markdown_table(self.frame)

    def figure(self) -> Figure:
        """Faithfulness of each circuit with its interval, and of random circuits of the same size in grey."""
        import plotly.graph_objects as go

        figure = go.Figure()
        names = self.frame["method"].unique().tolist()
        for number, name in enumerate(names):
            rows = self.frame[self.frame["method"] == name]
            _points(figure, rows, "faithfulness", name, theme.SERIES[number % len(theme.SERIES)])
        if self.frame["random"].notna().any():
            _points(figure, self.frame, "random", "random", theme.CONTROL)
        theme.target_line(figure)
        figure.update_xaxes(title="task and model")
        figure.update_yaxes(title="faithfulness")
        figure.update_layout(scattermode="group")
        return theme.styled(figure, f"Faithfulness on held-out prompts: {', '.join(names)}")

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Tables and figure as one page that needs no network; written to `path` if there is one."""
        parts = [f"<h1>{html.escape(self.headline())}</h1>"]
        parts += [
            f"<p class='note'>{html.escape(str(self._failure(row)))}</p>" for row in self.failed.to_dict("records")
        ]
        if len(self.frame):
            parts += [charts([self.figure()])]
            parts += [_section("Over seeds", self.over_seeds()), _section("Every circuit", self.frame)]
        text = page(self.headline(), "\n".join(parts))
        if path is not None:
            write_text(path, text)
        return text

    def _failure(self, row: Mapping[Hashable, Any]) -> str:
        return f"{row['method']} on {row['task']} in {row['model']}, seed {row['seed']}, failed: {row['error']}"


def _points(figure: Figure, rows: pd.DataFrame, value: str, name: str, colour: str) -> None:
    estimates = [Estimate(*ends) for ends in rows[[value, f"{value}_low", f"{value}_high"]].itertuples(index=False)]
    places = zip(rows["model"], rows["task"], strict=True)
    figure.add_scatter(
        x=[f"{theme.label(task)}<br>{theme.label(model)}" for model, task in places],
        y=rows[value], mode="markers", name=theme.label(name), marker={"color": colour, "size": 8},
        error_y=theme.error_bars(estimates), customdata=rows["seed"],
        hovertemplate="%{y:.3f}, seed %{customdata}<extra>" + theme.label(name) + "</extra>",
    )  # fmt: skip


def _section(title: str, frame: pd.DataFrame) -> str:
    return f"<h2>{title}</h2><div class='wide'>{html_table(frame)}</div>"

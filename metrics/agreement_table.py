"""The result that `metrics.agreement` returns: it keeps its resamples and its points."""

from __future__ import annotations

import functools
import html
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp import theme
from interp.errors import InputError, choose
from interp.keeping import kept
from interp.renamed import OnceFrame
from interp.result import Result
from interp.tables import html_table, markdown_table, text_table
from metrics.percentiles import Resampled, percentile_interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Array = NDArray[np.float64]


@kept
@dataclass(frozen=True)
class AgreementRow:
    """One candidate without so many of the largest points, and its statistics [k] with their resamples."""

    method: str
    dropped: int
    n: int
    found: Resampled


Part = tuple[str | None, list[AgreementRow], pd.DataFrame]  # name of a component, its rows, its points


@dataclass(frozen=True, eq=False, repr=False)
class AgreementTable(OnceFrame, Result):
    """Agreement with a reference.

    `to_frame()` has the columns method, dropped, n and, for each statistic, its value, `_low` and `_high`.

    Attributes:
        parts: for each component (one without a name, where there are none) its name, rows and points.
        column: what the components are called: the leading column of a combined table.
        names: of the statistics.
        confidence: of the intervals.
        about: what was scored, such as model and task, for the title of its figure.
    """

    parts: list[Part]
    column: str | None
    names: tuple[str, ...]
    confidence: float
    about: str = ""

    @classmethod
    def of(
        cls,
        rows: Sequence[AgreementRow],
        *,
        names: Sequence[str],
        confidence: float,
        points: Mapping[str, Array],
        labels: list[str] | None,
        clusters: NDArray[np.int64] | None,
    ) -> AgreementTable:
        """Put a table together from its rows."""
        named: dict[str, Any] = {"label": labels or [str(i) for i in range(len(points["reference"]))]}
        if clusters is not None:
            named["cluster"] = clusters
        frame = pd.DataFrame({**named, **points})
        return cls([(None, list(rows), frame)], None, tuple(names), confidence)

    @functools.cached_property
    def _frame(self) -> pd.DataFrame:
        data = []
        for part, rows, _ in self.parts:
            for row in rows:
                low, high = _interval(row.found, self.names, self.confidence)
                cells: dict[str, Any] = {self.column: part} if self.column else {}
                cells |= {"method": row.method, "dropped": row.dropped, "n": row.n}
                for i, name in enumerate(self.names):
                    cells |= {name: row.found.point[i], f"{name}_low": low[i], f"{name}_high": high[i]}
                data.append(cells)
        return pd.DataFrame(data)

    def fits(self) -> None:
        super().fits()
        for _, rows, _ in self.parts:
            methods, drops = {row.method for row in rows}, {row.dropped for row in rows}
            if not rows or {(row.method, row.dropped) for row in rows} != set(itertools.product(methods, drops)):
                raise InputError("rows of parts must be of each method at each number of dropped points")

    def to_frame(self) -> pd.DataFrame:
        return self._frame.copy()

    def headline(self) -> str:
        first = self._frame.iloc[0]
        where = "" if self.column is None else f" ({first[self.column]})"
        shown = [f"{name} {_cell(*(first[f'{name}{end}'] for end in ('', '_low', '_high')))}" for name in self.names]
        return (
            f"{first['method']}{where} on {first['n']} points: {', '.join(shown)}; {self.confidence:.0%} bootstrap "
            f"intervals, {len(self._frame)} rows"
        )

    @property
    def points(self) -> pd.DataFrame:
        """What was compared: label, cluster if there are any, reference, one column per candidate."""
        frames = [frame if part is None else frame.assign(**{str(self.column): part}) for part, _, frame in self.parts]
        return pd.concat(frames, ignore_index=True)

    def differences(self, baseline: str | None = None) -> pd.DataFrame:
        """By how much each method is above a baseline (the first method, if None), with paired intervals.

        The methods were judged on the same resamples, so that an interval that leaves out zero says which is better
        even where the two intervals overlap.
        """
        methods = list(dict.fromkeys(row.method for _, rows, _ in self.parts for row in rows))
        baseline = methods[0] if baseline is None else choose("baseline", baseline, methods)
        data = []
        for part, rows, _ in self.parts:
            base = {row.dropped: row for row in rows if row.method == baseline}
            for row in rows:
                if row.method == baseline:
                    continue
                other = base[row.dropped]
                difference = row.found - other.found
                low, high = _interval(difference, self.names, self.confidence, difference=True)
                cells: dict[str, Any] = {self.column: part} if self.column else {}
                cells |= {"method": row.method, "baseline": baseline, "dropped": row.dropped}
                for i, name in enumerate(self.names):
                    cells |= {name: difference.point[i], f"{name}_low": low[i], f"{name}_high": high[i]}
                data.append(cells)
        return pd.DataFrame(data)

    def summary(self) -> pd.DataFrame:
        """The same with cells such as `0.912 [0.880, 0.940]`."""
        plain = self._frame
        heads = [self.column] if self.column else []
        result = plain[[*heads, "method", "dropped", "n"]].copy()
        for name in self.names:
            triples = zip(plain[name], plain[f"{name}_low"], plain[f"{name}_high"], strict=True)
            result[name] = [_cell(*triple) for triple in triples]
        return result

    def markdown(self) -> str:
        """The summary as a table in GitHub's Markdown."""
        return markdown_table(self.summary().astype(str))

    def __str__(self) -> str:
        return f"{self!r}\n{text_table(self.summary())}"

    def _repr_html_(self) -> str:
        level = html.escape(f"{self.confidence:.0%} bootstrap intervals; dropped: so many of the largest points")
        return f"<p>{level}</p>{html_table(self.summary())}"

    def figure(self) -> Figure:
        """Each candidate against the reference: a column a method, a row a component; large points in purple."""
        from plotly.subplots import make_subplots

        methods = list(dict.fromkeys(row.method for _, rows, _ in self.parts for row in rows))
        titles = [
            f"{'' if part is None else part + ': '}{row.method}<br>"
            f"r = {row.found.point[0]:.3f}, rho = {row.found.point[1]:.3f}"
            for part, rows, _ in self.parts
            for row in (next(r for r in rows if r.method == m and r.dropped == rows[0].dropped) for m in methods)
        ]
        figure = make_subplots(rows=len(self.parts), cols=len(methods), subplot_titles=titles)
        hover = "%{text}<br>reference %{x:.4g}<br>score %{y:.4g}<extra></extra>"
        for i, (_, rows, frame) in enumerate(self.parts, 1):
            large = frame["reference"].abs().rank(ascending=False, method="first") <= max(r.dropped for r in rows)
            low, high = frame["reference"].min(), frame["reference"].max()
            for j, method in enumerate(methods, 1):
                for chosen, colour in ((~large, theme.BLUE), (large, theme.PURPLE)):
                    figure.add_scattergl(
                        x=frame.loc[chosen, "reference"],
                        y=frame.loc[chosen, method],
                        text=frame.loc[chosen, "label"],
                        mode="markers",
                        marker={"size": 5, "color": colour, "opacity": 0.6},
                        hovertemplate=hover,
                        showlegend=False,
                        row=i,
                        col=j,
                    )
                figure.add_scatter(
                    x=[low, high], y=[low, high], mode="lines", line={"dash": "dot", "color": theme.DARK},
                    showlegend=False, hoverinfo="skip", row=i, col=j,
                )  # fmt: skip
        figure.update_xaxes(title="reference")
        figure.update_yaxes(title="score")
        title = theme.named(self.about, f"{', '.join(methods)} against the reference")
        return theme.styled(
            figure, title, width=max(theme.WIDE, 320 * len(methods)), height=140 + 320 * len(self.parts)
        )


def combine(tables: Mapping[str, AgreementTable], name: str) -> AgreementTable:
    """Several tables as one, with a leading column `name` that says which row is whose."""
    if not tables:
        raise InputError("tables is empty; give at least one")
    first = next(iter(tables.values()))
    parts: list[Part] = [(key, rows, frame) for key, table in tables.items() for _, rows, frame in table.parts]
    for key, table in tables.items():
        if table.names != first.names or len(table.parts) != 1:
            raise InputError(f"tables[{key!r}] cannot be combined: other statistics, or combined already")
    return AgreementTable(parts, name, first.names, first.confidence)


def _interval(
    found: Resampled, names: Sequence[str], confidence: float, difference: bool = False
) -> tuple[Array, Array]:
    """Ends of the intervals of named statistics, inside what correlations, shares or their differences can be."""
    most = np.ones(len(names))
    least = np.where(np.isin(names, ("pearson", "spearman")), -1.0, 0.0)
    if difference:
        least, most = least - most, most - least
    low, high = percentile_interval(found, confidence)
    return np.clip(low, least, most), np.clip(high, least, most)


def _cell(value: float, low: float, high: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:z.3f} [{low:z.3f}, {high:z.3f}]"

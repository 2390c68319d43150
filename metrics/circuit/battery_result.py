"""What the hypothesis tests of a circuit found, for people and for programs."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp import theme
from interp.errors import InputError
from interp.keeping import kept
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLUMNS = ("test", "null", "observed", "statistic", "p", "p_corrected", "rejected", "wanted", "passed", "meaning")


@kept
@dataclass(frozen=True)
class NullTest:
    """One test: its null hypothesis, what was observed, and what that means.

    Attributes:
        test: its name.
        null: the null hypothesis in words.
        observed: what was seen, in words.
        statistic: the same as a number: the share that the null is about, or HSIC.
        p: p-value; NaN where the test could not be made.
        wanted: `rejected` or `not rejected`: what a good circuit gets.
        meanings: what it means not to reject the null, and to reject it.
        p_corrected: corrected for the number of tests.
        rejected: whether p_corrected is at most the level.
    """

    test: str
    null: str
    observed: str
    statistic: float
    p: float
    wanted: str
    meanings: tuple[str, str]
    p_corrected: float = math.nan
    rejected: bool = False

    @property
    def meaning(self) -> str:
        """The decision in words."""
        return "could not be made" if math.isnan(self.p) else self.meanings[self.rejected]

    @property
    def passed(self) -> bool | None:
        """Whether the decision is the one that a good circuit gets; None if the test could not be made."""
        return None if math.isnan(self.p) else self.rejected == (self.wanted == "rejected")


@dataclass(frozen=True, repr=False)
class CircuitTests(Result):
    """The battery of tests of one circuit.

    Attributes:
        tests: in the order equivalence, independence, minimality, sufficiency, necessity.
        edges: the minimality test edge by edge (or node by node), from the least needed: edge (node), change, beaten
            (share of the random ones whose removal changes less), p, p_corrected, superfluous.
        settings: what they were made with: alpha, correction, tolerance, quantile, reference, level, numbers of
            prompts, random circuits, edges and runs, seed; the setting judged under: ablation, objective, kv, task; and
            `of`, the names of model, task and method.
        notes: what a reader must know to trust them.
    """

    tests: tuple[NullTest, ...]
    edges: pd.DataFrame
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> NullTest:
        """The test of that name."""
        return {one.test: one for one in self.tests}[name]

    def to_frame(self) -> pd.DataFrame:
        """One row a test.

        Columns: test, null, observed, statistic, p, p_corrected, rejected, wanted, passed, meaning.
        """
        columns = (
            "test",
            "null",
            "observed",
            "statistic",
            "p",
            "p_corrected",
            "rejected",
            "wanted",
            "passed",
            "meaning",
        )
        return pd.DataFrame([{name: getattr(one, name) for name in columns} for one in self.tests], columns=columns)

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """For each test: name, corrected p-value, decision, what a good circuit gets, and the decision in words."""
        marks = {True: "passed", False: "failed", None: "not made"}
        return [
            (
                one.test,
                "" if math.isnan(one.p) else f"{one.p_corrected:.2g}",
                marks[one.passed],
                f"null {one.wanted}",
                f"{one.meaning} ({one.observed})",
            )
            for one in self.tests
        ]

    @property
    def _heading(self) -> str:
        s = self.settings
        return (
            f"{s['prompts']} prompts, {s['n_random']} random circuits; p-values corrected by {s['correction']}, "
            f"level {s['alpha']:g}; {s['objective']} under {s['ablation']} ablation"
        )

    def headline(self) -> str:
        found = ", ".join(f"{one.test} {row[2]}" for one, row in zip(self.tests, self.rows(), strict=True))
        return f"{found} ({self._heading})"

    def figure(self) -> Figure:
        """Corrected p-values on a logarithmic axis with the level: blue where the circuit passed, orange where not."""
        import plotly.graph_objects as go

        made = [one for one in self.tests if one.passed is not None][::-1]
        if not made:
            raise InputError("no test could be made: there are no p-values to draw; see to_frame()")
        figure = go.Figure(
            go.Bar(
                x=[one.p_corrected for one in made],
                y=[f"{one.test} ({'passed' if one.passed else 'failed'})" for one in made],
                orientation="h",
                marker_color=[theme.POSITIVE if one.passed else theme.NEGATIVE for one in made],
                hovertext=[theme.label(f"{one.meaning} ({one.observed}); wanted: null {one.wanted}") for one in made],
                hoverinfo="text",
            )
        )
        theme.target_line(figure, self.settings["alpha"], vertical=True)
        figure.update_xaxes(type="log", title=f"p, corrected by {self.settings['correction']}; dotted: the level")
        figure.update_yaxes(title="test")
        named = theme.named(self.settings.get("of"), "tests of the circuit")
        return theme.styled(figure, named, self._heading, height=180 + 40 * len(made))

    def __str__(self) -> str:
        lines = [f"CircuitTests: {self._heading}"]
        for name, p, decision, wanted, text in self.rows():
            lines.append(f"  {name:13} {decision:8} p {p or '-':7} (wanted: {wanted})  {text}")
        return "\n".join(lines + [f"  Note: {note}" for note in self.notes])

    def _repr_html_(self) -> str:
        heads = ("test", "corrected p", "", "wanted", "")
        head = "".join(f"<th>{name}</th>" for name in heads)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows()
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p>{html.escape(self._heading)}</p><table><tr>{head}</tr>{body}</table>{notes}"

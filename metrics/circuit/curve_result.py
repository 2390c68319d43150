"""The result that `faithfulness_curve` returns: faithfulness over sizes, with random circuits and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from interp import theme
from interp.conditions import Conditions, titled
from interp.errors import InputError
from interp.interval import Estimate
from interp.kernels.evaluate import CircuitValues
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter


@dataclass(frozen=True, repr=False)
class Curve(Result):
    """Faithfulness on a ladder of circuit sizes.

    Attributes:
        fractions: nominal sizes p as shares of the graph's edges; `sizes` are int(p n) edges, before pruning. Of nodes,
            shares of all nodes of the level.
        edges: what pruning left of each size; of nodes all.
        points: faithfulness at each size with its bootstrap interval over prompts.
        cpr_estimate, cmd_estimate: areas over p with intervals; `log_cpr`, `log_cmd` the means over log p, which
            the two largest sizes do not rule.
        random: the same curve for random circuits of as many edges, if it was asked for.
        values: objectives per prompt of the clean model, the empty circuit and each circuit.
        setting: ablation, objective and prompts that it was judged under.
        level: what is counted: `edge`, or `neuron`, `head`, `node`, `feature`.
        complement: the same for what each circuit leaves out, if it was asked for: low where circuits are complete.
    """

    matching: ClassVar = (("fractions", "sizes", "edges", "points", "random"),)

    fractions: tuple[float, ...]
    sizes: tuple[int, ...]
    edges: tuple[int, ...]
    points: tuple[Estimate, ...]
    cpr_estimate: Estimate
    cmd_estimate: Estimate
    log_cpr: Estimate
    log_cmd: Estimate
    values: CircuitValues
    random: tuple[Estimate, ...] | None = None
    setting: Conditions | None = None
    level: str = "edge"
    complement: tuple[Estimate, ...] | None = None

    @property
    def faithfulness(self) -> tuple[float, ...]:
        """Faithfulness at each size."""
        return tuple(point.value for point in self.points)

    @property
    def cpr(self) -> float:
        """Area under f over p. Never report it alone: a circuit that beats the model raises it beyond 1."""
        return self.cpr_estimate.value

    @property
    def cmd(self) -> float:
        """Area under |1 - f| over p; lower is better."""
        return self.cmd_estimate.value

    def to_frame(self) -> pd.DataFrame:
        """One row per size: fraction, size, edges, faithfulness, low, high; random and complement if known."""
        columns: dict[str, Any] = {
            "fraction": self.fractions,
            "size": self.sizes,
            "edges": self.edges,
            "faithfulness": self.faithfulness,
            "low": [p.low for p in self.points],
            "high": [p.high for p in self.points],
        }
        for name, points in (("random", self.random), ("complement", self.complement)):
            if points is not None:
                columns |= {
                    name: [p.value for p in points],
                    f"{name}_low": [p.low for p in points],
                    f"{name}_high": [p.high for p in points],
                }
        return pd.DataFrame(columns)

    def headline(self) -> str:
        under = "" if self.setting is None else f"; {self.setting}"
        return f"CPR {self.cpr_estimate}, CMD {self.cmd_estimate}{under}"

    def figure(self, circuit: Any = None) -> Figure:
        """Faithfulness over log p with intervals, beside the band of random circuits and the clean model's 1.

        `circuit`: one with a report (what `find_circuit` returns), drawn as a point with a bar: its faithfulness on
        held-out prompts. Raises `InputError` for one whose report has none.
        """
        import plotly.graph_objects as go

        figure = go.Figure()
        lines = [("circuit", self.points, theme.OWN)]
        if self.complement is not None:
            lines.append(("without the circuit", self.complement, theme.PURPLE))
        if self.random is not None:
            lows, highs = [p.low for p in self.random], [p.high for p in self.random]
            theme.band(figure, self.fractions, lows, highs, theme.CONTROL)
            lines.append(("random circuits of equal size", self.random, theme.CONTROL))
        for name, points, colour in lines:
            figure.add_scatter(
                x=self.fractions,
                y=[p.value for p in points],
                error_y=theme.error_bars(points) if colour != theme.CONTROL else None,
                name=name,
                mode="lines+markers",
                line={"color": colour},
                customdata=list(self.edges),
                hovertemplate=f"%{{y:.3f}} with %{{customdata}} {self.level}s<extra>" + name + "</extra>",
            )
        if circuit is not None:
            figure.add_trace(_held_out(circuit))
        theme.target_line(figure)
        figure.update_xaxes(type="log", title=f"share of {self.level}s")
        figure.update_yaxes(title="faithfulness")
        title = titled(self.setting, "faithfulness by size")
        return theme.styled(figure, title, f"CPR {self.cpr:.3f}, CMD {self.cmd:.3f}, on prompts of the curve")


def _held_out(circuit: Any) -> Scatter:
    """A circuit's faithfulness on held-out prompts, at its share of the graph, with its interval."""
    import plotly.graph_objects as go

    report = getattr(circuit, "report", None)
    value, fraction, ends = (getattr(report, name, None) for name in ("faithfulness", "fraction", "interval"))
    if value is None or fraction is None:
        raise InputError("circuit has no report with a faithfulness on held-out prompts; give what find_circuit found")
    low, high = ends or (value, value)
    return go.Scatter(
        x=[fraction], y=[value], error_y=theme.error_bars([Estimate(value, low, high)]), mode="markers",
        name="the circuit, held-out prompts", marker={"color": theme.ORANGE, "size": 11, "symbol": "diamond"},
    )  # fmt: skip

"""`NeuronEffects`: what scaling some neurons does to tasks, beside random neurons like them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp import theme
from interp.interval import Estimate
from interp.keeping import kept
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@kept
@dataclass(frozen=True)
class Effect:
    """What one factor does to one objective of one task: means over prompts.

    Attributes:
        task, objective, factor: what was measured, and what activations were multiplied with.
        clean: the model as it is.
        scaled: the model with the neurons scaled; `change` is `scaled` less `clean`, prompt by prompt.
        random: the change that random neurons make, a mean over their sets; None without them.
        p: of the neurons' change against the random ones' (paired, by flipping signs); NaN without them.
    """

    task: str
    objective: str
    factor: float
    clean: Estimate
    scaled: Estimate
    change: Estimate
    random: Estimate | None
    p: float

    def row(self) -> dict[str, Any]:
        """Cells of a table."""
        none = Estimate(float("nan"), float("nan"), float("nan"))
        return {
            "task": self.task,
            "objective": self.objective,
            "factor": self.factor,
            **self.clean.columns("clean"),
            **self.scaled.columns("scaled"),
            **self.change.columns("change"),
            **(self.random or none).columns("random"),
            "p": self.p,
        }


@dataclass(frozen=True, repr=False)
class NeuronEffects(Result):
    """What scaling some neurons does to tasks.

    Attributes:
        effects: one for each task, objective and factor.
        n_neurons: how many neurons were scaled; `n_random` how many random sets of as many.
        model, seconds, settings: how it was measured.
    """

    effects: list[Effect]
    n_neurons: int
    n_random: int
    model: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """One row for each effect.

        Columns: task, objective, factor; clean, scaled, change, random (each with _low and _high); p.
        """
        return pd.DataFrame([one.row() for one in self.effects])

    def headline(self) -> str:
        first = self.effects[0]
        beside = "" if first.random is None else f", random neurons {first.random}"
        return (
            f"{self.n_neurons:,} neurons times {first.factor:g} change {first.objective} of {first.task} by "
            f"{first.change}{beside} ({len(self.effects)} effects, {self.model}, {self.seconds:.3g} s)"
        )

    def figure(self) -> Figure:
        """Changes with their intervals, those of random neurons beside them."""
        import plotly.graph_objects as go

        labels = [theme.label(f"{one.task}, {one.objective}, times {one.factor:g}") for one in self.effects]
        series = [
            ("these neurons", theme.OWN, [(label, one.change) for label, one in zip(labels, self.effects, strict=True)])
        ]
        random = [
            (label, one.random) for label, one in zip(labels, self.effects, strict=True) if one.random is not None
        ]
        if random:
            series.append(("random neurons", theme.CONTROL, random))
        picture = go.Figure()
        for name, color, points in series:
            picture.add_scatter(
                x=[point.value for _, point in points], y=[label for label, _ in points], name=name, mode="markers",
                marker={"color": color, "size": 9}, error_x=theme.error_bars([point for _, point in points]),
            )  # fmt: skip
        theme.target_line(picture, 0.0, vertical=True)
        picture.update_yaxes(autorange="reversed", title="task, objective, factor")
        title = theme.named(self.model, f"what scaling {self.n_neurons:,} neurons does")
        return theme.styled(picture, title, xaxis_title="change of the objective", height=180 + 32 * len(self.effects))

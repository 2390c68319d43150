"""`ValueVotes`: how often a majority of value vectors is right, beside likelihood, a linear probe, and chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp import theme
from interp.interval import Estimate
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WAYS = ("votes", "probe", "likelihood", "likelihood_per_token")


@dataclass(frozen=True, repr=False)
class ValueVotes(Result):
    """Accuracies on questions that chose nothing, with intervals over questions (or their groups).

    Attributes:
        accuracy: of each way to choose a candidate: `votes` (the majority of voters chosen on other questions), `probe`
            (a linear probe of the residual stream, likewise), `likelihood` (the candidate's log-probability, summed
            over its tokens) and `likelihood_per_token` (its mean).
        ahead: how far the votes are ahead of each other way, question by question.
        right: which questions each way gets right, bool [n].
        folds: what was chosen in each fold: `Nested.folds`.
        voters: rules that voted: layer, neuron, largest (or else smallest), folds (in how many), accuracy (on all
            questions, which chose them).
        best: the accuracy of the best of all rules on all questions, which chose it.
        by_chance: the same under drawn labels, [draw]; `p` how often that reaches `best`.
        n_rules, n_candidates: rules that there are, and candidates of each question.
        model, seconds, settings: how it was measured.
    """

    matching: ClassVar = (("accuracy", "right"),)

    accuracy: dict[str, Estimate]
    ahead: dict[str, Estimate]
    right: dict[str, NDArray[np.bool_]]
    folds: pd.DataFrame
    voters: pd.DataFrame
    best: float
    by_chance: NDArray[np.float64]
    p: float
    n_rules: int
    n_candidates: int
    model: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1 / self.n_candidates

    def to_frame(self) -> pd.DataFrame:
        """One row for each way: way, accuracy and how far the votes are ahead, each with _low and _high."""
        none = Estimate(float("nan"), float("nan"), float("nan"))
        return pd.DataFrame(
            [
                {"way": way, **one.columns("accuracy"), **self.ahead.get(way, none).columns("votes_ahead")}
                for way, one in self.accuracy.items()
            ]
        )

    def null_frame(self) -> pd.DataFrame:
        """What the best of all rules gets on the questions that chose it, and what it gets by chance.

        Columns: rules, best, chance_mean, chance_95 (quantile), chance_most, p.
        """
        drawn = self.by_chance
        row = {
            "rules": self.n_rules,
            "best": self.best,
            "chance_mean": float(drawn.mean()),
            "chance_95": float(np.quantile(drawn, 0.95)),
            "chance_most": float(drawn.max()),
            "p": self.p,
        }
        return pd.DataFrame([row])

    def headline(self) -> str:
        ways = ", ".join(f"{way.replace('_', ' ')} {one}" for way, one in self.accuracy.items())
        return (
            f"{ways}; the best of {self.n_rules:,} rules {self.best:.3f}, by chance {self.by_chance.mean():.3f} "
            f"({len(self.right['votes'])} questions, {self.model}, {self.seconds:.3g} s)"
        )

    def figure(self) -> Figure:
        """Accuracies with their intervals, and guessing as a dotted line."""
        import plotly.graph_objects as go

        points = list(self.accuracy.values())
        picture = go.Figure(
            go.Scatter(
                x=[point.value for point in points], y=[way.replace("_", " ") for way in self.accuracy],
                mode="markers", marker={"color": theme.OWN, "size": 10}, error_x=theme.error_bars(points),
            )
        )  # fmt: skip
        theme.target_line(picture, self.chance, vertical=True)
        picture.update_yaxes(autorange="reversed", title="way to choose")
        title = theme.named(self.model, "how often the true candidate is chosen (dotted: by guessing)")
        return theme.styled(picture, title, xaxis_title="accuracy (share of questions)", height=300)

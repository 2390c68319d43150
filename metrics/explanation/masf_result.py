"""What MaSF found: which shares of masking a model finds usual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from interp import theme
from interp.interval import Estimate
from interp.renamed import OnceFrame
from interp.result import Result
from metrics.testing import Testing

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, repr=False)
class InDistribution(OnceFrame, Result):
    """Which shares of masking a model finds usual, as `MaSF.in_distribution` found.

    Attributes:
        frame: one row a ratio. Columns: ratio, n, outliers (share of samples with p below `level`), low, high, p,
            p_adjusted, in_distribution.
        level: of the p-value of a sample.
        testing: how the verdicts are corrected and judged.
    """

    frame: pd.DataFrame
    level: float
    testing: Testing

    def to_frame(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    def headline(self) -> str:
        usual = self.frame[self.frame["in_distribution"]]["ratio"]
        told = ", ".join(f"{ratio:.3g}" for ratio in usual)
        return f"in distribution at {len(usual)} of {len(self.frame)} masking ratios" + (f": {told}" if told else "")

    def figure(self) -> Figure:
        """Share of outliers over the masking ratio with intervals, beside the share that is usual."""
        import plotly.graph_objects as go

        points = [Estimate(*row) for row in self.frame[["outliers", "low", "high"]].to_numpy(float).tolist()]
        figure = go.Figure()
        figure.add_scatter(
            x=self.frame["ratio"], y=[one.value for one in points], error_y=theme.error_bars(points),
            mode="lines+markers", line={"color": theme.OWN}, name="outliers",
        )  # fmt: skip
        theme.target_line(figure, self.level)
        figure.update_xaxes(title="share of elements masked")
        figure.update_yaxes(title=f"share of samples with p < {self.level:g}")
        return theme.styled(figure, "MaSF: are masked inputs in distribution?")

"""`DictionaryQuality`: what a model loses with a dictionary, what that explains, and which features are alive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp import theme
from interp.interval import Estimate
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FIGURES = ("cross_entropy", "rise", "rise_of_mean", "recovered", "explained", "active", "dead", "dense", "fake")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DictionaryQuality(Result):
    """How good a dictionary is on some text; made by `metrics.dictionary_quality`.

    Attributes:
        cross_entropy: the model's own, in nats a token.
        rise: how much it rises with the reconstruction in the place of what the model writes.
        rise_of_mean: how much with the mean of that instead: what the worst dictionary with a bias would do.
        recovered: 1 - rise / rise_of_mean.
        explained: the share of variance that is explained, about one mean over all tokens.
        active: features active at once.
        dead, dense: the share of features that are never active, and that are so at more than `threshold` of tokens.
        fake: the share of features dense on random tokens.
        frequency, random_frequency: float [feature]: the share of tokens at which each is active, of the text and of
            random tokens.
        threshold: see above.
        n_tokens, dictionary, model, seconds, settings: what was measured.

    Intervals of the first six are bootstraps over rows of text, those of shares of features Wilson's over features.
    """

    matching: ClassVar = (("frequency", "random_frequency"),)

    cross_entropy: Estimate
    rise: Estimate
    rise_of_mean: Estimate
    recovered: Estimate
    explained: Estimate
    active: Estimate
    dead: Estimate
    dense: Estimate
    fake: Estimate
    frequency: Float[Tensor, " feature"]
    random_frequency: Float[Tensor, " feature"]
    threshold: float
    n_tokens: int
    dictionary: str
    model: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """One row a figure. Columns: what, value, low, high."""
        found = ((name, getattr(self, name)) for name in FIGURES)
        return pd.DataFrame(
            [{"what": name, "value": one.value, "low": one.low, "high": one.high} for name, one in found]
        )

    def headline(self) -> str:
        return (
            f"cross-entropy rises by {self.rise} nats, {self.explained} of the variance explained, "
            f"{self.dead.value:.1%} of {len(self.frequency):,} features dead, {self.dense.value:.1%} dense, "
            f"{self.fake.value:.1%} fake; {self.dictionary}, {self.n_tokens:,} tokens"
        )

    def figure(self) -> Figure:
        """How often each feature is active: on the text, and on random tokens."""
        import plotly.graph_objects as go

        figure = go.Figure()
        for name, values, colour in (
            ("text", self.frequency, theme.BLUE), ("random tokens", self.random_frequency, theme.CONTROL)
        ):  # fmt: skip
            ranked = values.sort(descending=True).values
            figure.add_scatter(y=ranked.tolist(), name=name, line={"color": colour})
        figure.add_hline(y=self.threshold, line={"dash": "dot", "color": theme.DARK}, annotation_text="dense")
        figure.update_xaxes(title="features, most active first")
        figure.update_yaxes(title="share of tokens", type="log")
        return theme.styled(figure, theme.named(self.model, self.dictionary, "how often features are active"))

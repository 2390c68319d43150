"""`ExpertUsage`: how often experts were chosen, and how much they weighed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from interp import numbers, theme
from interp.errors import InputError, choose
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ExpertUsage(Result):
    """Which experts the routers chose; made by `attribution.expert_usage`.

    Attributes:
        weights: float [token, layer, expert]: routing weights, 0 where an expert was not chosen.
        places: int [token, 3]: of each counted token its prompt, position and id.
        layers: those that have a router, in order.
        counted: `all` tokens of the prompts, or those at which an `answer` is made.
        model, seconds: what was asked.
    """

    matching: ClassVar = (("weights", "places"),)

    weights: Float[Tensor, "token layer expert"]
    places: Int[Tensor, "token 3"]
    layers: list[int]
    counted: str
    model: str
    seconds: float

    @property
    def share(self) -> Float[Tensor, "layer expert"]:
        """The share of tokens for which an expert was chosen: what the paper counts."""
        return (self.weights > 0).float().mean(0)

    @property
    def weight(self) -> Float[Tensor, "layer expert"]:
        """The mean routing weight over all counted tokens."""
        return self.weights.mean(0)

    def to_frame(self) -> pd.DataFrame:
        """One row an expert, in order. Columns: node, layer, expert, share, weight."""
        numbers_of = range(self.weights.shape[2])
        places = [(layer, expert) for layer in self.layers for expert in numbers_of]
        return pd.DataFrame(
            {
                "node": [f"m{layer}.e{expert}" for layer, expert in places],
                "layer": [layer for layer, _ in places],
                "expert": [expert for _, expert in places],
                "share": self.share.flatten().numpy(),
                "weight": self.weight.flatten().numpy(),
            }
        )

    @numbers.checked(n=numbers.COUNT)
    def top(self, n: int = 2, by: str = "weight") -> pd.DataFrame:
        """The `n` experts of each layer with the most `weight`, or the largest `share`."""
        frame = self.to_frame().sort_values(choose("by", by, ("weight", "share")), ascending=False, kind="stable")
        return frame.groupby("layer").head(n).sort_values("layer", kind="stable").reset_index(drop=True)

    @numbers.checked(n=numbers.COUNT)
    def experts(self, n: int = 1, by: str = "share") -> list[tuple[int, int]]:
        """The `n` most used of each layer as pairs (layer, expert), for `attribution.tune_experts`."""
        frame = self.top(n, by)
        return list(zip(frame["layer"].tolist(), frame["expert"].tolist(), strict=True))

    @numbers.checked(n=numbers.COUNT)
    def random_experts(self, n: int = 1, by: str = "share", seed: int = 0) -> list[tuple[int, int]]:
        """A control for `experts(n)`: `n` others of each layer, at random.

        Raises `InputError` where a layer has fewer than `n` others.
        """
        drawn, chosen = random.Random(seed), set(self.experts(n, by))
        if (others := self.weights.shape[2] - n) < n:
            raise InputError(f"n={n} experts leave {others} others in a layer, too few for a control; give a smaller n")
        every = {layer: range(self.weights.shape[2]) for layer in self.layers}
        left = {layer: [one for one in each if (layer, one) not in chosen] for layer, each in every.items()}
        return [(layer, one) for layer, each in left.items() for one in drawn.sample(each, n)]

    def figure(self) -> Figure:
        """A heat map of mean weights, layers by experts."""
        import plotly.graph_objects as go

        hover = "m%{y}.e%{x}: %{z:.3f}<extra></extra>"
        layers = [str(layer) for layer in self.layers]
        picture = go.Figure(
            go.Heatmap(
                z=self.weight.tolist(),
                y=layers,
                colorscale="Blues",
                zmin=0,
                hovertemplate=hover,
                colorbar={"title": "weight"},
            )
        )
        picture.update_xaxes(title="expert", dtick=1)
        picture.update_yaxes(title="layer", autorange="reversed", type="category")
        return theme.styled(picture, theme.named(self.model, f"mean routing weight of experts ({self.counted} tokens)"))

    def headline(self) -> str:
        best = self.to_frame().sort_values("weight", ascending=False).iloc[0]
        return (
            f"{best['node']} has most weight, {best['weight']:.2f} on average, chosen for {best['share']:.1%} of "
            f"{len(self.weights):,} tokens ({self.counted}), {self.model}"
        )

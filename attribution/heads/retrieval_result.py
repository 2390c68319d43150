"""`RetrievalScores`: how much of the needles each head copied."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers, theme
from interp.errors import InputError
from interp.node_mask import NodeMask
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RetrievalScores(Result):
    """Retrieval scores of all heads; made by `attribution.retrieval_heads`.

    Attributes:
        by_prompt: float [prompt, layer, head]: the share of the needle's tokens that the head copied.
        recall: float [prompt]: the share of the needle's tokens in what was generated.
        min_recall: a prompt was answered where its recall lies above; None: all count.
        steps: tokens that were generated at most.
        model, seconds: what was asked.
    """

    matching: ClassVar = (("by_prompt", "recall"),)

    by_prompt: Float[Tensor, "prompt layer head"]
    recall: Float[Tensor, " prompt"]
    min_recall: float | None
    steps: int
    model: str
    seconds: float

    @property
    def answered(self) -> Bool[Tensor, " prompt"]:
        """The prompts that count."""
        return self.recall > self.min_recall if self.min_recall is not None else torch.ones_like(self.recall).bool()

    @property
    def values(self) -> Float[Tensor, "layer head"]:
        """The retrieval scores: means over the prompts that count."""
        return self.by_prompt[self.answered].mean(0)

    def to_frame(self) -> pd.DataFrame:
        """One row a head, the best first. Columns: node, layer, head, score, prompts (the share with any token)."""
        own, ever = self.values, (self.by_prompt[self.answered] > 0).float().mean(0)
        order = own.flatten().argsort(descending=True, stable=True)
        layer, head = torch.unravel_index(order, own.shape)
        return pd.DataFrame(
            {
                "node": [f"a{i}.h{j}" for i, j in zip(layer.tolist(), head.tolist(), strict=True)],
                "layer": layer.numpy(),
                "head": head.numpy(),
                "score": own.flatten()[order].numpy(),
                "prompts": ever.flatten()[order].numpy(),
            }
        )

    @numbers.checked(n=numbers.COUNT)
    def top(self, n: int = 20) -> pd.DataFrame:
        """The first rows of the table."""
        return self.to_frame().head(n)

    @numbers.checked(n=numbers.COUNT)
    def heads(self, n: int = 20) -> list[str]:
        """Names of the `n` heads with the largest scores, for `masked_heads` and `DeCoRe`."""
        return self.top(n)["node"].tolist()

    @numbers.checked(n=numbers.COUNT)
    def mask(self, n: int = 20) -> NodeMask:
        """The same heads as a circuit of level `head`, which `metrics.evaluate` runs; `~` of it is all others."""
        kept = torch.zeros(self.by_prompt.shape[1:], dtype=torch.bool, device="cpu")
        kept[tuple(torch.tensor(self.top(n)[["layer", "head"]].to_numpy(), device="cpu").T)] = True
        return NodeMask(kept, "head")

    @numbers.checked(n=numbers.COUNT)
    def random_heads(self, n: int = 20, seed: int = 0) -> list[str]:
        """A control for `heads(n)`: other heads, as many of each layer.

        Where a layer has too few others, the rest comes from other layers, at random. Raises `InputError` where fewer
        than `n` others are left at all.
        """
        drawn, frame = random.Random(seed), self.to_frame()
        wanted, others = Counter(frame["layer"][:n]), frame[n:]
        if len(others) < n:
            raise InputError(f"n={n} heads leave {len(others)} others, too few for a control; give a smaller n")
        chosen: list[str] = []
        for layer, count in wanted.items():
            names = others["node"][others["layer"] == layer].tolist()
            chosen += drawn.sample(names, min(count, len(names)))
        left = [name for name in others["node"] if name not in chosen]
        return chosen + drawn.sample(left, n - len(chosen))

    def figure(self) -> Figure:
        """A heat map, layers by heads."""
        import plotly.graph_objects as go

        hover = "a%{y}.h%{x}: %{z:.3f}<extra></extra>"
        picture = go.Figure(go.Heatmap(z=self.values.tolist(), colorscale="Blues", zmin=0, hovertemplate=hover,
                                      colorbar={"title": "share"}))  # fmt: skip
        picture.update_xaxes(title="head", dtick=1)
        picture.update_yaxes(title="layer", autorange="reversed")
        layers, heads = self.by_prompt.shape[1:]
        title = theme.named(self.model, "share of a needle that each head copies")
        return theme.styled(picture, title, width=300 + 28 * heads, height=180 + 18 * layers)

    def headline(self) -> str:
        best = self.top(1).iloc[0]
        n = int(self.answered.sum())
        return (
            f"{best['node']} copies {best['score']:.1%} of a needle, {int((self.values > 0.1).sum())} of "
            f"{self.values.numel()} heads a tenth or more, over {n} of {len(self.recall)} prompts that were answered, "
            f"{self.model}"
        )

"""`Relevance`: relevance of latents by hook point, its sums by token, head or neuron, and how far it is conserved."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.inputs.result import for_plotly, label
from attribution.rules.sets import RuleSet
from interp import numbers, theme
from interp.errors import InputError, choose
from interp.result import Result
from interp.tables import html_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def axes_of(name: str, dimensions: int) -> tuple[str, ...]:
    """What the axes behind the first (inputs) stand for, at a hook point whose values have so many dimensions."""
    if name.rsplit(".", 1)[-1] in ("hook_pattern", "hook_attn_scores"):
        return ("head", "query", "key")
    if dimensions == 4:
        return ("position", "head", "coordinate")
    if dimensions == 3:
        return ("position", "neuron" if ".mlp.out.hook_in" in name or "hook_post" in name else "coordinate")
    raise InputError(f"at={name!r} holds {dimensions}-dimensional values; relevance needs [batch, pos, ...]")


@dataclass(frozen=True, eq=False, repr=False)
class Relevance(Result):
    """Relevance of every unit at some hook points for the explained logit.

    Attributes:
        values: by hook point, [n, pos, d_model], [n, pos, head, d_head] or [n, head, query, key], 0 at padding.
        mask: bool [n, pos], True at real tokens.
        tokens, target_tokens: the inputs and what is explained, to read.
        logits: float [n], the explained logit or difference of two.
        rules, model, seconds: how the values were made.
    """

    matching: ClassVar = (("mask", "tokens", "target_tokens"),)

    values: dict[str, Float[Tensor, "n ..."]]
    mask: Bool[Tensor, "n pos"]
    tokens: list[list[str]]
    target_tokens: list[str]
    logits: Float[Tensor, " n"]
    rules: RuleSet
    model: str
    seconds: float

    def axes(self, hook: str) -> tuple[str, ...]:
        """What the axes of a hook point's values stand for, behind that of the inputs."""
        return axes_of(hook, self.values[choose("hook", hook, self.values)].ndim)

    def per(self, hook: str, *axes: str) -> Tensor:
        """Relevance summed over all axes but the first and those named: `per(hook, "position")` is [n, pos].

        Raises `InputError` for a hook point that was not asked for and for an axis that it has not.
        """
        own = self.axes(hook)
        for axis in axes:
            choose("axes", axis, own)
        over = [i for i, axis in enumerate(own, 1) if axis not in axes]
        return self.values[hook].sum(over) if over else self.values[hook]

    def conservation(self) -> pd.DataFrame:
        """Columns hook, input, relevance (its sum), logit, ratio (1: all of the logit is accounted for there)."""
        rows = [
            {"hook": hook, "input": n, "relevance": float(total), "logit": float(self.logits[n])}
            for hook in self.values
            for n, total in enumerate(self.per(hook))
        ]
        frame = pd.DataFrame(rows)
        return frame.assign(ratio=frame["relevance"] / frame["logit"])

    def to_frame(self) -> pd.DataFrame:
        """Columns hook, input, position, token, relevance; for hook points that have positions."""
        rows = [
            {"hook": hook, "input": n, "position": p, "token": token, "relevance": float(values[n, p])}
            for hook, values in self._by_position().items()
            for n, tokens in enumerate(self.tokens)
            for p, token in enumerate(tokens)
        ]
        return pd.DataFrame(rows, columns=["hook", "input", "position", "token", "relevance"])

    def _by_position(self) -> dict[str, Tensor]:
        return {hook: self.per(hook, "position") for hook in self.values if "position" in self.axes(hook)}

    @numbers.checked()
    def figure(self, input: int = 0) -> Figure:
        """A heat map for one input: hook points by tokens, the last hook point on top."""
        import plotly.graph_objects as go

        if not 0 <= input < len(self.tokens):
            raise InputError(f"input={input} must be from 0 to {len(self.tokens) - 1}")
        by_position = self._by_position()
        if not by_position:
            raise InputError("none of the hook points has positions to draw; see per()")
        tokens = [for_plotly(token) for token in self.tokens[input]]
        table = torch.stack([values[input, : len(tokens)] for values in by_position.values()])
        largest = float(table.abs().max()) or 1.0
        picture = go.Figure(
            go.Heatmap(
                z=table.tolist(),
                y=list(by_position),
                zmin=-largest,
                zmax=largest,
                colorscale=theme.DIVERGING,
                colorbar={"title": "relevance<br>(logits)"},
                hovertemplate="%{y}<br>position %{x}<br>relevance %{z:.4g}<extra></extra>",
            )
        )
        picture.update_xaxes(title="token", tickvals=list(range(len(tokens))), ticktext=tokens)
        picture.update_yaxes(title="hook point")
        target = label(self.target_tokens[input])
        return theme.styled(
            picture,
            theme.named(self.model, f"{self.rules.name}: relevance for {target} ({float(self.logits[input]):.3f})"),
            height=200 + 18 * len(by_position),
        )

    def headline(self) -> str:
        ratio = self.conservation()["ratio"]
        return (
            f"{self.rules.name}: {len(self.tokens)} inputs at {len(self.values)} hook points, {self.model}, "
            f"sums from {ratio.min():.3f} to {ratio.max():.3f} of the explained, {self.seconds:.3g} s"
        )

    def _repr_html_(self) -> str:
        by_hook = self.conservation().groupby("hook", sort=False)["ratio"]
        table = html_table(by_hook.agg(["mean", "min", "max"]).reset_index())
        return f"<p>{html.escape(repr(self))}</p><p>Relevance at each hook point over the explained logit:</p>{table}"

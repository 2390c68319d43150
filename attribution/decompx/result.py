"""`Decomposition`: contributions of input tokens to what a model said, as tensors, a data frame or pictures."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.decompx.propagate import Options
from attribution.inputs.result import for_plotly, heat_map, label
from interp import numbers, theme
from interp.errors import InputError
from interp.files import write_text
from interp.result import Result
from interp.tables import page

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Decomposition(Result):
    """What every input token contributes to the explained logits, and to every hidden state on the way.

    Attributes:
        logits: float [n, token, class]; zero at padding. Over tokens, plus `bias`, they sum to `model_logits`.
        bias: float [n, class]: what biases contribute where they are kept apart, else zero.
        model_logits: float [n, class]: what the model itself said.
        norms: float [layer, n, token, token] or None: length of what the second token contributes at the place of the
            first, behind every layer.
        states: per input float [layer, token, source, d_model] or None: the decomposed hidden states; with
            `bias="separate"` the first source is that of the biases.
        mask: bool [n, token], True at real tokens.
        tokens, classes: to read; `classes` per input.
        options, model, seconds: how this was made.
    """

    matching: ClassVar = (("mask", "tokens", "classes"),)

    logits: Float[Tensor, "n token cls"]
    bias: Float[Tensor, "n cls"]
    model_logits: Float[Tensor, "n cls"]
    norms: Float[Tensor, "layer n token token"] | None
    states: list[Float[Tensor, "layer token source d_model"]] | None
    mask: Bool[Tensor, "n token"]
    tokens: list[list[str]]
    classes: list[list[str]]
    options: Options
    model: str
    seconds: float

    @property
    def error(self) -> float:
        """Largest difference between a sum of contributions and the model's own logit."""
        return float((self.logits.sum(1) + self.bias - self.model_logits).abs().max())

    def to_frame(self) -> pd.DataFrame:
        """One row a token and class: input, position, token, class, contribution; biases kept apart at position -1."""
        rows = []
        for n, tokens in enumerate(self.tokens):
            places = [*enumerate(tokens), *([(-1, "(biases)")] if self.options.columns else [])]
            for position, token in places:
                values = self.bias[n] if position < 0 else self.logits[n, position]
                rows += [
                    {"input": n, "position": position, "token": token, "class": name, "contribution": float(value)}
                    for name, value in zip(self.classes[n], values, strict=True)
                ]
        return pd.DataFrame(rows)

    @numbers.checked()
    def figure(self, input: int = 0, layer: int = -1) -> Figure:
        """A heat map of one input behind one layer: for each place, what share each token has of the lengths there."""
        import plotly.graph_objects as go

        if self.norms is None:
            raise InputError("there are no matrices to draw; call decompose with matrices=True")
        if not 0 <= input < len(self.tokens):
            raise InputError(f"input={input} must be from 0 to {len(self.tokens) - 1}")
        if not -len(self.norms) <= layer < len(self.norms):
            raise InputError(f"layer={layer} must be from {-len(self.norms)} to {len(self.norms) - 1}")
        tokens = [for_plotly(token) for token in self.tokens[input]]
        table = self.norms[layer, input, : len(tokens), : len(tokens)]
        shares = table / table.sum(1, keepdim=True)  # the lengths at the first token can dwarf all others
        hover = "share %{z:.1%}<br>length %{customdata:.4g}<extra></extra>"
        picture = go.Figure(
            go.Heatmap(
                z=shares.tolist(),
                customdata=table.tolist(),
                colorscale="Blues",
                hovertemplate=hover,
                colorbar={"title": "share of<br>the length"},
            )
        )
        places = list(range(len(tokens)))
        picture.update_xaxes(title="contributing token", tickvals=places, ticktext=tokens)
        picture.update_yaxes(title="place", tickvals=places, ticktext=tokens, autorange="reversed", scaleanchor="x")
        size = 220 + 22 * len(tokens)
        title = theme.named(self.model, f"DecompX of input {input} behind layer {layer % len(self.norms)}")
        return theme.styled(picture, title, width=size, height=size)

    def headline(self) -> str:
        shape = f"{len(self.tokens)} inputs, {int(self.mask.sum())} tokens, {self.logits.shape[2]} classes"
        return f"{shape}, {self.model}, sums to the logits within {self.error:.1e}, {self.seconds:.3g} s"

    def _repr_html_(self) -> str:
        lines = []
        for n, tokens in enumerate(self.tokens):
            for c, name in enumerate(self.classes[n]):
                head = f"<b>{html.escape(label(name))}</b> ({float(self.model_logits[n, c]):.3f})"
                lines.append((head, tokens, self.logits[n, :, c]))
        return heat_map(lines)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the heat maps of all inputs and classes as a page of its own; returns the path."""
        write_text(path, page("decomposition", self._repr_html_()))
        return Path(path)

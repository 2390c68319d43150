"""`TokenAttributions`: scores of input tokens, as a tensor, a data frame or a heat map."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import theme
from interp.files import write_text
from interp.result import Result
from interp.tables import page

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False)
class TokenAttributions(Result):
    """How much each input token speaks for what is explained (or, where negative, against it).

    Attributes:
        values: float [n, pos] on the CPU, 0 at padding.
        mask: bool [n, pos], True at real tokens.
        ids, tokens: the inputs, as ids [n, pos] and as people read them.
        target: the explained token of each input, and the one it is contrasted with (-1 for none), int [n, 2].
        target_tokens: the same to read.
        logits: float [n], the explained logit or difference of two.
        method, settings, model, seconds: how the values were made.
        conserves: whether the method is one whose values should add up to `logits`.
        baseline_logits: float [n] for integrated gradients, whose values should add up to `logits` less these.
        converged: bool [n] for ReAGent: whether at least one of its runs did.
    """

    matching: ClassVar = (("mask", "tokens", "target_tokens"),)

    values: Float[Tensor, "n pos"]
    mask: Bool[Tensor, "n pos"]
    ids: Int[Tensor, "n pos"]
    tokens: list[list[str]]
    target: Int[Tensor, "n 2"]
    target_tokens: list[str]
    logits: Float[Tensor, " n"]
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    seconds: float = 0.0
    conserves: bool = False
    baseline_logits: Float[Tensor, " n"] | None = None
    converged: Bool[Tensor, " n"] | None = None

    @property
    def conservation(self) -> Float[Tensor, " n"] | None:
        """Sum of the values over what they should add up to (1 is exact); None for methods without such a law."""
        if self.baseline_logits is not None:
            return self.values.sum(1) / (self.logits - self.baseline_logits)
        return self.values.sum(1) / self.logits if self.conserves else None

    def to_frame(self) -> pd.DataFrame:
        """One row a token: input, position, token, id, score, target."""
        rows = [
            {
                "input": n,
                "position": position,
                "token": token,
                "id": int(self.ids[n, position]),
                "score": float(self.values[n, position]),
                "target": self.target_tokens[n],
            }
            for n, tokens in enumerate(self.tokens)
            for position, token in enumerate(tokens)
        ]
        return pd.DataFrame(rows)

    def headline(self) -> str:
        count = int(self.mask.sum())
        parts = [f"{self.method}: {len(self.values)} inputs, {count} tokens", self.model]
        if (ratio := self.conservation) is not None:
            parts.append(f"sums to {', '.join(f'{float(r):.3f}' for r in ratio[:4])} of the explained")
        if self.converged is not None and not self.converged.all():
            parts.append(f"{int((~self.converged).sum())} did not converge")
        return f"{', '.join(part for part in parts if part)}, {self.seconds:.3g} s"

    def _repr_html_(self) -> str:
        lines = []
        for n, tokens in enumerate(self.tokens):
            target = html.escape(label(self.target_tokens[n]))
            head = f"<b>{html.escape(self.method)}</b> for <code>{target}</code> ({float(self.logits[n]):.3f})"
            lines.append((head, tokens, self.values[n]))
        return heat_map(lines)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the heat map as a page of its own; returns the path."""
        write_text(path, page(f"{self.method}: {self.model}", self._repr_html_()))
        return Path(path)

    def figure(self) -> Figure:
        """A bar for each token, one panel an input."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        titles = [
            f"{for_plotly(target)} ({float(logit):.3f})"
            for target, logit in zip(self.target_tokens, self.logits, strict=True)
        ]
        figure = make_subplots(rows=len(self.values), subplot_titles=titles)
        for n, tokens in enumerate(self.tokens):
            values = self.values[n, : len(tokens)].tolist()
            figure.add_trace(
                go.Bar(
                    x=list(range(len(tokens))),
                    y=values,
                    marker_color=[theme.POSITIVE if value > 0 else theme.NEGATIVE for value in values],
                    hovertext=[for_plotly(token) for token in tokens],
                    showlegend=False,
                ),
                row=n + 1,
                col=1,
            )
            labels = [for_plotly(token) for token in tokens]
            figure.update_xaxes(tickvals=list(range(len(tokens))), ticktext=labels, row=n + 1, col=1)
        figure.update_yaxes(title="score")
        figure.update_xaxes(title="token")
        title = theme.named(self.model, self.method, "tokens by what they add to the explained logit")
        return theme.styled(figure, title, height=180 + 200 * len(self.values))


_LEGEND = (
    '<div style="font-size:smaller">blue speaks for the explained token, orange against it; '
    "scaled to the largest of each input</div>"
)


def heat_map(lines: Iterable[tuple[str, list[str], Float[Tensor, " pos"]]]) -> str:
    """Inputs as coloured words: of each its heading (HTML), its tokens and their values; scaled to its largest."""
    rows = []
    for head, tokens, values in lines:
        scale = float(values.abs().max()) or 1.0
        spans = [_span(token, v, v / scale) for token, v in zip(tokens, values.tolist(), strict=False)]
        rows.append(f"<div>{head}: {''.join(spans)}</div>")
    return f'<div style="font-family:sans-serif;line-height:2">{"".join(rows)}{_LEGEND}</div>'


def _span(token: str, value: float, share: float) -> str:
    """A token with a background: blue for, orange against, the stronger the more."""
    colour = ",".join(str(part) for part in bytes.fromhex((theme.POSITIVE if share > 0 else theme.NEGATIVE)[1:]))
    style = f"background:rgba({colour},{0.85 * abs(share):.3f});padding:2px 1px;border-radius:3px;white-space:pre-wrap"
    return f'<span style="{style}" title="{value:+.4g}">{html.escape(visible(token))}</span>'


def visible(token: str) -> str:
    """A token with its white space made visible."""
    return token.replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥") or "∅"


def label(token: str) -> str:
    """A token that stands alone, where pages and figures drop spaces at either end."""
    return re.sub("^ | $", "·", visible(token))


def for_plotly(token: str) -> str:
    """The same as text in a plotly figure, which reads mark-up but knows no `&quot;`."""
    return theme.label(label(token))

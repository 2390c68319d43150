"""`AttentionScores`: a head's scores of one query, by pairs of sources, and what it writes from where it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.inputs.result import for_plotly
from interp import numbers, theme
from interp.errors import InputError, choose
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ROWS = 1000
_OTHERS = "all others"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttentionScores(Result):
    """Why a head looks where it looks; made by `attribution.attention_scores`.

    Attributes:
        parts: float [query source, key source, key]: parts of the scores; they sum to `scores`.
        scores: float [key]: the model's own scores, in front of a soft cap.
        pattern: float [key]: what the softmax makes of them.
        gradient: float [key]: of what is explained, at the scores.
        writes: float [source, key]: what each source at a key's position writes through the head, in the explained
            logits: pattern times value, through the output matrix, the last norm (held where the query stands) and the
            unembedding.
        sources: names: `token`, `position` (where learned), heads and MLPs, `biases`.
        positions: int [key]: where the keys stand in `tokens`.
        head, query, target, softcap, model, seconds: what was asked, of whom.
    """

    matching: ClassVar = (("scores", "pattern", "gradient", "positions"),)

    parts: Float[Tensor, "source source key"]
    scores: Float[Tensor, " key"]
    pattern: Float[Tensor, " key"]
    gradient: Float[Tensor, " key"]
    writes: Float[Tensor, "source key"]
    sources: list[str]
    positions: Int[Tensor, " key"]
    tokens: list[str]
    head: str
    query: int
    target: str
    softcap: float | None
    model: str
    seconds: float

    @property
    def effect(self) -> Float[Tensor, "source source key"]:
        """What each part does to the explained logits through the pattern: the score's gradient times the part.

        Linear in the score: parts are not taken away, of which the softmax would be renormalised.
        """
        return self.parts * self.gradient

    @property
    def relative(self) -> Float[Tensor, "source source key"]:
        """Parts less their mean over keys: the softmax sees differences between keys alone."""
        return self.parts - self.parts.mean(-1, keepdim=True)

    @property
    def error(self) -> float:
        """Largest difference between a sum of parts and the model's own score."""
        return float((self.parts.sum((0, 1)) - self.scores).abs().max())

    def keys(self) -> pd.DataFrame:
        """One row a key: position, token, score, pattern, gradient, effect (of the whole score), writes (of all)."""
        columns = {"score": self.scores, "pattern": self.pattern, "gradient": self.gradient}
        columns |= {"effect": self.gradient * self.scores, "writes": self.writes.sum(0)}
        frame = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
        frame.insert(0, "token", [self.tokens[i] for i in self.positions.tolist()])
        frame.insert(0, "position", self.positions.numpy())
        return frame

    @numbers.checked(n=numbers.COUNT)
    def to_frame(self, n: int | None = _ROWS, by: str = "relative") -> pd.DataFrame:
        """The `n` pairs of sources with the largest absolute values in the column `by`; None: all.

        Columns: position, token (of the key), query_source, key_source, score (the part), relative, effect.
        """
        columns = {"score": self.parts, "relative": self.relative, "effect": self.effect}
        flat = columns[choose("by", by, columns)].flatten()
        chosen = flat.abs().topk(len(flat) if n is None else min(n, len(flat))).indices
        asking, giving, key = torch.unravel_index(chosen, self.parts.shape)
        positions = self.positions[key]
        return pd.DataFrame(
            {
                "position": positions.numpy(),
                "token": [self.tokens[i] for i in positions.tolist()],
                "query_source": [self.sources[i] for i in asking.tolist()],
                "key_source": [self.sources[i] for i in giving.tolist()],
            }
            | {name: values.flatten()[chosen].numpy() for name, values in columns.items()}
        )

    @numbers.checked(n=numbers.COUNT)
    def top(self, n: int = 20, key: int | None = None, by: str = "relative") -> pd.DataFrame:
        """The first rows of the table, of all keys or of the one at position `key`."""
        frame = self.to_frame(None, by)
        if key is not None:
            frame = frame[frame["position"] == self._position(key)]
        return frame.head(n).reset_index(drop=True)

    @numbers.checked(n=numbers.COUNT)
    def written(self, n: int = 20) -> pd.DataFrame:
        """The OV side: the `n` largest |writes|. Columns: position, token, source, writes (in logits)."""
        flat = self.writes.flatten()
        chosen = flat.abs().topk(min(n, len(flat))).indices
        source, key = torch.unravel_index(chosen, self.writes.shape)
        positions = self.positions[key]
        return pd.DataFrame(
            {
                "position": positions.numpy(),
                "token": [self.tokens[i] for i in positions.tolist()],
                "source": [self.sources[i] for i in source.tolist()],
                "writes": flat[chosen].numpy(),
            }
        )

    @numbers.checked(n=numbers.COUNT)
    def figure(self, key: int | None = None, n: int = 10) -> Figure:
        """A heat map of one key's score: the `n` sources of either side with the largest parts, and all others.

        `key`: a position; None: the one that is looked at most. Parts are less their mean over keys (`relative`).
        """
        import plotly.graph_objects as go

        where = self._position(int(self.positions[self.pattern.argmax()]) if key is None else key)
        at = int((self.positions == where).nonzero()[0, 0])
        table = self.relative[..., at]
        rows, row_names = self._gathered(table, n)
        cells, column_names = self._gathered(rows.T, n)
        cells = cells.T
        largest = float(cells.abs().max()) or 1.0
        hover = "query: %{y}<br>key: %{x}<br>%{z:.4g}<extra></extra>"
        colours = {"colorscale": theme.DIVERGING, "zmid": 0, "zmin": -largest, "zmax": largest}
        picture = go.Figure(go.Heatmap(z=cells.tolist(), x=column_names, y=row_names, hovertemplate=hover,
                                       colorbar={"title": "score"}, **colours))  # fmt: skip
        picture.update_xaxes(title=f"source of the key, {for_plotly(self.tokens[where])} at {where}", type="category")
        asks = f"source of the query, {for_plotly(self.tokens[self.query])} at {self.query}"
        picture.update_yaxes(title=asks, autorange="reversed", type="category")
        told = f"score {float(self.scores[at]):.3g}, pattern {float(self.pattern[at]):.1%}"
        title = theme.named(self.model, f"why {self.head} looks from {self.query} to {where}")
        size = 240 + 28 * max(cells.shape)
        return theme.styled(picture, title, told, width=size + 60, height=size)

    def _gathered(self, table: Tensor, n: int) -> tuple[Tensor, list[str]]:
        """The `n` rows with the largest cells, and the sum of all others."""
        chosen = table.abs().amax(1).topk(min(n, len(table))).indices
        left = torch.ones(len(table), dtype=torch.bool, device="cpu").index_fill(0, chosen, False)
        names = [self.sources[i] for i in chosen.tolist()]
        return torch.cat((table[chosen], table[left].sum(0, keepdim=True))), [*names, _OTHERS]

    def _position(self, key: int) -> int:
        found = key % len(self.tokens) if -len(self.tokens) <= key < 0 else key
        if found not in self.positions.tolist():
            raise InputError(f"key={key} is none of the positions that were asked for: {self.positions.tolist()}")
        return found

    def headline(self) -> str:
        most = int(self.pattern.argmax())
        where = int(self.positions[most])
        best = self.top(1, where).iloc[0]
        return (
            f"{self.head} at {self.query} ({self.tokens[self.query]!r}) looks at {where} ({self.tokens[where]!r}) with "
            f"{float(self.pattern[most]):.1%}, most for {best['query_source']} x {best['key_source']} "
            f"({best['relative']:+.3g}), {len(self.sources)} sources, sums within {self.error:.1e}, {self.model}"
        )

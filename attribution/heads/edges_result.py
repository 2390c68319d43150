"""`AttentionEdges`: what passes from span to span through heads, by port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers, theme
from interp.errors import unknown
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttentionEdges(Result):
    """What crosses spans in attention; made by `attribution.attention_edges`.

    Attributes:
        values: float [port, layer, head, span s, span t]: what passes from s (the key's and value's) to t (the
            query's), mean over prompts, in units of the objective.
        ports: `q`, `k`, `v`.
        spans: their names.
        form, pooled, n_prompts, task, objective, model, seconds: how this was made, and on what.
    """

    matching: ClassVar = ()

    values: Float[Tensor, "port layer head span span"]
    ports: list[str]
    spans: list[str]
    form: str
    pooled: str
    n_prompts: int
    task: str
    objective: str
    model: str
    seconds: float

    @numbers.checked(n=numbers.COUNT)
    def top(self, n: int | None = 20) -> pd.DataFrame:
        """The `n` edges with the largest |score|; None: all that are not 0. Columns: head, port, source, target, score.

        `source` is the span of the key and value, `target` that of the query.
        """
        flat = self.values.flatten()
        some = int((flat != 0).sum())
        chosen = flat.abs().topk(some if n is None else min(n, some)).indices
        port, layer, head, source, target = (one.tolist() for one in torch.unravel_index(chosen, self.values.shape))
        return pd.DataFrame(
            {
                "head": [f"a{one}.h{other}" for one, other in zip(layer, head, strict=True)],
                "port": [self.ports[i] for i in port],
                "source": [self.spans[i] for i in source],
                "target": [self.spans[i] for i in target],
                "score": flat[chosen].numpy(),
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """All edges that are not 0, by falling |score|; columns as those of `top`."""
        return self.top(None)

    @numbers.checked()
    def figure(self, head: str | None = None) -> Figure:
        """Heat maps of one head, one for each port: from which span to which.

        `head`: such as `"a23.h3"`; None: the one with the largest sum of absolute scores. Raises `InputError` for one
        that is not there.
        """
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        n_layers, n_heads = self.values.shape[1:3]
        names = [f"a{layer}.h{number}" for layer in range(n_layers) for number in range(n_heads)]
        by_head = self.values.flatten(1, 2)
        where = int(by_head.abs().sum((0, 2, 3)).argmax()) if head is None else -1
        if head is not None:
            if head not in names:
                raise unknown("head", head, names)
            where = names.index(head)
        tables = by_head[:, where]
        largest = float(tables.abs().max()) or 1.0
        picture = make_subplots(cols=len(tables), rows=1, subplot_titles=self.ports, shared_yaxes=True)
        colours = {"colorscale": theme.DIVERGING, "zmid": 0, "zmin": -largest, "zmax": largest}
        labels, places = [theme.label(name) for name in self.spans], list(range(len(self.spans)))
        for column, table in enumerate(tables, 1):
            heat = go.Heatmap(
                z=table.T.tolist(), hovertemplate="from %{x} to %{y}<br>%{z:.4g}<extra></extra>", **colours,
                showscale=column == len(tables), colorbar={"title": "score"},
            )  # fmt: skip
            picture.add_trace(heat, row=1, col=column)
        picture.update_xaxes(title="key and value", tickvals=places, ticktext=labels)
        picture.update_yaxes(tickvals=places, ticktext=labels, autorange="reversed")
        picture.update_yaxes(title="query", col=1)
        size = 220 + 24 * len(places)
        title = theme.named(self.model, self.task, f"{self.form}: what {names[where]} passes from span to span")
        return theme.styled(picture, title, width=160 + 3 * (size - 100), height=size)

    def headline(self) -> str:
        best, most = self.top(1), "nothing crosses"
        if len(best):
            head, port, source, target, score = best.iloc[0]
            most = f"most through {head}<{port}> from {source} to {target} ({score:+.3g})"
        return (
            f"{len(self.spans)} spans, {most}, {self.form}, {self.objective} of {self.task!r}, "
            f"{self.n_prompts} prompts, {self.model}, {self.seconds:.3g} s"
        )

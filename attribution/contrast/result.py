"""`NeuronContrast`: how much every neuron's attribution differs between two kinds of answers, and whether by chance."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers, theme
from interp.errors import InputError, choose
from interp.node_mask import NodeMask, ragged
from interp.result import Result
from interp.tables import html_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Toward = Literal["both", "correct", "incorrect"]
TOWARD = ("both", "correct", "incorrect")
_SHOWN = 20


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NeuronContrast(Result):
    """D = attribution of the correct less that of the incorrect answers, tested over questions, for every neuron.

    Attributes:
        values: mean of D over questions, float64 [layer, d_mlp]; 0 where a layer has no such neuron.
        statistic: Student's t of that mean against 0, [layer, d_mlp].
        p: its two-sided p-value, [layer, d_mlp].
        q: `p` corrected over all neurons (Benjamini and Hochberg), [layer, d_mlp].
        widths: how many neurons each layer has.
        n_questions, n_groups: how many questions the means are over, and how many groups of them were tested.
        by_chance: how many neurons survive where the answers of each group change sides by the toss of a coin: one
            number for each draw.
        alpha: the level of `survivors`.
        method, objective, model, seconds, settings: how it was made.
    """

    matching: ClassVar = (("values", "statistic", "p", "q", "widths"),)

    values: Float[Tensor, "layer d_mlp"]
    statistic: Float[Tensor, "layer d_mlp"]
    p: Float[Tensor, "layer d_mlp"]
    q: Float[Tensor, "layer d_mlp"]
    widths: list[int]
    n_questions: int
    n_groups: int
    by_chance: list[int]
    alpha: float
    method: str
    objective: str
    model: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    def survivors(self, toward: Toward = "both") -> NodeMask:
        """The neurons whose q is at most `alpha`, as a circuit of level `neuron`.

        `toward`: those that speak for the `correct` answers, for the `incorrect` ones, or `both`.
        """
        return NodeMask((self.q <= self.alpha) & self._side(toward), "neuron")

    @numbers.checked(n=numbers.COUNT)
    def strongest(self, n: int, toward: Toward = "both") -> NodeMask:
        """The `n` neurons with the largest |t|, whether they survive or not, as a circuit of level `neuron`.

        Raises `InputError` for more than there are.
        """
        side = self._side(toward)
        if n > int(side.sum()):
            raise InputError(f"n={n} neurons are asked for; {int(side.sum()):,} speak for toward={toward!r}")
        size = torch.where(side, self.statistic.abs(), -1.0)
        mask = torch.zeros_like(side)
        mask.view(-1)[size.flatten().argsort(descending=True, stable=True)[:n]] = True
        return NodeMask(mask, "neuron")

    def _side(self, toward: str) -> Bool[Tensor, "layer d_mlp"]:
        choose("toward", toward, TOWARD)
        exist = ragged(self.widths)
        if toward == "both":
            return exist
        return exist & (self.values > 0 if toward == "correct" else self.values < 0)

    @numbers.checked(n=numbers.COUNT)
    def top(self, n: int = 10) -> pd.DataFrame:
        """The `n` neurons with the largest |t|: layer, neuron, difference (mean of D), t, p, q."""
        return self._rows(self.strongest(n).mask)

    def to_frame(self) -> pd.DataFrame:
        """All neurons by falling |t|: layer, neuron, difference (mean of D), t, p, q."""
        return self._rows(ragged(self.widths))

    def _rows(self, mask: Bool[Tensor, "layer d_mlp"]) -> pd.DataFrame:
        layer, neuron = mask.nonzero(as_tuple=True)
        order = self.statistic[layer, neuron].abs().argsort(descending=True, stable=True)
        where = layer[order], neuron[order]
        columns = {"difference": self.values, "t": self.statistic, "p": self.p, "q": self.q}
        found = {name: values[where].numpy() for name, values in columns.items()}
        return pd.DataFrame({"layer": where[0].numpy(), "neuron": where[1].numpy(), **found})

    def by_layer(self) -> pd.DataFrame:
        """One row a layer: layer, neurons, correct and incorrect (survivors that speak for either)."""
        sides = {side: self.survivors(side).mask.sum(1).tolist() for side in TOWARD[1:]}  # type: ignore[arg-type]
        return pd.DataFrame({"layer": range(len(self.widths)), "neurons": self.widths, **sides})

    def headline(self) -> str:
        count, total = self.survivors().n_nodes, sum(self.widths)
        drawn = f", by chance {sum(self.by_chance) / len(self.by_chance):,.1f}" if self.by_chance else ""
        return (
            f"{count:,} of {total:,} neurons differ between answers at a false discovery rate of {self.alpha:g} over "
            f"{self.n_questions:,} questions{drawn} ({self.method}, {self.objective}, {self.model}, "
            f"{self.seconds:.3g} s)"
        )

    def figure(self) -> Figure:
        """Bars of how many neurons of each layer survive, for the correct answers above, the incorrect below."""
        import plotly.graph_objects as go

        frame = self.by_layer()
        picture = go.Figure(
            [
                go.Bar(x=frame["layer"].tolist(), y=frame["correct"].tolist(), name="correct",
                       marker_color=theme.POSITIVE),
                go.Bar(x=frame["layer"].tolist(), y=(-frame["incorrect"]).tolist(), name="incorrect",
                       marker_color=theme.NEGATIVE),
            ]
        )  # fmt: skip
        picture.update_layout(barmode="relative")
        title = theme.named(self.model, self.method, "neurons that differ between correct and incorrect answers")
        return theme.styled(picture, title, xaxis_title="layer", yaxis_title="neurons that survive")

    def fits(self) -> None:
        self._repr_html_()  # the whole table may be long
        self.by_layer()

    def _repr_html_(self) -> str:
        shown = self.top(min(_SHOWN, sum(self.widths)))
        return f"<p>{html.escape(repr(self))}</p>{html_table(shown)}"

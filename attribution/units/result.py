"""`NeuronScores`: scores of neurons, as a tensor or the largest alone, with what embeddings and biases contribute."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.units.sinks import AXES
from interp import numbers, theme
from interp.errors import InputError, choose
from interp.result import Result
from interp.tables import html_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SHOWN = 20
SUMMABLE = ("prompt", "position")


@dataclass(frozen=True, eq=False, repr=False)
class NeuronScores(Result):
    """How much each neuron of the MLPs speaks for what is explained (or, where negative, against it).

    Attributes:
        values: float [n, layer, pos, d_mlp] on the CPU, 0 where nothing is scored (padding; positions left out; for a
            task those before the first difference); without the axes that were summed. Of mixtures d_mlp counts
            experts one after the other. None where the largest alone were kept, and for `exact`.
        activations: likewise; of mixtures times the routing weight. None where `values` is, and for sums.
        kept: the largest, or the ones patched: columns prompt, layer, position, neuron, activation, score.
        embedding: float [n, pos]: the same score for the tokens' embeddings; None for `exact`.
        biases: what biases contribute: columns prompt, place, layer (-1: behind the last), position, score. Of a task
            those of output matrices under ablation "zero", which makes them nothing: of other two runs none differ.
        mask: bool [n, pos], True where neurons are scored.
        explained: float [n]: the logit, contrast, sum or objective of each (clean) prompt.
        tokens, target_tokens: the prompts and what is explained, to read.
        axes: those of `values`.
        method, rules, ablation, settings, model, seconds: how the scores were made; ablation "zero" for prompts.
        paired: whether two runs are compared (a task) or one is taken as it is (prompts).
    """

    matching: ClassVar = (("mask", "tokens", "target_tokens"),)

    values: Tensor | None
    activations: Tensor | None
    kept: pd.DataFrame | None
    embedding: Float[Tensor, "n pos"] | None
    biases: pd.DataFrame
    mask: Bool[Tensor, "n pos"]
    explained: Float[Tensor, " n"]
    tokens: list[list[str]]
    target_tokens: list[str]
    axes: tuple[str, ...]
    method: str
    rules: str
    ablation: str
    paired: bool
    model: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    @numbers.checked(n=numbers.FROM_ZERO)
    def top(self, n: int | None = 10, leave_out: Sequence[int] = ()) -> pd.DataFrame:
        """The `n` largest |score|, in falling order; None: all.

        Columns prompt, layer, position, neuron, activation, score; without those of axes that were summed, and then
        without the activation. `leave_out`: positions passed over before the largest are taken (0: where BOS stands).

        Raises `InputError` for more than there are, and for positions where they were summed.
        """
        if leave_out and "position" not in self.axes:
            raise InputError("leave_out names positions, over which these scores are summed; leave them out before")
        if self.values is None:
            return self._of_kept(n, leave_out)
        values = self._without(self.values, leave_out)
        most = values.numel() if n is None else n
        if most > values.numel():
            raise InputError(f"n={n} neurons are asked for; there are {values.numel():,} scores")
        flat = values.flatten()
        chosen = flat.abs().topk(most).indices
        where = torch.unravel_index(chosen, values.shape)
        columns = {axis: index.numpy() for axis, index in zip(self.axes, where, strict=True)}
        if self.activations is not None:
            columns["activation"] = self.activations.flatten()[chosen].numpy()
        return pd.DataFrame(columns | {"score": flat[chosen].numpy()})

    def _of_kept(self, n: int | None, leave_out: Sequence[int]) -> pd.DataFrame:
        assert self.kept is not None
        rows = self.kept[~self.kept["position"].isin(list(leave_out))].reset_index(drop=True)
        if n is not None and n > len(rows):
            raise InputError(f"n={n} neurons are asked for; {len(rows):,} were kept")
        return rows if n is None else rows.head(n)

    def _without(self, values: Tensor, leave_out: Sequence[int]) -> Tensor:
        if not leave_out:
            return values
        axis, length = self.axes.index("position"), self.mask.shape[1]
        for position in leave_out:
            numbers.whole("leave_out", position, numbers.Limits(0, length - 1))
        return values.index_fill(axis, torch.tensor(list(leave_out), device="cpu"), 0.0)

    def sum(self, *over: str) -> NeuronScores:
        """The same, summed over `"prompt"`, `"position"` or both.

        Raises `InputError` for other axes and where the largest alone were kept: ask for `summed=` instead.
        """
        if self.values is None:
            raise InputError("the largest scores alone were kept, whose sums say little; ask for summed= instead")
        for axis in over:
            choose("over", axis, SUMMABLE)
        places = [i for i, axis in enumerate(self.axes) if axis in over]
        left = tuple(axis for axis in self.axes if axis not in over)
        return replace(self, values=self.values.sum(places) if places else self.values, activations=None, axes=left)

    def conservation(self) -> pd.DataFrame:
        """Whether embeddings and biases add up to what is explained.

        Columns prompt, embedding, biases, explained, ratio (of their sum to what is explained). Under rules that
        conserve relevance (`relp-ah`) the ratio is 1. Raises `InputError` for a task and for `exact`.
        """
        if self.paired or self.embedding is None:
            raise InputError("sums to what is explained hold for prompts scored by gradients, not for a task")
        biases = self.biases.groupby("prompt")["score"].sum().reindex(range(len(self.mask)), fill_value=0.0)
        embedding, explained = (x.double().numpy() for x in (self.embedding.sum(1), self.explained))
        frame = pd.DataFrame({"prompt": range(len(self.mask)), "embedding": embedding, "biases": biases.to_numpy()})
        return frame.assign(explained=explained, ratio=(frame["embedding"] + frame["biases"]) / explained)

    @numbers.checked(n=numbers.COUNT)
    def compare(self, other: NeuronScores, n: int = 20) -> pd.DataFrame:
        """The neurons whose scores differ most from another model's (or method's) on the same prompts.

        Columns: those of the axes, score, other, difference; by falling |difference|. Raises `InputError` where either
        does not hold all scores, or they are not of one shape.
        """
        if self.values is None or other.values is None:
            raise InputError("compare needs all scores of both; make them without keep")
        if self.values.shape != other.values.shape or self.axes != other.axes:
            raise InputError(
                f"scores of shape {list(other.values.shape)} cannot be compared with ones of {list(self.values.shape)}"
            )
        change = replace(self, values=self.values - other.values, activations=None).top(n)
        where = tuple(torch.tensor(change[axis].to_numpy(), device="cpu") for axis in self.axes)
        change = change.rename(columns={"score": "difference"})
        change.insert(len(self.axes), "score", self.values[where].numpy())
        change.insert(len(self.axes) + 1, "other", other.values[where].numpy())
        return change

    def to_frame(self) -> pd.DataFrame:
        """All that is held, by |score| descending: `top(None)`, which is long unless the largest were kept."""
        return self.top(None)

    def _shown(self, n: int) -> pd.DataFrame:
        held = len(self.kept) if self.values is None and self.kept is not None else n
        return self.top(min(n, held if self.values is None else self.values.numel()))

    def headline(self) -> str:
        if self.values is None:
            size = f"{len(self.kept if self.kept is not None else ()):,} neurons"
        else:
            size = f"{' x '.join(self.axes)} {tuple(self.values.shape)}"
        rules = f" under {self.rules}" if self.rules else ""
        against = f"clean less {self.ablation}" if self.paired else "activation times gradient"
        return (
            f"{self.method}{rules}: {size}, {len(self.tokens)} prompts, {against}, {self.model}, {self.seconds:.3g} s"
        )

    @numbers.checked(n=numbers.COUNT)
    def figure(self, n: int = _SHOWN) -> Figure:
        """Bars of the `n` largest |score|, the largest on top."""
        import plotly.graph_objects as go

        rows = self._shown(n).iloc[::-1]
        picture = go.Figure(
            go.Bar(
                x=rows["score"].tolist(),
                y=[self._label(row) for row in rows.to_dict("records")],
                orientation="h",
                marker_color=[theme.HELPS if score > 0 else theme.HARMS for score in rows["score"]],
                hovertemplate="%{y}<br>score %{x:.4g}<extra></extra>",
            )
        )
        return theme.styled(
            picture, f"{self.method}: strongest neurons", xaxis_title="score", height=160 + 22 * len(rows)
        )

    def _label(self, row: dict[Any, Any]) -> str:
        text = f"layer {row['layer']} neuron {row['neuron']}"
        position = row.get("position", -1)
        if position >= 0:
            tokens = self.tokens[row.get("prompt", 0)]
            alone = "prompt" in row or len(self.tokens) == 1
            text += f" at {position}" + (f" ({tokens[position]})" if alone and position < len(tokens) else "")
        return theme.label(f"{text}, prompt {row['prompt']}" if row.get("prompt", 0) else text)

    def check(self) -> None:
        for axis in self.axes:
            choose("axes", axis, AXES)
        self._repr_html_()  # the whole table may be long

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{html_table(self._shown(_SHOWN))}"


def axes_without(over: Sequence[str]) -> tuple[str, ...]:
    """The axes that are left of all."""
    return tuple(axis for axis in AXES if axis not in over)

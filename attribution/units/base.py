"""`UnitScores`: what scores of parts of a site have in common, neurons or features: a tensor, or the largest alone."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers, theme
from interp.errors import InputError, choose
from interp.result import Result
from interp.tables import html_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SHOWN = 20
SUMMABLE = ("prompt", "position")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitScores(Result):
    """Scores of units by prompt, place, position and unit; see the sub-classes."""

    matching: ClassVar = (("mask", "tokens", "target_tokens"),)

    values: Tensor | None
    activations: Tensor | None
    kept: pd.DataFrame | None
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

    units: ClassVar[str]  # what errors and figures call them
    all_axes: ClassVar[tuple[str, ...]]

    @numbers.checked(n=numbers.FROM_ZERO)
    def top(self, n: int | None = 10, leave_out: Sequence[int] = ()) -> pd.DataFrame:
        """The `n` largest |score|, in falling order; None: all.

        Columns: those of the axes, activation, score; without those of axes that were summed, and then without the
        activation. `leave_out`: positions passed over before the largest are taken (0: where BOS stands).

        Raises `InputError` for more than there are, and for positions where they were summed.
        """
        if leave_out and "position" not in self.axes:
            raise InputError("leave_out names positions, over which these scores are summed; leave them out before")
        if self.values is None:
            return self._named(self._of_kept(n, leave_out))
        values = self._without(self.values, leave_out)
        most = values.numel() if n is None else n
        if most > values.numel():
            raise InputError(f"n={n} {self.units} are asked for; there are {values.numel():,} scores")
        flat = values.flatten()
        chosen = flat.abs().topk(most).indices
        where = torch.unravel_index(chosen, values.shape)
        columns = {axis: index.numpy() for axis, index in zip(self.axes, where, strict=True)}
        if self.activations is not None:
            columns["activation"] = self.activations.flatten()[chosen].numpy()
        return self._named(pd.DataFrame(columns | {"score": flat[chosen].numpy()}))

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table with more columns to read, where a sub-class has some."""
        return frame

    def _of_kept(self, n: int | None, leave_out: Sequence[int]) -> pd.DataFrame:
        assert self.kept is not None
        rows = self.kept[~self.kept["position"].isin(list(leave_out))].reset_index(drop=True)
        if n is not None and n > len(rows):
            raise InputError(f"n={n} {self.units} are asked for; {len(rows):,} were kept")
        return rows if n is None else rows.head(n)

    def _without(self, values: Tensor, leave_out: Sequence[int]) -> Tensor:
        if not leave_out:
            return values
        axis, length = self.axes.index("position"), self.mask.shape[1]
        for position in leave_out:
            numbers.whole("leave_out", position, numbers.Limits(0, length - 1))
        return values.index_fill(axis, torch.tensor(list(leave_out), device="cpu"), 0.0)

    def sum(self, *over: str) -> Self:
        """The same, summed over `"prompt"`, `"position"` or both.

        Raises `InputError` for other axes and where the largest alone were kept: ask for `summed=` instead.
        """
        if self.values is None:
            raise InputError("the largest scores alone were kept, whose sums say little; ask for summed= instead")
        for axis in over:
            choose("over", axis, SUMMABLE)
        places = [i for i, axis in enumerate(self.axes) if axis in over]
        left = tuple(axis for axis in self.axes if axis not in over)
        values = self.values.sum(places) if places else self.values
        return replace(self, values=values, activations=None, axes=left)

    @numbers.checked(n=numbers.COUNT)
    def compare(self, other: Self, n: int = 20) -> pd.DataFrame:
        """The units whose scores differ most from another model's (or method's) on the same prompts.

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
        at = change.columns.tolist().index("difference")
        change.insert(at, "score", self.values[where].numpy())
        change.insert(at + 1, "other", other.values[where].numpy())
        return change

    def to_frame(self) -> pd.DataFrame:
        """All that is held, by |score| descending: `top(None)`, which is long unless the largest were kept."""
        return self.top(None)

    def _shown(self, n: int) -> pd.DataFrame:
        held = len(self.kept) if self.values is None and self.kept is not None else n
        return self.top(min(n, held if self.values is None else self.values.numel()))

    def headline(self) -> str:
        if self.values is None:
            size = f"{len(self.kept if self.kept is not None else ()):,} {self.units}"
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
        rows = self._shown(n)
        names = [self._label(row) for row in rows.to_dict("records")]
        title = theme.named(self.model, f"{self.method}: strongest {self.units}")
        unit = "score (effect on the objective)"
        return theme.signed_bars(names, rows["score"].tolist(), title, unit, self.units.removesuffix("s"))

    @abstractmethod
    def _unit(self, row: dict[Any, Any]) -> str:
        """What a row of `top` is about, to read."""

    def _label(self, row: dict[Any, Any]) -> str:
        text, position = self._unit(row), row.get("position", -1)
        if position >= 0:
            tokens = self.tokens[row.get("prompt", 0)]
            alone = "prompt" in row or len(self.tokens) == 1
            text += f" at {position}" + (f" ({tokens[position]})" if alone and position < len(tokens) else "")
        return f"{text}, prompt {row['prompt']}" if row.get("prompt", 0) else text

    def fits(self) -> None:
        for axis in self.axes:
            choose("axes", axis, self.all_axes)
        self._repr_html_()  # the whole table may be long

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{html_table(self._shown(_SHOWN))}"

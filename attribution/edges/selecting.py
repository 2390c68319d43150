"""A learned mask as a selection: for each size the circuit that a mask learned for that size holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from attribution.edges.method import Method
from attribution.edges.registry import METHODS
from attribution.scores import Scores
from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.plugins import fields_of
from interp.selection import SELECTIONS, Rule, Selection, connected
from interp.selection.named import Mask
from interp.setting import Setting


@dataclass(frozen=True)
class Learned(Selection):
    """For each size the connected circuit of the edges that a mask keeps, learned for that size from the scores on.

    What is ranked is the odds that the mask keeps an edge: those of a mask learned for another size say little. The
    mask is learned on the prompts that choose; of resampled scores it is learned again, from these on, on all of them.

    Cost: what the method costs, for each size. Raises `InputError` as the method does, and for one that learns no size.

    Attributes:
        method: `edge-pruning` (default), `edge-pruning-sampled`, by name or as an object with its own settings, whose
            `edges` and `start` are set here; or your own, which has both.
    """

    method: str | Method = "edge-pruning"

    name = "learned"
    measures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        made = METHODS.make(self.method)
        if not {"edges", "start"} <= fields_of(made).keys():
            raise InputError(f"method={made.name!r} learns no mask of a size; use 'edge-pruning'")
        object.__setattr__(self, "method", made)

    def mask(self, scores: Float[Tensor, "source target"], graph: ComputationalGraph, n: int) -> Mask:
        """By |score|: what a mask starts from."""
        return connected(scores, graph, n)

    @numbers.checked()
    def rules(self, setting: Setting, scores: Float[Tensor, "source target"], sizes: Sequence[int]) -> list[Rule]:
        return [partial(self._learned, setting, n) for n in sizes]

    def _learned(self, setting: Setting, n: int, scores: Float[Tensor, "source target"]) -> Mask:
        graph, made = setting.graph, METHODS.make(self.method)
        if not 0 < n < graph.n_edges:
            return self.mask(scores, graph, n)
        told: dict[str, Any] = {"edges": n, "start": Scores(scores, graph, method="start")}
        return connected(replace(made, **told).scores(setting).values, graph, n)  # type: ignore[type-var]


SELECTIONS.register(Learned.name, Learned)

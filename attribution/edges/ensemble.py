"""Several methods as one: the mean of their scores, made comparable first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from attribution.edges.method import Method, Passes
from attribution.edges.registry import METHODS
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.selection.combine import average
from interp.setting import Setting


@dataclass(frozen=True)
class Ensemble(Method):
    """The mean of several methods' scores (parallel ensembling; Mondorf et al. 2025, arXiv:2510.06811).

    To let one method start where another ends (sequential ensembling), give it as their `start`:
    `EdgePruning(start="eap-ig")`.

    Attributes:
        methods: names or objects, at least two.
        by: `rank` averages each score's sign times the rank of its size, from 0 to 1 (equal ones share theirs);
            `scale` divides each method's scores by their mean size first.
    """

    methods: Sequence[str | Method] = ("eap-ig", "relp")
    by: Literal["rank", "scale"] = "rank"

    name = "ensemble"
    paper: ClassVar[str] = "Mondorf et al. 2025, arXiv:2510.06811"
    formula: ClassVar[tuple[str, str]] = ("sum", "sum")

    def __post_init__(self) -> None:
        choose("by", self.by, ("rank", "scale"))
        if isinstance(self.methods, str) or len(self.methods) < 2:
            raise InputError(f"methods={self.methods!r} must be at least two methods, such as ['eap-ig', 'relp']")
        object.__setattr__(self, "methods", tuple(METHODS.make(one) for one in self.methods))
        levels = {one.level for one in self.members}
        if len(levels) > 1:
            raise InputError("methods must all score edges, or all nodes; these do both: average those of one level")

    @property
    def members(self) -> tuple[Method, ...]:
        """The methods themselves."""
        return tuple(METHODS.make(one) for one in self.methods)

    @property
    def level(self) -> Any:  # type: ignore[override]
        """What the methods score."""
        return self.members[0].level

    @property
    def ablations(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those that every method has a meaning for."""
        first, *others = (one.ablations for one in self.members)
        return tuple(one for one in first if all(one in known for known in others))

    def check(self, setting: Setting) -> None:
        for one in self.members:
            one.check(setting)

    def passes(self, graph: ComputationalGraph) -> Passes:
        each = [one.passes(graph) for one in self.members]
        return Passes(sum(one.forward for one in each), sum(one.backward for one in each))

    def drawn_with(self) -> int | None:
        return next((seed for one in self.members if (seed := one.drawn_with()) is not None), None)

    def values(self, setting: Setting) -> Tensor:
        return self._found(setting)[0]

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        scores = [one.scores(setting) for one in self.members]
        told = [{"method": one.method, "seed": one.seed, **one.settings} for one in scores]
        wide = max((one.values.dtype for one in scores), key=lambda dtype: dtype.itemsize)
        return average([one.values.to(wide) for one in scores], by=self.by), {"methods": told}

"""`Method`: a way to score the edges or nodes of a computational graph, as an object that has all it needs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor

from attribution.scores import Level, Scores
from interp import ranks
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.ablation import KNOWN
from interp.objectives import Objective
from interp.plugins import fields_of
from interp.running import door
from interp.setting import Setting


class Passes(NamedTuple):
    """What a method costs, in passes per prompt; NaN where nobody knows."""

    forward: float
    backward: float


class Method(ABC):
    """A way to score edges or nodes. Sub-classes are frozen dataclasses whose fields are their settings.

    A method of your own defines `name`, `paper` and `values`; where `attribute` takes a name, it takes an instance::

        @dataclass(frozen=True)
        class Weights(Method):
            name: ClassVar[str] = "weights"
            paper: ClassVar[str] = "ours"

            def values(self, setting):
                return my_scores(setting.model, setting.prompts) * setting.graph.edge_mask

    `attribution.METHODS.register("weights", Weights)` gives it a name in this process, an entry point
    `faithful_circuits.methods` in every process, and the command line takes `module:Weights` as it is.

    Attributes:
        name: what tables and files call it.
        level: whether it scores edges or nodes.
        paper: where it comes from.
        ablations: those that it has a meaning for.
        formula: forward and backward passes per prompt, for tables; S = steps, L = layers, E = edges, N = nodes.
        by_position: whether it tells positions apart, by a field `positions`.
    """

    name: str
    level: Level = "edge"
    paper: ClassVar[str] = ""
    ablations: ClassVar[tuple[str, ...]] = KNOWN
    formula: ClassVar[tuple[str, str]] = ("", "")
    by_position: ClassVar[bool] = False

    @abstractmethod
    def values(self, setting: Setting) -> Float[Tensor, "source target"] | Float[Tensor, " source"]:
        """How much the objective falls when an edge (or node) alone is corrupted: mean over prompts.

        0 where no edge exists, positive where it helps. With positions `[span, source, target]`.
        """

    def check(self, setting: Setting) -> None:
        """Raise `InputError`, in a sentence, where the method has no meaning; called before any work."""
        if setting.ablation not in self.ablations:
            raise InputError(
                f"method={self.name!r} follows a path between two prompts, which ablation={setting.ablation!r} does "
                f"not have; use ablation='patch', or a method such as 'eap', 'mask-ig' or 'exact'"
            )

    def passes(self, graph: ComputationalGraph) -> Passes:
        """What it costs on a graph."""
        return Passes(float("nan"), float("nan"))

    def settings(self) -> dict[str, Any]:
        """What scores remember of how they were made, as JSON can hold it."""
        return {name: value for name, value in fields_of(self).items() if isinstance(value, bool | int | float | str)}

    @door
    def scores(self, setting: Setting) -> Scores:
        """`values`, with how they were made."""
        self.check(setting)
        started = time.perf_counter()
        values, found = self._left_alone(setting)
        values = ranks.same(values)
        whole, gap, spans = (found.pop(name, None) for name in ("whole", "gap", "spans"))
        return Scores(
            settings={"kv": setting.kv, "objective": setting.goal.name, **self.settings(), **found},
            values=values,
            graph=setting.graph,
            method=self.name,
            level=self.level,
            ablation=str(setting.ablation),
            task=setting.task.to_dict(),
            model=setting.anatomy.name,
            seconds=time.perf_counter() - started,
            n_prompts=len(setting),
            whole=whole,
            gap=gap,
            spans=spans,
            seed=self.drawn_with(),
            goal=setting.goal,
            constants=setting.fitted,
        )

    def drawn_with(self) -> int | None:
        """The seed, for a method that draws."""
        return None

    def _left_alone(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        """What is found; raises `InputError` where somebody's own method wrote into the prompts that all share."""
        kept = setting.prompts.copy()
        try:
            return self._found(setting)
        finally:
            if setting.prompts.restore(kept):
                raise InputError(
                    f"method={self.name!r} wrote into setting.prompts, which other methods use too; change a copy, "
                    "setting.prompts.copy()"
                )

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        """The values, and what was found out beside them."""
        return self.values(setting), {}


def check_objective(objective: Objective, method: str, only_clean: bool) -> None:
    """Raise `InputError` for an objective without a gradient where the method takes one."""
    if not objective.differentiable:
        raise InputError(f"objective={objective.name!r} has no gradient; use it to evaluate, or method='exact'")
    if objective.flat_at_clean and only_clean:
        raise InputError(
            f"objective={objective.name!r} has a gradient of zero at the clean run, which is all that "
            f"method={method!r} looks at; use method='eap-ig' or 'clean-corrupted'"
        )

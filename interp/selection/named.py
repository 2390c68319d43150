"""`Selection`: a way to take a circuit from scores, as an object; ours, and their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.graph import ComputationalGraph
from interp.plugins import Registry
from interp.selection.connecting import connected
from interp.selection.growing import greedy
from interp.selection.integer import CANDIDATES, program
from interp.selection.top import top_n

if TYPE_CHECKING:
    from interp.setting import Setting

Mask = Bool[Tensor, "source target"]
Rule = Callable[[Float[Tensor, "source target"]], Mask]  # takes a circuit of one size from scores


class Selection(ABC):
    """A way to take circuits from scores. Sub-classes are frozen dataclasses whose fields are their settings.

    A selection of your own defines `name` and `mask`, or, if it measures circuits, `rules`. Where a function takes a
    name, it takes an instance; `interp.selection.SELECTIONS.register(name, class)`, an entry point
    `faithful_circuits.selections` or `module:Name` give it a name.

    Attributes:
        name: what tables and files call it.
        measures: whether it runs circuits, and so needs prompts of its own to choose on.
    """

    name: str
    measures: ClassVar[bool] = False

    @abstractmethod
    def mask(self, scores: Float[Tensor, "source target"], graph: ComputationalGraph, n: int) -> Mask:
        """A circuit of `n` edges, or somewhat fewer."""

    def rules(self, setting: Setting, scores: Float[Tensor, "source target"], sizes: Sequence[int]) -> list[Rule]:
        """For each size what takes a circuit from scores: these, or a resample's.

        A selection that measures settles here, on the setting's prompts, what it then keeps.
        """
        return [partial(self.mask, graph=setting.graph, n=n) for n in sizes]


@dataclass(frozen=True)
class TopN(Selection):
    """The edges of largest |score| (of largest signed score without `absolute`), pruned: `top_n`, MIB's."""

    absolute: bool = True
    pruned: bool = True

    name = "top-n"

    def mask(self, scores: Tensor, graph: ComputationalGraph, n: int) -> Mask:
        return top_n(scores, graph, n, self.absolute, self.pruned)


@dataclass(frozen=True)
class Greedy(Selection):
    """Grown from the logits upwards: `greedy`."""

    absolute: bool = True
    pruned: bool = True

    name = "greedy"

    def mask(self, scores: Tensor, graph: ComputationalGraph, n: int) -> Mask:
        return greedy(scores, graph, n, self.absolute, self.pruned)


@dataclass(frozen=True)
class Connected(Selection):
    """The best edges of which so many are left after pruning: `connected`."""

    absolute: bool = True

    name = "connected"

    def mask(self, scores: Tensor, graph: ComputationalGraph, n: int) -> Mask:
        return connected(scores, graph, n, self.absolute)


@dataclass(frozen=True)
class Program(Selection):
    """The connected circuit of largest total score, by an integer program: `program`."""

    absolute: bool = True
    candidates: int = CANDIDATES
    seconds: float | None = None

    name = "program"

    def __post_init__(self) -> None:
        numbers.settle(self, candidates=numbers.COUNT, seconds=numbers.POSITIVE)

    def mask(self, scores: Tensor, graph: ComputationalGraph, n: int) -> Mask:
        return program(scores, graph, n, self.absolute, self.candidates, self.seconds)


SELECTIONS: Registry[Selection] = Registry("selection", Selection, "faithful_circuits.selections")  # type: ignore[type-abstract]
for _kind in (TopN, Greedy, Connected, Program):
    SELECTIONS.register(_kind.name, _kind)


@numbers.checked()
def select(
    scores: Float[Tensor, "source target"],
    graph: ComputationalGraph,
    n: int,
    selection: str | Selection = "top-n",
    **settings: Any,
) -> Mask:
    """The circuit of `n` edges that a selection takes from scores, pruned; `settings` are the selection's.

    `top-n` and `greedy` count edges before pruning, as MIB does, `connected` and `program` after it. Raises
    `InputError` for an unknown name and for what the selection refuses.
    """
    return mask_of(SELECTIONS.make(selection, settings), scores, graph, n)


def mask_of(selection: Selection, scores: Float[Tensor, "source target"], graph: ComputationalGraph, n: int) -> Mask:
    """`selection.mask`, whose scores are a copy and whose mask is checked: a selection may be anybody's."""
    return _checked(selection, partial(selection.mask, graph=graph, n=n), graph)(scores)


def rules_of(
    selection: Selection, setting: Setting, scores: Float[Tensor, "source target"], sizes: Sequence[int]
) -> list[Rule]:
    """`selection.rules`, with copies and checks as in `mask_of`."""
    return [_checked(selection, one, setting.graph) for one in selection.rules(setting, scores.clone(), sizes)]


def _checked(selection: Selection, rule: Rule, graph: ComputationalGraph) -> Rule:
    # the mask is copied as well: a selection may write the next one into the same tensor
    return lambda scores: graph.check_mask(rule(scores.clone()), f"the mask of selection={selection.name!r}").clone()

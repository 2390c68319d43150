"""`Elements`: all that tests and comparisons need to know of what circuits are made of, whatever that is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import numbers
from interp.element_names import element_names
from interp.errors import InputError
from interp.kernels.evaluate import CircuitValues
from interp.node_mask import Spans
from interp.selection import Selection
from interp.setting import MaskObject, Setting
from metrics.circuit.evaluate import together

Mask = Bool[Tensor, "*axes"]
Values = Float[Tensor, "*axes"]
Places = Int[Tensor, " n"]  # single elements, as flat indices into masks


@dataclass(frozen=True)
class Elements(ABC):
    """All that a circuit of one kind can hold in a setting; masks over it are bool tensors of one shape.

    Attributes:
        setting: what circuits are run in.
        level: `edge`, or `neuron`, `head`, `node`, `feature`.
        spans: the positions that are told apart, of edges also by name.
        noun: what tables call a single one.
        null: what random circuits are drawn by where nothing else is asked for.
    """

    setting: Setting
    level: str = "edge"
    spans: Spans = None
    noun: ClassVar[str]
    null: ClassVar[str]

    @property
    @abstractmethod
    def full(self) -> Mask:
        """The mask that holds everything."""

    @property
    @abstractmethod
    def places(self) -> Places:
        """Every element that is counted."""

    @property
    @abstractmethod
    def ladder(self) -> tuple[int, ...]:
        """Sizes at which circuits are measured."""

    @abstractmethod
    def circuit(self, mask: Mask) -> Tensor | MaskObject:
        """A mask as whatever takes circuits takes it."""

    @abstractmethod
    def read(self, given: Any, name: str) -> Mask:
        """The mask of a circuit, or of a bare tensor, that is the argument `name`; raises `InputError` for others."""

    @abstractmethod
    def rules(self, selection: Selection, values: Values, sizes: Sequence[int]) -> list[Callable[[Values], Mask]]:
        """For each size what takes a circuit from scores, settled on the setting's prompts where it measures."""

    @abstractmethod
    def random(
        self, mask: Mask, n: int, seed: int, reference: str | None = None, size: int | None = None
    ) -> list[Mask]:
        """`n` random circuits of a circuit's size, or of another; raises `InputError` for what cannot be drawn."""

    @abstractmethod
    def outside(self, mask: Mask, n: int, seed: int) -> list[Mask]:
        """`n` random circuits of its size out of a circuit's complement; none where that holds too little."""

    @property
    @abstractmethod
    def rankings(self) -> list[Selection]:
        """What takes circuits of those that help most, and of those that matter most."""

    @abstractmethod
    def pruned(self, mask: Mask) -> Mask:
        """A circuit without what leads nowhere."""

    @abstractmethod
    def additions(self, mask: Mask, n: int, seed: int) -> list[list[int]]:
        """`n` random things to add to a circuit, each of one element or more; none where it leaves nothing."""

    def chosen(self, selection: Selection, values: Values, sizes: Sequence[int]) -> list[Any]:
        """The circuits of some sizes that a selection takes from scores, as whatever takes circuits takes them."""
        return [self.circuit(rule(values)) for rule in self.rules(selection, values, sizes)]

    def on(self, setting: Setting) -> Elements:
        """The same in another setting."""
        return replace(self, setting=setting)

    def inside(self, mask: Mask) -> Places:
        """The elements of a circuit."""
        return self.places[mask.flatten()[self.places]]

    def count(self, mask: Mask) -> int:
        """How many elements a circuit has."""
        return len(self.inside(mask))

    def rest(self, mask: Mask) -> Mask:
        """The complement of a circuit."""
        return self.full & ~mask

    def adding(self, mask: Mask, places: Sequence[int]) -> Mask:
        """A circuit with some elements added."""
        return self._set(mask, places, True)

    def without(self, mask: Mask, places: Sequence[int]) -> Mask:
        """A circuit with some elements taken away."""
        return self._set(mask, places, False)

    def _set(self, mask: Mask, places: Sequence[int], to: bool) -> Mask:
        changed = mask.flatten().clone()
        changed[list(places)] = to
        return changed.view(mask.shape)

    def names(self, places: Places) -> list[str]:
        """What elements are called."""
        features = self.setting.features if self.level == "feature" else None
        made = {} if features is None else features.to_dict()
        return element_names(self.setting.graph, self.level, self.spans, self.full.shape, places, made)

    def measure(self, masks: Sequence[Mask]) -> CircuitValues:
        """Objectives of the model, of the empty circuit and of circuits, prompt by prompt."""
        return self.setting.measure(together([self.circuit(mask) for mask in masks]))

    def size(self, name: str, given: int | float) -> int:
        """How many elements a number or a share of all is, of the argument `name`; at least one.

        Raises `InputError` for more than there are.
        """
        total = len(self.places)
        wanted = numbers.size(name, given)
        if wanted > total:
            whose = "the graph has" if self.level == "edge" else "there are"
            raise InputError(f"{name}={given} is out of range: {whose} {total:,} {self.level}s")
        return max(1, int(wanted * total)) if isinstance(wanted, float) else wanted

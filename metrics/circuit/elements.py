"""What circuits are made of, edges or nodes of a level: all that tests and comparisons of either need to know of it."""

from __future__ import annotations

import functools
import random as python_random
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
from interp.node_mask import NodeMask, Spans, node_masks
from interp.selection import Connected, Selection, TopN, ladder, node_ladder, prune
from interp.selection.named import rules_of
from interp.selection.nodes import countable
from interp.setting import Setting
from metrics.circuit.balance import node_rules
from metrics.circuit.controls import exchangeable, random_nodes, refuse_reference
from metrics.circuit.evaluate import together
from metrics.circuit.node_scores import NodeScores
from metrics.circuit.samples import added_paths, random_circuit, random_paths

Mask = Bool[Tensor, "*axes"]
Values = Float[Tensor, "*axes"]
Places = Int[Tensor, " n"]  # single elements, as flat indices into masks


@dataclass(frozen=True)
class Elements(ABC):
    """All that a circuit of one kind can hold in a setting; masks over it are bool tensors of one shape.

    Attributes:
        setting: what circuits are run in.
        level: `edge`, or `neuron`, `head`, `node`, `feature`.
        spans: of nodes, the positions that are told apart.
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
    def circuit(self, mask: Mask) -> Tensor | NodeMask:
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


@dataclass(frozen=True)
class EdgeElements(Elements):
    """Edges of the setting's graph."""

    noun = "edge"
    null = "paths"

    @property
    def full(self) -> Mask:
        return self.setting.graph.edge_mask

    @functools.cached_property
    def places(self) -> Places:
        return self.full.flatten().nonzero()[:, 0]

    @property
    def ladder(self) -> tuple[int, ...]:
        return ladder(self.setting.graph)

    def circuit(self, mask: Mask) -> Tensor:
        return mask

    def read(self, given: Any, name: str) -> Mask:
        if (level := getattr(given, "level", "edge")) != "edge":
            raise InputError(f"{name} is a circuit of {level}s; give one of edges")
        return self.setting.graph.check_mask(getattr(given, "mask", given), name)

    def rules(self, selection: Selection, values: Values, sizes: Sequence[int]) -> list[Callable[[Values], Mask]]:
        return [*rules_of(selection, self.setting, values, sizes)]

    def random(
        self, mask: Mask, n: int, seed: int, reference: str | None = None, size: int | None = None
    ) -> list[Mask]:
        edges = self.count(mask) if size is None else size
        return [random_circuit(self.setting.graph, edges, seed + i, reference or self.null) for i in range(n)]

    def outside(self, mask: Mask, n: int, seed: int) -> list[Mask]:
        graph, rest, edges = self.setting.graph, self.rest(mask), self.count(mask)
        if self.count(rest) < edges:
            return []
        return [random_paths(graph, edges, seed + i, rest) for i in range(n)]

    @property
    def rankings(self) -> list[Selection]:
        return [Connected(absolute=False), Connected()]

    def pruned(self, mask: Mask) -> Mask:
        return prune(mask, self.setting.graph)

    def additions(self, mask: Mask, n: int, seed: int) -> list[list[int]]:
        """Paths from the circuit to itself: with one it is an inflated circuit."""
        graph = self.setting.graph
        width = graph.shape[1]
        return [[source * width + target for source, target in path] for path in added_paths(graph, mask, n, seed)]


@dataclass(frozen=True)
class NodeElements(Elements):
    """Nodes of a level; all edges between them are in. Random ones are of the same layers and near in norm."""

    noun = "node"
    null = "matched"

    @functools.cached_property
    def full(self) -> Mask:
        return self.setting.nodes(self.level, self.spans).full

    @functools.cached_property
    def places(self) -> Places:
        return countable(self.full, self.level, self.full)

    @property
    def ladder(self) -> tuple[int, ...]:
        return node_ladder(len(self.places))

    def circuit(self, mask: Mask) -> NodeMask:
        return NodeMask(mask, self.level, self.spans)

    def read(self, given: Any, name: str) -> Mask:
        own = getattr(given, "level", self.level), getattr(given, "spans", self.spans)
        if own != (self.level, self.spans):
            raise InputError(f"{name} is a circuit of {own[0]}s, or of other positions; give one of {self.level}s")
        (mask,) = node_masks(given, None if hasattr(given, "level") else self.level, self.spans) or [given]
        return mask.check(self.full, self.setting.anatomy.name)

    def rules(self, selection: Selection, values: Values, sizes: Sequence[int]) -> list[Callable[[Values], Mask]]:
        return node_rules(self.setting, NodeScores(values, self.level, self.spans, self.full), selection, sizes)

    def random(
        self, mask: Mask, n: int, seed: int, reference: str | None = None, size: int | None = None
    ) -> list[Mask]:
        refuse_reference(reference)
        return [one.mask for one in random_nodes(self.setting, [self.circuit(mask)], n, seed, size)]

    def outside(self, mask: Mask, n: int, seed: int) -> list[Mask]:
        drawn, free = self.random(mask, n, seed), exchangeable(self.setting, self.level)
        shared = mask & (free if self.spans is None else free.unsqueeze(-2))
        return [] if any(self.count(one & shared) for one in drawn) else drawn

    @property
    def rankings(self) -> list[Selection]:
        return [TopN(absolute=False), TopN()]

    def pruned(self, mask: Mask) -> Mask:
        return mask

    def additions(self, mask: Mask, n: int, seed: int) -> list[list[int]]:
        """Single nodes, each one of a random circuit's: like one of the circuit's own."""
        rng = python_random.Random(seed)
        new = [self.inside(one & ~mask).tolist() for one in self.random(mask, n, seed)]
        return [[rng.choice(places)] for places in new if places]


def elements_at(setting: Setting, level: str, spans: Spans = None) -> Elements:
    """What circuits of a level are made of in a setting."""
    return EdgeElements(setting) if level == "edge" else NodeElements(setting, level, spans)


def elements_of(setting: Setting, circuit: Tensor | NodeMask) -> tuple[Elements, Mask]:
    """What a circuit is made of, and its mask; raises `InputError` where that does not fit the setting's model."""
    if not isinstance(circuit, NodeMask):
        return EdgeElements(setting), setting.graph.check_mask(circuit)
    elements = NodeElements(setting, circuit.level, circuit.spans)
    return elements, circuit.check(elements.full, setting.anatomy.name)

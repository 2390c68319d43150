"""Units of an attribution graph: parts of a held run that read from the residual stream and write into it.

Units of MLPs stand for what an MLP computes: they read a vector, write a vector, and leave a rest.

    what MLP l adds at position p  =  sum over units of a_u w_u  +  errors  +  constants

Neurons leave no error; features of a dictionary do. A unit's activation is linear in what it reads, once slopes are
held: a_u = r_u . x + constants, x being the residual stream in front of the MLP's norm, its scale held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.tracing.held import Gradients, Held, Stream

Behind = Mapping[int, Gradients]  # gradients at what the MLPs of later layers add, of the same rows or fewer
Later = dict[tuple[int, str], Tensor]  # by layer and place, what changes in earlier layers write there
Carried = Float[Tensor, "row pos unit"]  # gradients at activations


@dataclass(frozen=True)
class Targets:
    """Where the gradients of some targets enter the residual stream.

    Attributes:
        layers: whose MLP reads there; the number of layers for logits, which read behind the last.
        positions: of each target.
        vectors: in front of the norm.
        own: by place, what biases on the way from the stream to the target give.
    """

    layers: Int[Tensor, " row"]
    positions: Int[Tensor, " row"]
    vectors: Float[Tensor, "row d_model"]
    own: dict[str, Float[Tensor, " row"]]

    def __len__(self) -> int:
        return len(self.layers)

    def select(self, chosen: Int[Tensor, " some"]) -> Targets:
        """Some of them."""
        own = {place: values[chosen.to(values.device)] for place, values in self.own.items()}
        at = chosen.to(self.vectors.device)
        return Targets(self.layers[chosen], self.positions[chosen], self.vectors[at], own)

    @classmethod
    def joined(cls, parts: Sequence[Targets]) -> Targets:
        """All of some groups, in order; a place that a group lacks gives nothing."""
        places = dict.fromkeys(place for part in parts for place in part.own)
        nothing = [torch.zeros(len(part), dtype=part.vectors.dtype, device=part.vectors.device) for part in parts]
        own = {
            place: torch.cat([part.own.get(place, none) for part, none in zip(parts, nothing, strict=True)])
            for place in places
        }
        return cls(
            torch.cat([part.layers for part in parts]),
            torch.cat([part.positions for part in parts]),
            torch.cat([part.vectors for part in parts]),
            own,
        )


@dataclass(frozen=True)
class Places:
    """Single units, by layer, position and number, on the CPU."""

    layers: Int[Tensor, " unit"]
    positions: Int[Tensor, " unit"]
    units: Int[Tensor, " unit"]

    def __len__(self) -> int:
        return len(self.layers)

    @classmethod
    def of(cls, rows: Int[Tensor, "unit 3"]) -> Places:
        """From rows of layer, position, unit."""
        layers, positions, units = rows.cpu().long().reshape(-1, 3).T.contiguous()
        return cls(layers, positions, units)

    def rows(self) -> Int[Tensor, "unit 3"]:
        """Layer, position and unit of each."""
        return torch.stack((self.layers, self.positions, self.units), 1)

    def select(self, chosen: Tensor) -> Places:
        """Some of them, by index or mask."""
        return Places(self.layers[chosen], self.positions[chosen], self.units[chosen])


@dataclass(frozen=True)
class Changes:
    """Units of one layer that are set to values, each in one of several copies of a run."""

    copies: Int[Tensor, " change"]
    positions: Int[Tensor, " change"]
    units: Int[Tensor, " change"]
    values: Float[Tensor, " change"]

    def __len__(self) -> int:
        return len(self.values)

    def set(self, activations: Float[Tensor, "copy pos number"]) -> Float[Tensor, "copy pos number"]:
        """Activations with these in their places; as they are where there is nothing to set."""
        if not len(self):
            return activations
        activations = activations.clone()
        activations[self.copies, self.positions, self.units] = self.values.to(activations)
        return activations


class Units(ABC):
    """The units of one held run. A sub-class says how they read and write; nothing here is over all of them at once."""

    kind: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]  # of its nodes
    held: Held

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "kind") and not hasattr(cls, "kinds"):
            cls.kinds = (cls.kind,)

    def kind_of(self, unit: int) -> str:
        """What a unit of that number is."""
        return self.kind

    def has(self, layer: int, unit: int) -> bool:
        """Whether a layer has a unit of that number."""
        return 0 <= unit < self.width(layer)

    @abstractmethod
    def activations(self, layer: int) -> Float[Tensor, "pos unit"]:
        """Of the units of a layer that `numbers` names, 0 where one is not active or does not count."""

    @abstractmethod
    def numbers(self, layer: int) -> Int[Tensor, " unit"]:
        """The units of a layer that are active somewhere, at least, in rising order."""

    @abstractmethod
    def width(self, layer: int) -> int:
        """How many units a layer has, active or not."""

    def at(self, places: Places) -> Float[Tensor, " unit"]:
        """The activations of some units."""
        found = self.held.words.new_zeros(len(places))
        for layer in places.layers.unique().tolist():
            here = (places.layers == layer).nonzero()[:, 0]
            numbers, activations = self.numbers(layer), self.activations(layer)
            units = places.units[here].to(numbers.device)
            columns = torch.searchsorted(numbers, units).clamp(max=max(0, len(numbers) - 1))
            if len(numbers):  # a unit that is active nowhere has no column
                values = activations[places.positions[here].to(units.device), columns]
                found[here.to(units.device)] = torch.where(numbers[columns] == units, values, 0.0)
        return found

    @abstractmethod
    def writes(self, layer: int, places: Places, into: int | None = None) -> Float[Tensor, "unit d_model"]:
        """Activation times write vector of units of that layer, as added to the residual stream at the layer `into`.

        None: at their own.
        """

    def reaches(self, layer: int) -> range:
        """The layers whose output units of a layer write to."""
        return range(layer, layer + 1)

    @abstractmethod
    def constants(self, layer: int) -> dict[str, Stream]:
        """What is added whatever the units read, by place."""

    @abstractmethod
    def own_places(self, layer: int) -> list[str]:
        """The places of biases in front of an MLP's units."""

    def attended(
        self, layer: int, z: Float[Tensor, "copy pos head d_head"], changes: Changes
    ) -> tuple[Float[Tensor, "copy pos d_model"] | None, Float[Tensor, "copy pos number"]]:
        """What attention adds besides where units in it are set (None: nothing), and these units' activations."""
        return None, z.new_zeros(*z.shape[:2], 0)

    @abstractmethod
    def run(
        self, layer: int, x: Float[Tensor, "copy pos d_model"], changes: Changes, later: Later
    ) -> tuple[Tensor, Tensor]:
        """What the MLP really adds when it reads `x` and some units are set, and the units' activations.

        `later` hands what units that are set write to later layers on to these. Activations `[copy, pos, number]` of
        all units of the MLP, active in the held run or not.
        """

    def rerouted(self, layer: int, activations: Float[Tensor, "pos number"]) -> list[int]:
        """Positions at which a mixture chose other experts than in the held run, as activations tell."""
        return []


class MLPUnits(Units):
    """What stands for the MLPs of a held run."""

    @abstractmethod
    def reads(self, layer: int, places: Places) -> Targets:
        """Units of that layer as targets."""

    @abstractmethod
    def carried(self, layer: int, gradients: Gradients, behind: Behind) -> Carried:
        """Gradients at the activations, from those at what the MLP adds, and where `looks_behind` later ones."""

    @property
    def looks_behind(self) -> bool:
        """Whether units write to later layers too, so that `carried` needs the gradients there."""
        return False

    @abstractmethod
    def pulled(self, layer: int, carried: Carried) -> Gradients:
        """Gradients at what the MLP reads, in front of its norm, from those at the activations."""

    def skipped(self, layer: int, gradients: Gradients) -> Gradients | None:
        """The same along a linear path around the units, from gradients at what the MLP adds; None: there is none."""
        return None

    @abstractmethod
    def total(self, layer: int) -> Stream:
        """What all units of a layer add together."""

    def errors(self, layer: int) -> Stream | None:
        """What the MLP adds beyond its units and constants; None: units leave nothing."""
        return None


def reads_of(units: MLPUnits, places: Places) -> Targets:
    """Units as targets, in the order given."""
    layers = places.layers.unique().tolist()
    if not layers:
        raise ValueError("no units")
    inside = [(places.layers == layer).nonzero()[:, 0] for layer in layers]
    parts = [units.reads(layer, places.select(here)) for layer, here in zip(layers, inside, strict=True)]
    return Targets.joined(parts).select(torch.cat(inside).argsort())

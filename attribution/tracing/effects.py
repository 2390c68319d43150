"""Direct effects: the rows of an attribution graph.

    A[t, s]  =  (gradient at t's reads, pulled back through the residual stream and held attention)  .  (what s writes)

All MLPs strictly between the two are stopped; a linear skip around a dictionary's features is a path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.tracing.biases import BiasPlaces
from attribution.tracing.held import Gradients, Held
from attribution.tracing.units import MLPUnits, Places, Targets, reads_of
from attribution.tracing.walk import walk
from interp import numbers

_CACHED = 4 << 20  # bytes of gradients that are pulled back together: more fall out of a processor's cache


@dataclass(frozen=True)
class Effects:
    """Direct effects on some targets.

    Attributes:
        tokens: of the tokens' embeddings.
        units: of the units that were chosen.
        errors: of what the MLPs add beyond units and constants; no layers where units leave nothing.
        biases: by place of `BiasPlaces.places`.
        everything: sums over all units, chosen or not.
        magnitude: sums of |effects| over all units; None unless they were asked for.
    """

    tokens: Float[Tensor, "row pos"]
    units: Float[Tensor, "row unit"]
    errors: Float[Tensor, "row layer pos"]
    biases: Float[Tensor, "row place pos"]
    everything: Float[Tensor, " row"]
    magnitude: Float[Tensor, " row"] | None

    @classmethod
    def none(cls, of: RowMaker, n_rows: int, n_errors: int, magnitudes: bool) -> Effects:
        """Rows that nothing has an effect on as yet."""
        wide, length = of.biases.held.words, of.biases.held.n_positions
        return cls(
            tokens=wide.new_zeros(n_rows, length),
            units=wide.new_zeros(n_rows, len(of.chosen)),
            errors=wide.new_zeros(n_rows, n_errors, length),
            biases=of.biases.none(n_rows),
            everything=wide.new_zeros(n_rows),
            magnitude=wide.new_zeros(n_rows) if magnitudes else None,
        )

    def row_sums(self) -> Float[Tensor, " row"]:
        """What all there is gives: the activation or logit of every target."""
        return self.tokens.sum(1) + self.everything + self.errors.sum((1, 2)) + self.biases.sum((1, 2))


Advance = Callable[[int], None]  # is told how many rows are done


class RowMaker(Protocol):
    """Makes rows of a graph: direct effects of all that a held run has, and of some units, `chosen`."""

    chosen: Places
    biases: BiasPlaces

    def on_logits(self, targets: Targets, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on logits."""

    def on_units(self, places: Places, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on units, in the order given."""


class Tracer:
    """Direct effects of a held run's tokens, biases, errors and some units, `chosen`, on any targets.

    Cost of n targets: the attention of n backward passes of the layers below them, and for magnitudes another
    `pos x d_model x d_mlp` products a layer and target. Memory: `batch_size` targets' gradients, `[pos, d_model]`
    each, and with magnitudes one layer's `[pos, d_mlp]`.
    """

    def __init__(self, held: Held, units: MLPUnits, chosen: Places, batch_size: int | None = None) -> None:
        self.held, self.units, self.chosen = held, units, chosen
        self.biases = BiasPlaces(held, units)
        self.batch_size = batch_size or default_batch(held)
        numbers.whole("batch_size", self.batch_size, numbers.COMMON["batch_size"])
        self._errors = [units.errors(layer) for layer in range(held.n_layers)]
        self._written = [self._by_position(layer) for layer in range(held.n_layers)]

    def _by_position(self, layer: int) -> list[tuple[int, Int[Tensor, " unit"], Float[Tensor, "d_model unit"]]]:
        """The chosen units that write to a layer: of each position which they are, and what they write."""
        sources = [one for one in self.chosen.layers.unique().tolist() if layer in self.units.reaches(one)]
        return [one for source in sources for one in self._written_by(source, layer)]

    def _written_by(
        self, source: int, layer: int
    ) -> list[tuple[int, Int[Tensor, " unit"], Float[Tensor, "d_model unit"]]]:
        here = (self.chosen.layers == source).nonzero()[:, 0]
        places, device = self.chosen.select(here), self.held.words.device
        writes, found = self.units.writes(source, places, layer), []
        for position in places.positions.unique().tolist():
            at = (places.positions == position).nonzero()[:, 0]
            found.append((position, here[at].to(device), writes[at.to(device)].T.contiguous()))
        return found

    def on_logits(self, targets: Targets, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on logits."""
        return self.effects(targets, magnitudes, advance)

    def on_units(self, places: Places, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on units, in the order given."""
        return self.effects(reads_of(self.units, places), magnitudes, advance)

    @torch.no_grad()
    def effects(self, targets: Targets, magnitudes: bool = False, advance: Advance = lambda n: None) -> Effects:
        """On these targets, in their order; `advance` is told how many are done."""
        held, wide = self.held, self.held.words
        n_errors = held.n_layers if any(one is not None for one in self._errors) else 0
        found = Effects.none(self, len(targets), n_errors, magnitudes)
        for rows in self._batches(targets):
            part = _Batch(self, targets.select(rows), magnitudes).effects()
            at = rows.to(wide.device)
            for name in ("tokens", "units", "errors", "biases", "everything", "magnitude"):
                if (into := getattr(found, name)) is not None:
                    into[at] = getattr(part, name)
            advance(len(rows))
        return found

    def _batches(self, targets: Targets) -> list[Int[Tensor, " row"]]:
        """Targets of like positions together, since nothing behind the last is run; in each the deepest first."""
        order = torch.from_numpy(targets.positions.numpy().argsort(kind="stable"))
        parts = order.split(self.batch_size)
        return [part[targets.layers[part].argsort(descending=True, stable=True)] for part in parts]


class _Batch:
    """Some targets, pulled back together."""

    def __init__(self, tracer: Tracer, targets: Targets, magnitudes: bool) -> None:
        self.tracer, self.targets, n_rows = tracer, targets, len(targets)
        wide = tracer.held.words
        self.units = wide.new_zeros(n_rows, len(tracer.chosen))
        self.errors = wide.new_zeros(n_rows, tracer.held.n_layers, tracer.held.n_positions)
        self.biases = tracer.biases.none(n_rows)
        self.everything = wide.new_zeros(n_rows)
        self.magnitude = wide.new_zeros(n_rows) if magnitudes else None
        self.behind: dict[int, Gradients] = {}

    def effects(self) -> Effects:
        tracer = self.tracer
        gradients = walk(tracer.held, self.targets, self._at_mlp, self._hear)
        tokens = gradients.new_zeros(len(gradients), tracer.held.n_positions)
        length = gradients.shape[1]
        tokens[:, :length] = (gradients * tracer.held.words[:length]).sum(-1)
        tracer.biases.at_ends(self.biases, self.targets, gradients)
        errors = self.errors if any(one is not None for one in tracer._errors) else self.errors[:, :0]
        return Effects(tokens, self.units, errors, self.biases, self.everything, self.magnitude)

    def _hear(self, layer: int, place: str, gradients: Tensor) -> None:
        self.tracer.biases.hear(self.biases, layer, place, gradients)

    def _at_mlp(self, layer: int, gradients: Gradients) -> Gradients | None:
        tracer, n_rows, length = self.tracer, len(gradients), gradients.shape[1]
        for position, columns, written in tracer._written[layer]:
            if position < length:
                self.units[:n_rows, columns] += gradients[:, position] @ written
        tracer.biases.at_mlp(self.biases, layer, gradients)
        self.everything[:n_rows] += torch.einsum("rpd,pd->r", gradients, tracer.units.total(layer)[:length])
        if (errors := tracer._errors[layer]) is not None:
            self.errors[:n_rows, layer, :length] = (gradients * errors[:length]).sum(-1)
        if self.magnitude is not None:
            sizes = tracer.units.activations(layer)[:length].abs().flatten()
            self.magnitude[:n_rows] += tracer.units.carried(layer, gradients, self.behind).flatten(1).abs_() @ sizes
            if tracer.units.looks_behind:
                self.behind[layer] = gradients.clone()
        return tracer.units.skipped(layer, gradients)


def default_batch(held: Held) -> int:
    """How many targets' gradients fit into a processor's cache, at least 8."""
    each = held.n_positions * held.anatomy.d_model * held.words.element_size()
    return max(8, _CACHED // each)

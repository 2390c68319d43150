"""Direct effects between heads and whole MLPs: rows of a graph whose units leave nothing but the residual stream.

    A[t, s]  =  spread_t[position of s]  (vector_t . out_s)      for s in front of t

`Components` says what a row's vector and spread are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.tracing.biases import BiasPlaces
from attribution.tracing.components import Components, split_places
from attribution.tracing.effects import Advance, Effects
from attribution.tracing.held import Held
from attribution.tracing.units import Places, Targets
from interp import numbers

_IN_ATTENTION = ("o", "attention_post_norm")
_BATCH = 64


@dataclass(frozen=True)
class _Rows:
    """Targets: their `depths` (twice the layer for its heads, one more for an MLP behind them), vectors and spread."""

    depths: Int[Tensor, " row"]
    vectors: Float[Tensor, "row d_model"]
    spread: Float[Tensor, "row pos"]


class ComponentTracer:
    """Direct effects on heads, MLPs and logits.

    Cost of a row: a product with every output matrix of attention, and with what every MLP adds. Memory: `batch_size`
    rows of [pos, head], one layer's.
    """

    def __init__(self, held: Held, units: Components, chosen: Places, batch_size: int | None = None) -> None:
        self.held, self.units, self.chosen = held, units, chosen
        self.biases = BiasPlaces(held, units)
        self.batch_size = batch_size or _BATCH
        numbers.whole("batch_size", self.batch_size, numbers.COMMON["batch_size"])

    def on_logits(self, targets: Targets, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on logits."""
        found = Effects.none(self, len(targets), 0, magnitudes)
        spread = found.tokens.new_zeros(found.tokens.shape)
        spread[:, -1] = 1.0
        for place, values in targets.own.items():
            if (index := self.biases.index(-1, place)) is not None:
                found.biases[:, index, -1] = values
        depths = torch.full_like(targets.layers, 2 * self.held.n_layers).to(spread.device)
        return self._filled(found, _Rows(depths, targets.vectors, spread), advance)

    def on_units(self, places: Places, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on units, in the order given."""
        found = Effects.none(self, len(places), 0, magnitudes)
        wide = self.held.words
        depths = torch.zeros(len(places), dtype=torch.long, device=wide.device)
        vectors, spread = wide.new_zeros(len(places), wide.shape[1]), torch.zeros_like(found.tokens)
        for layer, mlps, here in split_places(places):
            at = here.to(wide.device)
            reads = self.units.reads(layer, places.positions[here].to(at.device), places.units[here].to(at.device))
            depths[at] = 2 * layer + (mlps and not self.held.block(layer).parallel)
            vectors[at], spread[at] = reads.vectors, reads.spread
            for place, values in reads.own.items():
                if (index := self.biases.index(layer, place)) is not None:
                    found.biases[at, index] = values
        return self._filled(found, _Rows(depths, vectors, spread), advance)

    @torch.no_grad()
    def _filled(self, found: Effects, rows: _Rows, advance: Advance) -> Effects:
        for at in torch.arange(len(rows.depths), device=rows.depths.device).split(self.batch_size):
            part = _Rows(rows.depths[at], rows.vectors[at], rows.spread[at])
            found.tokens[at] = part.spread * (part.vectors @ self.held.words.T)
            if (index := self.biases.index(-1, "positions")) is not None:
                found.biases[at, index] += part.spread * (part.vectors @ self.held.places.T)
            for layer in range(self.held.n_layers):
                self._of_layer(found, at, part, layer)
            advance(len(at))
        return found

    def _of_layer(self, found: Effects, at: Tensor, rows: _Rows, layer: int) -> None:
        """The effects of one layer's units and constants."""
        seen = {kind: (rows.depths > 2 * layer + behind)[:, None] for kind, behind in (("head", 0), ("mlp", 1))}
        given = self.units.given(layer, rows.vectors)
        given[..., :1] *= seen["mlp"][..., None]
        given[..., 1:] *= seen["head"][..., None]
        given *= rows.spread[..., None]
        here = (self.chosen.layers == layer).nonzero()[:, 0]
        columns, places = here.to(at.device), self.chosen.select(here)
        found.units[at[:, None], columns] = given[:, places.positions, places.units + 1]
        found.everything[at] += given.sum((1, 2))
        if found.magnitude is not None:
            found.magnitude[at] += given.abs().sum((1, 2))
        for place, values in self.biases.constants[layer].items():
            index = self.biases.index(layer, place)
            felt = seen["head" if place in _IN_ATTENTION else "mlp"]
            found.biases[at, index] += rows.spread * felt * (rows.vectors @ values.T)

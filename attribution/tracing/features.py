"""Features of transcoders as units: what a dictionary's decoder writes, with errors for what it misses.

    a_f = W_enc x + b_enc where f is active,    MLP = sum of a_f W_dec + b_dec (+ W_skip x) + error

x is the MLP's normed input. Features of a cross-layer transcoder write to the MLPs of later layers too, each with a
decoder of its own: the sum is then over the features of that layer and of those in front of it. At position 0, whatever
its token, nothing fires: the MLP's output there is a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attribution.tracing.held import Gradients, Held, Stream, norm_pull
from attribution.tracing.units import Behind, Carried, Changes, Later, MLPUnits, Places, Targets
from interp.dictionaries import Dictionary
from interp.dictionaries.sites import read_by
from interp.errors import InputError, short
from interp.parts import working


class Features(MLPUnits):
    """The active features of transcoders, one for each layer; a layer that none writes to is all error."""

    kind = "feature"

    def __init__(self, held: Held, dictionaries: Sequence[Dictionary]) -> None:
        self.held = held
        self.by_layer = {one.layer: one.to(held.words) for one in dictionaries}
        self._inputs: dict[int, Stream] = {}
        self._active: dict[int, tuple[Tensor, Tensor]] = {}  # numbers of features, activations
        for layer, own in self.by_layer.items():
            self._inputs[layer] = self._input(layer)
            found = own.encode(self._inputs[layer])
            found[0] = 0.0
            numbers = found.any(0).nonzero()[:, 0]
            self._active[layer] = numbers, found[:, numbers]

    def _input(self, layer: int) -> Stream:
        return read_by(self.by_layer[layer], self.held.block(layer).mlp_norm, self.held.layers[layer].mlp_input)

    def activations(self, layer: int) -> Tensor:
        return self._active[layer][1] if layer in self._active else self.held.words.new_zeros(self.held.n_positions, 0)

    def numbers(self, layer: int) -> Tensor:
        if layer in self._active:
            return self._active[layer][0]
        return torch.zeros(0, dtype=torch.long, device=self.held.words.device)

    def width(self, layer: int) -> int:
        return self.by_layer[layer].n_features if layer in self.by_layer else 0

    def reaches(self, layer: int) -> range:
        own = self.by_layer.get(layer)
        return range(layer, layer + 1 + (0 if own is None else own.n_later))

    @property
    def looks_behind(self) -> bool:
        return any(one.n_later for one in self.by_layer.values())

    def writes(self, layer: int, places: Places, into: int | None = None) -> Tensor:
        into = layer if into is None else into
        device = self.held.words.device
        at, units = places.positions.to(device), places.units.to(device)
        numbers, activations = self._active[layer]
        active = activations[at, torch.searchsorted(numbers, units)]
        own = self.by_layer[layer]
        return self._added(own, into, active[:, None] * _decoder(own, into)[units], at)

    def reads(self, layer: int, places: Places) -> Targets:
        device = self.held.words.device
        at, units = places.positions.to(device), places.units.to(device)
        own, norm = self.by_layer[layer], self.held.block(layer).mlp_norm
        vectors, constants = own.W_enc[units], {"encoder": own.b_enc[units]}
        if norm.bias is not None and own.reads == "normed":
            constants["mlp_norm"] = vectors @ working(norm.bias)
        vectors = self._in_front(layer, vectors, self.held.layers[layer].mlp_divisor[at])
        return Targets(places.layers, places.positions, vectors, constants)

    def carried(self, layer: int, gradients: Gradients, behind: Behind) -> Carried:
        if layer not in self._active:
            return gradients.new_zeros(*gradients.shape[:2], 0)
        own, numbers = self.by_layer[layer], self.numbers(layer)
        found = self._at_output(own, layer, gradients) @ own.W_dec[numbers].T
        for into in self.reaches(layer)[1:]:
            if into in behind:  # a layer in front of every target, or else none of these rows sees it
                there = self._at_output(own, into, behind[into])
                found[: len(there)] += there @ _decoder(own, into)[numbers].T
        return found

    def pulled(self, layer: int, carried: Carried) -> Gradients:
        if layer not in self._active:
            return carried.new_zeros(*carried.shape[:2], self.held.words.shape[1])
        length = carried.shape[1]
        active = (self.activations(layer)[:length] != 0).to(carried)
        vectors = (carried * active) @ self.by_layer[layer].W_enc[self.numbers(layer)]
        return self._in_front(layer, vectors, self.held.layers[layer].mlp_divisor[:length])

    def skipped(self, layer: int, gradients: Gradients) -> Gradients | None:
        own = self.by_layer.get(layer)
        if own is None or own.W_skip is None:
            return None
        vectors = self._at_output(own, layer, gradients) @ own.W_skip
        return self._in_front(layer, vectors, self.held.layers[layer].mlp_divisor[: gradients.shape[1]])

    def total(self, layer: int) -> Stream:
        found = torch.zeros_like(self.held.words)
        for source, own in self.by_layer.items():
            if layer in self.reaches(source):
                numbers, activations = self._active[source]
                found = found + self._added(own, layer, activations @ _decoder(own, layer)[numbers], None)
        return found

    def errors(self, layer: int) -> Stream:
        """Zero at position 0."""
        rest = self.held.layers[layer].added - self.total(layer) - self._skip_total(layer)
        for place, values in self.constants(layer).items():
            if place != "position 0":
                rest = rest - values
        rest[0] = 0.0
        return rest

    def constants(self, layer: int) -> dict[str, Stream]:
        held, block, own = self.held.layers[layer], self.held.block(layer), self.by_layer.get(layer)
        found: dict[str, Stream] = {}
        post = None if block.mlp_post_norm is None else block.mlp_post_norm.bias
        if own is not None:
            found["decoder"] = self._added(own, layer, own.b_dec.expand_as(held.added), None).clone()
            found["decoder"][0] = 0.0
            if own.writes == "mlp_out" and post is not None:
                found["mlp_post_norm"] = working(post).expand_as(held.added).clone()
                found["mlp_post_norm"][0] = 0.0
            if own.W_skip is not None and own.reads == "normed" and block.mlp_norm.bias is not None:
                moved = own.W_skip @ working(block.mlp_norm.bias)
                found["skip"] = self._added(own, layer, moved.expand_as(held.added), None)
        first = torch.zeros_like(held.added)
        first[0] = held.added[0] - self._skip_total(layer)[0]
        found["position 0"] = first if "skip" not in found else first - _only_first(found["skip"])
        return found

    def run(self, layer: int, x: Tensor, changes: Changes, later: Later) -> tuple[Tensor, Tensor]:
        block, own = self.held.block(layer), self.by_layer.get(layer)
        written = block.mlp(block.mlp_norm(x))
        active = x.new_zeros(*x.shape[:2], 0)
        if own is not None:
            before = own.encode(read_by(own, block.mlp_norm, working(x)))
            active = changes.set(before)
            for into in self.reaches(layer) if len(changes) else ():
                moved = ((active - before) @ _decoder(own, into)).to(x.dtype)
                later[into, own.writes] = later[into, own.writes] + moved if (into, own.writes) in later else moved
        if (change := later.pop((layer, "mlp_out"), None)) is not None:
            written = written + change
        added = written if block.mlp_post_norm is None else block.mlp_post_norm(written)
        change = later.pop((layer, "added"), None)
        return added if change is None else added + change, active

    def own_places(self, layer: int) -> list[str]:
        own, norm = self.by_layer.get(layer), self.held.block(layer).mlp_norm
        if own is None:
            return []
        return ["encoder", *(["mlp_norm"] if norm.bias is not None and own.reads == "normed" else [])]

    def _skip_total(self, layer: int) -> Stream:
        """What comes through the skip, from the residual stream alone: without the constant of the norm's bias."""
        own, norm = self.by_layer.get(layer), self.held.block(layer).mlp_norm
        if own is None or own.W_skip is None:
            return torch.zeros_like(self.held.words)
        x = self._inputs[layer]
        if own.reads == "normed" and norm.bias is not None:
            x = x - working(norm.bias)
        return self._added(own, layer, x @ own.W_skip.T, None)

    def _added(self, own: Dictionary, layer: int, written: Tensor, at: Tensor | None) -> Tensor:
        """What a dictionary's output adds to the residual stream there, at positions `at` (None: all of them)."""
        divisor = self.held.layers[layer].mlp_post_divisor
        if own.writes == "added" or divisor is None:
            return written
        return self.held.into_stream(layer, written, divisor if at is None else divisor[at])

    def _at_output(self, own: Dictionary, layer: int, gradients: Gradients) -> Gradients:
        return gradients if own.writes == "added" else self.held.behind_mlp(layer, gradients)

    def _in_front(self, layer: int, vectors: Tensor, divisor: Tensor) -> Tensor:
        """Gradients in front of the MLP's norm, from those at what the dictionary reads."""
        norm, reads = self.held.block(layer).mlp_norm, self.by_layer[layer].reads
        if reads == "stream":
            return vectors
        if reads == "normalized":
            return norm.centred(vectors) / divisor
        return norm_pull(norm, divisor, vectors)


def _decoder(own: Dictionary, into: int) -> Tensor:
    """What features write to the MLP's output at a layer."""
    later = into - own.layer
    if not later or own.W_later is None:
        return own.W_dec
    return own.W_later[later - 1]


def _only_first(values: Stream) -> Stream:
    first = torch.zeros_like(values)
    first[0] = values[0]
    return first


def check_dictionaries(held: Held, given: Any) -> list[Dictionary]:
    """Transcoders, at most one for each layer. Raises `InputError` for others, and for those of another model."""
    entries = [given] if isinstance(given, Dictionary) else list(given) if isinstance(given, list | tuple) else []
    if not entries or not all(isinstance(one, Dictionary) for one in entries):
        raise InputError(f"units must be 'neurons' or attribution.Dictionary objects, one a layer; got {short(given)}")
    for one in entries:
        one.check(held.anatomy)
        if one.site != "transcoder":
            raise InputError(
                f"units: {one!r} is no transcoder; features stand for what an MLP computes: site='transcoder' (for "
                "edges of others see attribution.feature_edges)"
            )
        if one.coder.normalization != "none":
            raise InputError(
                f"units: {one!r} normalises its input ({one.coder.normalization}), in which its features are not linear"
            )
    layers = [one.layer for one in entries]
    if len(set(layers)) < len(layers):
        raise InputError(f"units name two dictionaries for one layer: layers {layers}; give one for each")
    return entries

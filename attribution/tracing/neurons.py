"""Neurons as units: inputs of the MLPs' output matrices, linear in what they read under the rules of `relp-ah`.

    dense:  a = s (W x + b),           s = act(z) / z held
    gated:  a = u g(z),  half of it    1/2 u s (W_gate x + b_gate)  +  1/2 g(z) (W_up x + b_up)

In a mixture of experts a is the expert's own times its routing weight, which is held.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attribution.rules.rules import origin_slope
from attribution.tracing.held import Gradients, Held, Stream, norm_pull
from attribution.tracing.units import Behind, Carried, Changes, Later, MLPUnits, Places, Targets
from interp.mlps import Gated, Mixture, Route
from interp.parts import Affine, working


class Neurons(MLPUnits):
    """All neurons of all MLPs."""

    kind = "neuron"

    def __init__(self, held: Held) -> None:
        self.held = held

    def activations(self, layer: int) -> Tensor:
        return self.held.layers[layer].hidden

    def numbers(self, layer: int) -> Tensor:
        hidden = self.held.layers[layer].hidden
        return torch.arange(hidden.shape[1], device=hidden.device)

    def width(self, layer: int) -> int:
        return self.held.block(layer).mlp.width

    def rerouted(self, layer: int, activations: Tensor) -> list[int]:
        mlp = self.held.block(layer).mlp
        if not isinstance(mlp, Mixture):
            return []
        now, before = (
            (of != 0).unflatten(-1, (mlp.n_experts, -1)).any(-1) for of in (activations, self.activations(layer))
        )  # an expert that is not chosen gives nothing
        found: list[int] = (now != before).any(-1).nonzero()[:, 0].tolist()
        return found

    def writes(self, layer: int, places: Places, into: int | None = None) -> Tensor:
        held, mlp = self.held.layers[layer], self.held.block(layer).mlp
        at = places.positions.to(held.hidden.device)
        activations = held.hidden[at, places.units.to(at.device)]
        divisor = None if held.mlp_post_divisor is None else held.mlp_post_divisor[at]
        written = activations[:, None] * working(mlp.directions(places.units))
        return self.held.into_stream(layer, written, divisor)

    def reads(self, layer: int, places: Places) -> Targets:
        held, norm = self.held.layers[layer], self.held.block(layer).mlp_norm
        device = held.hidden.device
        at, units = places.positions.to(device), places.units.to(device)
        vectors = held.mlp_input.new_zeros(len(places), held.mlp_input.shape[1])
        own: dict[str, Tensor] = {}
        for name, affine, start, slopes in self._factors(layer):
            inside = (units >= start) & (units < start + slopes.shape[1])
            which, local = inside.nonzero()[:, 0], units[inside] - start
            slope = slopes[at[which], local]
            vectors[which] += slope[:, None] * working(affine.weight[local])
            if affine.bias is not None:
                shares = own.setdefault(name, vectors.new_zeros(len(places)))
                shares[which] += slope * working(affine.bias[local])
        if norm.bias is not None:
            own["mlp_norm"] = vectors @ working(norm.bias)
        return Targets(places.layers, places.positions, norm_pull(norm, held.mlp_divisor[at], vectors), own)

    def carried(self, layer: int, gradients: Gradients, behind: Behind) -> Carried:
        return self.held.block(layer).mlp.carried(self.held.behind_mlp(layer, gradients))

    def pulled(self, layer: int, carried: Carried) -> Gradients:
        return self.pulled_with_biases(layer, carried)[0]

    def pulled_with_biases(self, layer: int, carried: Carried) -> tuple[Gradients, dict[str, Tensor]]:
        """`pulled`, and what biases on the way give all neurons together, by place: `[row, pos]`."""
        held, norm, length = self.held.layers[layer], self.held.block(layer).mlp_norm, carried.shape[1]
        found = carried.new_zeros(*carried.shape[:2], held.mlp_input.shape[1])
        own: dict[str, Tensor] = {}
        for name, affine, start, slopes in self._factors(layer):
            felt = carried[..., start : start + slopes.shape[1]] * slopes[:length]
            found += felt @ working(affine.weight)
            if affine.bias is not None:
                own[name] = own.get(name, 0.0) + felt @ working(affine.bias)
        if norm.bias is not None:
            own["mlp_norm"] = found @ working(norm.bias)
        return norm_pull(norm, held.mlp_divisor[:length], found), own

    def total(self, layer: int) -> Stream:
        return self.held.layers[layer].added - sum(self.constants(layer).values())

    def constants(self, layer: int) -> dict[str, Stream]:
        held, block = self.held.layers[layer], self.held.block(layer)
        found: dict[str, Stream] = {}
        bias = getattr(getattr(block.mlp, "down", None), "bias", None)
        if bias is not None:
            everywhere = working(bias).expand_as(held.added)
            found["down"] = self.held.into_stream(layer, everywhere, held.mlp_post_divisor)
        if block.mlp_post_norm is not None and block.mlp_post_norm.bias is not None:
            found["mlp_post_norm"] = working(block.mlp_post_norm.bias).expand_as(held.added)
        return found

    def run(self, layer: int, x: Tensor, changes: Changes, later: Later) -> tuple[Tensor, Tensor]:
        block = self.held.block(layer)
        hidden, written = block.mlp.opened(block.mlp_norm(x))
        if len(changes):
            hidden = changes.set(hidden)
            written = block.mlp.write(hidden)
        return written if block.mlp_post_norm is None else block.mlp_post_norm(written), hidden

    def own_places(self, layer: int) -> list[str]:
        block = self.held.block(layer)
        named = [("mlp_norm", block.mlp_norm)]
        named += [(name, getattr(block.mlp, name)) for name in ("gate", "up") if hasattr(block.mlp, name)]
        return [name for name, part in named if part.bias is not None]

    def _factors(self, layer: int) -> Iterator[tuple[str, Affine, int, Tensor]]:
        """Of each matrix that neurons read through: its name, itself, its first neuron, slopes [pos, neuron]."""
        held, block = self.held.layers[layer], self.held.block(layer)
        normed = block.mlp_norm(held.mlp_input)
        for route in block.mlp.routes(normed.to(self.held.anatomy.dtype)):
            for name, affine, slopes in _slopes(route, normed):
                yield name, affine, route.start, slopes


def _slopes(route: Route, normed: Stream) -> Iterator[tuple[str, Affine, Tensor]]:
    mlp = route.mlp
    weight = torch.ones_like(normed[:, :1]) if route.weights is None else working(route.weights)
    up = _applied(mlp.up, normed)
    if not isinstance(mlp, Gated):
        yield "up", mlp.up, weight * origin_slope(mlp.act, up, mlp.act(up))
        return
    gate = _applied(mlp.gate, normed)
    opened = mlp.act(gate)
    yield "gate", mlp.gate, 0.5 * weight * up * origin_slope(mlp.act, gate, opened)
    yield "up", mlp.up, 0.5 * weight * opened


def _applied(affine: Affine, x: Tensor) -> Tensor:
    """An affine map in the working precision."""
    y = x @ working(affine.weight).T
    return y if affine.bias is None else y + working(affine.bias)

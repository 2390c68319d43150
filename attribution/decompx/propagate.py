"""Decomposed vectors carried through a network: D[i, j] is what source j contributes at position i.

Every step is linear in D once its constants are held; biases are added by shares (`attribution.decompx.shares`).
D is held once and changed in place: attention mixes positions and looks at a few sources at a time, all else mixes
sources and looks at a few positions at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attribution.decompx.shares import BIASES, add_bias, weights
from attribution.decompx.steps import (
    ACTIVATIONS,
    GATES,
    HeldAttention,
    HeldMLP,
    HeldNorm,
    HeldRun,
    Linearised,
    Sublayer,
)
from interp.errors import InputError, choose
from interp.keeping import kept

_CHUNK = 1 << 21  # numbers in a chunk: what fits the caches


class OptionKeywords(TypedDict, total=False):
    """The keywords of `Options`, as public functions take them."""

    bias: str
    activation: str
    gate: str
    first_value_bias: str


@kept
@dataclass(frozen=True)
class Options:
    """How what is not linear, and what belongs to no token, is treated; see `decompose`."""

    bias: str = "absdot"
    activation: str = "zero-origin"
    gate: str = "held"
    first_value_bias: str = "shared"

    def __post_init__(self) -> None:
        choose("bias", self.bias, BIASES)
        choose("activation", self.activation, ACTIVATIONS)
        choose("gate", self.gate, GATES)
        choose("first_value_bias", self.first_value_bias, ("shared", "kept"))
        if self.first_value_bias == "kept" and self.bias == "separate":
            raise InputError("first_value_bias='kept' leaves a bias in the tokens; with bias='separate' give 'shared'")

    @property
    def columns(self) -> int:
        """Sources in front of the tokens: one for the biases, if they are kept apart."""
        return int(self.bias == "separate")


class Propagation:
    """The decomposed vectors of some sources (all of them, unless biases are kept apart)."""

    def __init__(self, run: HeldRun, options: Options, sources: range) -> None:
        self.run, self.options, self.sources = run, options, sources
        positions, width = run.start.shape
        self.vectors = run.start.new_zeros(positions, len(sources), width)
        for index, source in enumerate(sources):
            if (token := source - options.columns) >= 0:
                self.vectors[token, index] = run.start[token]
        # a bias that is kept apart belongs to one source alone, whichever group that is in
        self.takes_bias = options.bias != "separate" or 0 in sources
        self.needed = range(positions)  # the positions that what follows still reads

    def through(self, layer: int, needed: range | None = None) -> None:
        """Carry the vectors through one layer; behind it only the positions `needed` are right."""
        self.needed = range(len(self.run.start)) if needed is None else needed
        for sublayer in self.run.layers[layer]:
            if isinstance(sublayer.inner, HeldAttention):
                self._attend(sublayer, sublayer.inner, first=layer == 0)
            else:
                self._feed_forward(sublayer, sublayer.inner)

    def norms(self) -> Float[Tensor, "position source"]:
        """Lengths of the vectors."""
        lengths: Tensor = self.vectors.norm(dim=-1)
        return lengths

    def explained(self) -> Float[Tensor, "source cls"]:
        """What each source contributes to what is explained."""
        head = self.run.head
        x = self.vectors[head.position : head.position + 1]
        x = self._normed(head.norm, x, 0)
        for n, (weight, bias) in enumerate(head.maps):
            x = self._add(F.linear(x, weight), bias)
            if n == 0 and head.act is not None and head.pre is not None:
                x = self._activated(Linearised.of(head.act, head.pre[None], self.options.activation), x)
        return x[0]

    # ---- sublayers

    def _attend(self, sublayer: Sublayer, attention: HeldAttention, first: bool) -> None:
        kept = first and self.options.first_value_bias == "kept"
        shares = self._shares_of_norm(sublayer.before)
        width = (
            len(self.vectors)
            * attention.pattern.shape[0]
            * attention.output.weight.shape[1]
            // len(attention.kv_of_head)
        )
        step = max(1, _CHUNK // width)
        start, stop = self.needed.start, self.needed.stop
        for a in range(0, len(self.sources), step):
            b = min(len(self.sources), a + step)
            low = max(0, self.sources[a] - self.options.columns) if self.run.causal else 0  # seen from here on
            rows = max(low, start)
            if rows >= stop:
                continue
            x = self.vectors[low:, a:b]
            if sublayer.before is not None:
                x = sublayer.before.without_bias(x, low)
                x = self._add_norm_bias(x, sublayer.before, shares, low, a, b)
            mixed = _mix(attention, attention.pattern[:, rows:stop, low:], F.linear(x, attention.value.weight))
            if kept and (bias := attention.value_bias()) is not None:
                of_source = attention.pattern[:, rows:stop, self.sources[a] : self.sources[b - 1] + 1]
                mixed = mixed + (of_source.permute(1, 2, 0)[..., None] * bias).flatten(2)
            out = F.linear(mixed, attention.output.weight)
            if sublayer.after is not None:
                out = sublayer.after.without_bias(out, rows)
            self.vectors[rows:stop, a:b] += out
        self._close_attention(sublayer, attention.bias(with_value=not kept))

    def _shares_of_norm(self, norm: HeldNorm | None) -> Tensor | None:
        """Shares [position, source] of the bias of a norm in front of attention, which sees few sources at a time."""
        if norm is None or norm.norm.bias is None or self.options.bias == "separate":
            return None
        shares = self.vectors.new_zeros(self.vectors.shape[:2])
        for low, high, reach in self._positions(self.vectors.shape[2], range(len(self.vectors))):
            seen = norm.without_bias(self.vectors[low:high, :reach], low)
            shares[low:high, :reach] = weights(seen, norm.norm.bias, self.options.bias)
        return shares

    def _add_norm_bias(self, x: Tensor, norm: HeldNorm, shares: Tensor | None, low: int, a: int, b: int) -> Tensor:
        bias = norm.norm.bias
        if bias is None:
            return x
        if shares is not None:
            return torch.addcmul(x, shares[low:, a:b, None], bias)
        if a == 0 and self.takes_bias:
            x[:, 0] += bias
        return x

    def _close_attention(self, sublayer: Sublayer, bias: Tensor | None) -> None:
        for low, high, reach in self._positions(self.vectors.shape[2], self.needed):
            x = self.vectors[low:high, :reach]
            own = bias
            if sublayer.after is not None:
                own = self._bias_behind(sublayer.after, bias, low, high)
            self._add(x, own)
            if sublayer.closing is not None:
                self.vectors[low:high, :reach] = self._normed(sublayer.closing, x, low)

    @staticmethod
    def _bias_behind(norm: HeldNorm, bias: Tensor | None, low: int, high: int) -> Tensor | None:
        """What a bias in front of a norm, and the norm's own, add behind it, by position."""
        if bias is None:
            return norm.norm.bias
        behind = norm.without_bias(bias.expand(high - low, 1, -1), low)[:, 0]
        return behind if norm.norm.bias is None else behind + norm.norm.bias

    def _feed_forward(self, sublayer: Sublayer, mlp: HeldMLP) -> None:
        for low, high, reach in self._positions(mlp.up_out.shape[1], self.needed):
            x = self.vectors[low:high, :reach]
            hidden = self._hidden(mlp, self._normed(sublayer.before, x, low), low, high)
            out = self._add(F.linear(hidden, mlp.down.weight), mlp.down.bias)
            x += self._normed(sublayer.after, out, low)
            if sublayer.closing is not None:
                self.vectors[low:high, :reach] = self._normed(sublayer.closing, x, low)

    def _hidden(self, mlp: HeldMLP, x: Tensor, low: int, high: int) -> Float[Tensor, "position source hidden"]:
        up = self._add(F.linear(x, mlp.up.weight), mlp.up.bias)
        how = self.options.activation
        if mlp.gate is None or mlp.gate_out is None:
            return self._activated(Linearised.of(mlp.act, mlp.up_out[low:high], how), up)
        before = mlp.gate_out[low:high]
        through_up = up.mul_(mlp.act(before)[:, None])
        if self.options.gate == "held":
            return through_up
        gate = self._add(F.linear(x, mlp.gate.weight), mlp.gate.bias)
        gate = self._activated(Linearised.of(mlp.act, before, how), gate)
        return through_up.add_(gate.mul_(mlp.up_out[low:high, None])).mul_(0.5)

    # ---- what they share

    def _positions(self, width: int, among: range) -> Iterator[tuple[int, int, int]]:
        """Positions in chunks: first, behind the last, and how many sources they can have seen."""
        step = max(1, _CHUNK // (len(self.sources) * width))
        for low in range(among.start, among.stop, step):
            high = min(among.stop, low + step)
            reach = len(self.sources)
            if self.run.causal:
                reach = min(reach, high + self.options.columns - self.sources.start)
            if reach > 0:
                yield low, high, reach

    def _add(self, vectors: Tensor, bias: Tensor | None) -> Tensor:
        return add_bias(vectors, bias, self.options.bias) if self.takes_bias else vectors

    def _normed(self, norm: HeldNorm | None, vectors: Tensor, first: int) -> Tensor:
        return vectors if norm is None else self._add(norm.without_bias(vectors, first), norm.norm.bias)

    def _activated(self, line: Linearised, vectors: Tensor) -> Tensor:
        return self._add(vectors.mul_(line.slope[:, None]), line.intercept)


def _mix(
    attention: HeldAttention, pattern: Float[Tensor, "head query key"], values: Float[Tensor, "key source kv_d_head"]
) -> Float[Tensor, "query source head_d_head"]:
    """Sum over keys of pattern times values, all heads side by side."""
    shared, each = attention.groups
    queries, sources = pattern.shape[1], values.shape[1]
    by_head = values.unflatten(2, (shared, -1)).permute(2, 0, 1, 3).flatten(2)  # kv, key, source * d_head
    mixed = torch.bmm(pattern.reshape(shared, each * queries, -1), by_head)
    mixed = mixed.reshape(shared, each, queries, sources, -1)
    return mixed.permute(2, 3, 0, 1, 4).flatten(2)

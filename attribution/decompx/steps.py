"""What a network did to one input, with everything that is not linear held constant: the steps that DecompX repeats.

`position` runs over the places of the input. Constants are those of the model's own run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.rules.rules import origin_slope
from interp.errors import choose
from interp.parts import Affine, Norm

ACTIVATIONS = ("zero-origin", "tangent", "relu")
GATES = ("held", "halves")


@dataclass(frozen=True)
class HeldNorm:
    """A norm at the divisor it had."""

    norm: Norm
    divisor: Float[Tensor, "position 1"]

    @classmethod
    def of(cls, norm: Norm, x: Float[Tensor, "position d"]) -> HeldNorm:
        """The norm as it treats `x`."""
        return cls(norm, norm.divisor(x))

    def without_bias(self, vectors: Float[Tensor, "position source d"], first: int = 0) -> Tensor:
        """What it makes of decomposed vectors at the positions from `first` on, its bias left out."""
        centred = self.norm.centred(vectors)
        gain = self.norm.gain
        divisor = self.divisor[first : first + len(vectors), None]
        return centred / divisor if gain is None else centred * (gain / divisor)


@dataclass(frozen=True)
class HeldAttention:
    """Attention at the pattern it had."""

    pattern: Float[Tensor, "head query key"]
    value: Affine
    output: Affine
    kv_of_head: Int[Tensor, " head"]

    @property
    def groups(self) -> tuple[int, int]:
        """Number of key-value heads, and of query heads for each."""
        heads = len(self.kv_of_head)
        shared = int(self.kv_of_head.max()) + 1
        return shared, heads // shared

    def value_bias(self) -> Float[Tensor, "head d_head"] | None:
        """The bias of the values of every query head."""
        bias = self.value.bias
        return None if bias is None else bias.unflatten(0, (self.groups[0], -1))[self.kv_of_head]

    def bias(self, with_value: bool = True) -> Float[Tensor, " d"] | None:
        """What the biases of values and output add to every position (a pattern's rows sum to one)."""
        own, of_value = self.output.bias, self.value_bias() if with_value else None
        if of_value is None:
            return own
        through = self.output.weight @ of_value.flatten()
        return through if own is None else through + own


@dataclass(frozen=True)
class HeldMLP:
    """An MLP at the pre-activations it had; gated if `gate` is there."""

    up: Affine
    down: Affine
    act: Callable[[Tensor], Tensor]
    up_out: Float[Tensor, "position hidden"]
    gate: Affine | None = None
    gate_out: Float[Tensor, "position hidden"] | None = None


@dataclass(frozen=True)
class Sublayer:
    """x + after(inner(before(x))), then the norm of the sum where there is one behind it."""

    inner: HeldAttention | HeldMLP
    before: HeldNorm | None = None
    after: HeldNorm | None = None
    closing: HeldNorm | None = None

    @property
    def inner_width(self) -> int:
        """How wide the vectors are that attention or MLP reads."""
        part = self.inner.value if isinstance(self.inner, HeldAttention) else self.inner.up
        return part.weight.shape[1]

    def made_of(self, x: Float[Tensor, "position d"]) -> Float[Tensor, "position d"]:
        """What an encoder's attention (one value head a head) or dense MLP makes of hidden states."""
        if isinstance(self.inner, HeldMLP):
            return self.inner.down(self.inner.act(self.inner.up(x)))
        values = self.inner.value(x).unflatten(-1, (len(self.inner.pattern), -1)).transpose(0, 1)
        return self.inner.output((self.inner.pattern @ values).transpose(0, 1).flatten(1))


@dataclass(frozen=True)
class HeldHead:
    """From the vectors at one position to what is explained: a norm, affine maps, an activation between them."""

    position: int
    maps: tuple[tuple[Tensor, Tensor | None], ...]  # weight [out, in], bias
    norm: HeldNorm | None = None
    act: Callable[[Tensor], Tensor] | None = None
    pre: Float[Tensor, " hidden"] | None = None  # what the activation saw


@dataclass(frozen=True)
class HeldRun:
    """A model's run over one input."""

    start: Float[Tensor, "position d"]
    layers: tuple[tuple[Sublayer, ...], ...]
    head: HeldHead
    explained: Float[Tensor, " cls"]  # what the model itself said
    causal: bool


@dataclass(frozen=True)
class Linearised:
    """An activation function at what it saw, as act(u) = slope * u + intercept."""

    slope: Tensor
    intercept: Tensor | None

    @classmethod
    def of(cls, act: Callable[[Tensor], Tensor], u: Tensor, how: str) -> Linearised:
        """By the slope from the origin (exact), the tangent (exact with its intercept) or ReLU's mask (not exact)."""
        choose("activation", how, ACTIVATIONS)
        if how == "relu":
            return cls((u > 0).to(u.dtype), None)
        if how == "zero-origin":
            return cls(origin_slope(act, u, act(u)).to(u.dtype), None)
        with torch.enable_grad():
            point = u.detach().requires_grad_()
            y = act(point)
            (slope,) = torch.autograd.grad(y.sum(), point)
        return cls(slope, y.detach() - slope * u)

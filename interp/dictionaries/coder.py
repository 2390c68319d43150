"""`Coder`: the arithmetic of sparse autoencoders and transcoders, whatever format they came in.

    f = act(W_enc x + b_enc),    act(z) = max(z, 0) where z > threshold, or where z is among the k largest; else 0
    x_hat = f W_dec + b_dec (+ W_skip x)

What formats do besides (subtract b_dec from x, scale x by a constant, gate by a second bias) is folded into these
weights. What cannot be folded, a norm of its own for each x, is done in front of and behind them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose

Normalization = Literal["none", "layer_norm", "constant_norm_rescale"]

Values = Float[Tensor, "*batch d_model"]
Features = Float[Tensor, "*batch feature"]

_EPSILON = 1e-5  # what SAELens adds to the standard deviation in front of the encoder, and not behind the decoder


@dataclass(frozen=True, eq=False)
class Coder:
    """Weights in one form, checked, and what is computed with them, in the precision and on the device of the input."""

    W_enc: Float[Tensor, "feature d_model"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_model"]
    b_dec: Float[Tensor, " d_model"]
    W_skip: Float[Tensor, "d_model d_model"] | None = None
    threshold: Float[Tensor, " feature"] | None = None
    k: int | None = None
    normalization: Normalization = "none"

    def __post_init__(self) -> None:
        choose("normalization", self.normalization, get_args(Normalization))
        if self.W_skip is not None and self.W_skip.shape != (self.d_model, self.d_model):
            raise InputError(f"W_skip has shape {list(self.W_skip.shape)}; it must be [{self.d_model}, {self.d_model}]")
        if self.threshold is not None and bool((self.threshold < 0).any()):
            raise InputError("threshold holds negative numbers; a threshold of JumpReLU is 0 or above")
        if self.k is not None:
            object.__setattr__(self, "k", numbers.whole("k", self.k, numbers.Limits(1, self.n_features)))
            if self.threshold is not None:
                raise InputError("threshold is for JumpReLU and k for TopK; give one of the two")

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return int(self.W_enc.shape[0])

    @property
    def d_model(self) -> int:
        """The width of what is read and written."""
        return int(self.W_enc.shape[1])

    @property
    def tensors(self) -> list[Tensor]:
        """The weights, in their order."""
        return [value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)]

    @property
    def settings(self) -> tuple[Any, ...]:
        """What is no weight: which weights there are, and the numbers and names beside them."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return tuple((name, tuple(value.shape) if isinstance(value, Tensor) else value) for name, value in values)

    @property
    def activation(self) -> str:
        """What the features' nonlinearity is called."""
        if self.k is not None:
            return f"TopK({self.k})"
        return "ReLU" if self.threshold is None else "JumpReLU"

    @property
    def needs_input(self) -> str | None:
        """What the decoder needs the coder's input for, or None."""
        if self.W_skip is not None:
            return "W_skip"
        return None if self.normalization == "none" else f"normalization={self.normalization!r}"

    def pre_activations(self, x: Values) -> Features:
        """What the nonlinearity is applied to: `W_enc x + b_enc`, of the normalized x where that belongs to it."""
        return F.linear(self._normalized(x), self.W_enc.to(x), self.b_enc.to(x))

    def activate(self, z: Features) -> Features:
        """The nonlinearity; gradients pass where a feature is active."""
        if self.k is not None:
            best = z.topk(self.k, dim=-1)
            return z.new_zeros(z.shape).scatter(-1, best.indices, best.values.relu())
        return z.relu() if self.threshold is None else z.relu() * (z > self.threshold.to(z))

    def decode(self, f: Features, x: Values | None = None) -> Values:
        """What features write, with what the skip passes of `x` and the norm of `x` undone."""
        out = f @ self.W_dec.to(f) + self.b_dec.to(f)
        if x is None:
            return out
        out = self.spread(out, x)
        if self.normalization == "layer_norm":
            out = out + x.mean(-1, keepdim=True)
        return out if self.W_skip is None else out + F.linear(x, self.W_skip.to(x))

    def carried(self, gradient: Values, x: Values) -> Features:
        """The gradient in front of the decoder, from that behind it, where `x` was encoded."""
        return self.spread(gradient, x) @ self.W_dec.T.to(gradient)

    def spread(self, decoded: Values, x: Values) -> Values:
        """What is decoded as long as `x` is: the scale of a norm of each x undone."""
        if self.normalization == "layer_norm":
            return decoded * x.std(-1, keepdim=True)
        return decoded * self._length(x) if self.normalization == "constant_norm_rescale" else decoded

    def to(self, like: Tensor) -> Coder:
        """The same with weights of the device and the dtype of `like`."""
        moved: dict[str, Any] = {
            field.name: value.to(like)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def _normalized(self, x: Values) -> Values:
        if self.normalization == "layer_norm":
            return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + _EPSILON)
        return x / self._length(x) if self.normalization == "constant_norm_rescale" else x

    def _length(self, x: Values) -> Tensor:
        """The norm of x, 1 where all numbers are +-1."""
        return x.pow(2).mean(-1, keepdim=True).sqrt()

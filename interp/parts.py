"""The smallest parts of a transformer, which read their weights live: linear maps and norms; and sums' precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from interp import compat


def working(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are: norms and sums are taken in this precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def streams(module: nn.Module) -> bool:
    """Whether a module's weight is read when it is asked for (`interp.streaming`)."""
    return "weight" in module.__dict__.get("streamed", ())


def sample(module: nn.Module) -> Tensor:
    """A tensor with the dtype and the device of a module's weight: that itself, or an empty one where it streams."""
    held: Any = module
    weight: Tensor = held.streamed["weight"].sample if streams(module) else held.weight
    return weight


@dataclass(frozen=True)
class Affine:
    """A linear map of the model, whatever the layout of its weight."""

    module: nn.Module
    transposed: bool = False

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The weight as `F.linear` wants it."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight.T if self.transposed else weight

    @property
    def shape(self) -> torch.Size:
        """Outputs and inputs; a weight that streams is not read for it."""
        held = compat.parameters_of(self.module).get("weight")
        weight: Tensor = self.module.weight if held is None else held  # type: ignore[assignment]
        shape = weight.shape
        return torch.Size(reversed(shape)) if self.transposed else shape

    @property
    def bias(self) -> Float[Tensor, " out"] | None:
        """The bias, or None."""
        return getattr(self.module, "bias", None)

    def __call__(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Norm:
    """LayerNorm or RMSNorm over the last axis: `gain * centred(x) / r(x) + bias`."""

    module: nn.Module
    kind: Literal["rms", "layer"]
    eps: float
    offset: float = 0.0  # Gemma's gain is 1 + weight

    @property
    def gain(self) -> Float[Tensor, " d_model"] | None:
        """The factor behind the division, or None for a norm without one."""
        weight: Tensor | None = getattr(self.module, "weight", None)
        return weight if weight is None or not self.offset else weight + self.offset

    @property
    def bias(self) -> Float[Tensor, " d_model"] | None:
        """The bias, or None."""
        return getattr(self.module, "bias", None)

    def centred(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """`x` less its mean for LayerNorm; `x` itself for RMSNorm."""
        return x - x.mean(-1, keepdim=True) if self.kind == "layer" else x

    def divisor(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
        """r(x) = sqrt(mean(centred(x)^2) + eps)."""
        return (self.centred(working(x)).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def __call__(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        wide, gain, bias = working(x), self.gain, self.bias
        if self.kind == "layer":
            gain, bias = (None if w is None else w.to(wide.dtype) for w in (gain, bias))
            return F.layer_norm(wide, wide.shape[-1:], gain, bias, self.eps).to(x.dtype)
        normed = F.rms_norm(wide, wide.shape[-1:], None, self.eps)
        return (normed if gain is None else normed * gain.to(wide.dtype)).to(x.dtype)

"""How a run is differentiated: the operations whose gradient a backward rule may change.

The kernels ask a `Backward` for every norm, activation, product, attention and linear layer. This one answers with
plain autograd; rule sets (`attribution.rules`) answer with the same values and other gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from interp.parts import Affine, Norm


class Pull(Protocol):
    """The gradient at the input of a linear layer, from the gradient at its output.

    `weight` is `[out, in]`, or `[head, out, in]` for a layer that is looked at head by head; `x` then has an axis of
    length one where the others have their heads.
    """

    def __call__(
        self,
        weight: Float[Tensor, "*head out in"],
        bias: Float[Tensor, "*head out"] | None,
        x: Float[Tensor, "... in"],
        y: Float[Tensor, "... out"],
        gradient: Float[Tensor, "... out"],
    ) -> Float[Tensor, "... in"]: ...


class NormPull(Protocol):
    """The gradient at the input of a norm, from the gradient at its output; all of one shape."""

    def __call__(
        self, norm: Norm, x: Float[Tensor, "... d_model"], gradient: Float[Tensor, "... d_model"]
    ) -> Float[Tensor, "... d_model"]: ...


class Backward:
    """Plain autograd. Sub-classes change gradients, never values."""

    norms_held: bool = False  # norms pass gradients as if their divisor were a constant
    norm_pull: NormPull | None = None  # replaces the Jacobian of norms, where it is neither their own nor the held one
    pull: Pull | None = None  # replaces the transposed weight in linear layers
    temperature: float | None = None  # at which the softmax's Jacobian is taken

    def norm(self, norm: Norm, x: Tensor) -> Tensor:
        """A norm of the model."""
        return norm(x)

    def activation(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """An elementwise activation function, or the soft cap of the logits."""
        return function(x)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """The product of gate and value in a gated MLP."""
        return a * b

    def factors(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values on their way into attention."""
        return q, k, v

    def affine(self, affine: Affine, x: Tensor) -> Tensor:
        """A linear layer."""
        return affine(x)

    def mixture(self, value: Tensor, held: Callable[[], Tensor]) -> Tensor:
        """The output of a mixture of experts; `held` computes it with the routing weights held constant."""
        return value


PLAIN = Backward()


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, gradient


def replace_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """`value`, differentiated as if it were `surrogate` (of the same shape)."""
    return run_function(_Replace, value, surrogate)


def run_function(function: type[torch.autograd.Function], *given: Any) -> Tensor:
    """What a function with a backward of its own gives; torch leaves its `apply` without types."""
    apply: Callable[..., Tensor] = function.apply
    return apply(*given)

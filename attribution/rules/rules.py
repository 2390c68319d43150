"""Backward rules: each says how one kind of operation passes relevance back. Values never change.

A rule is written in its gradient form: relevance at a place is activation times the modified gradient there, and the
modified gradient of what follows is all that a rule needs to know. Rules are compared by value and do not hold state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.keeping import kept
from interp.kernels.backward import run_function
from interp.parts import Affine, Norm, working


@dataclass(frozen=True)
class Rule:
    """How one kind of operation is differentiated; `operation` says which.

    One of your own is a frozen dataclass with `operation` and a call, which gets what the operation gets and gives the
    operation's value with another gradient (`interp.kernels.backward.replace_gradient(value, surrogate)`): `norm`
    (norm, x), `activation` (function, x), `product` (a, b), `attention` (q, k, v), `linear` (affine, x) and `routing`
    (value, held).
    """

    operation: ClassVar[str]


@kept
@dataclass(frozen=True)
class HeldScale(Rule):
    """Norms: the divisor is a constant, y = gain * centred(x) / r with r held; the mean is subtracted as it is.

    The LN rule of Ali et al. 2022 (arXiv:2202.07304), also of AttnLRP, RelP and GIM. Relevance is conserved up to
    the norm's bias.
    """

    operation: ClassVar[str] = "norm"
    holds_divisor: ClassVar[bool] = True

    def __call__(self, norm: Norm, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        gain = None if norm.gain is None else working(norm.gain)
        return run_function(_HeldNorm, x, norm, gain)


class _HeldNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Norm, gain: Tensor | None) -> Tensor:
        ctx.norm, ctx.gain = norm, gain
        ctx.save_for_backward(norm.divisor(x))
        return norm(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (divisor,) = ctx.saved_tensors
        wide = working(gradient)
        scaled = (wide if ctx.gain is None else wide * ctx.gain) / divisor
        return ctx.norm.centred(scaled).to(gradient.dtype), None, None


@kept
@dataclass(frozen=True)
class Identity(Rule):
    """Activation functions: y = act(x) counts as x times the constant y / x.

    The identity rule of AttnLRP (Achtibat et al. 2024, eq. 9) and RelP. Near x = 0 the constant is the limit
    act'(0): where |x| is so small that y / x is lost to rounding.
    """

    operation: ClassVar[str] = "activation"

    def __call__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return run_function(_Slope, x, function)


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        y = function(x)
        ctx.save_for_backward(origin_slope(function, x, y))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (ratio,) = ctx.saved_tensors
        return (gradient * ratio).to(gradient.dtype), None


def origin_slope(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """act(x) / x where y = act(x), and its limit act'(0) near zero; at least float32."""
    wide = working(x)
    # in half precision y itself is too coarse for a ratio
    ratio = (y if wide is x else function(wide)) / wide
    info = torch.finfo(wide.dtype)
    small = wide.abs() < info.tiny / info.eps
    return torch.where(small, slope_at_zero(function, wide), ratio) if small.any() else ratio


def slope_at_zero(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """act'(0): the slope that act(x) / x has in the limit."""
    with torch.enable_grad():
        zero = torch.zeros((), dtype=like.dtype, device=like.device, requires_grad=True)
        return torch.autograd.grad(function(zero), zero)[0]


@kept
@dataclass(frozen=True)
class Half(Rule):
    """Products of gate and value in a gated MLP: half of the relevance to each factor.

    The uniform rule of AttnLRP (its proposition 3.2 for products of two activations), also of RelP and GIM.
    """

    operation: ClassVar[str] = "product"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return scale_gradient(a * b, 0.5)


@kept
@dataclass(frozen=True)
class HeldGate(Rule):
    """Products of gate and value in a gated MLP: the gate is a constant, all relevance goes to the value.

    What DecompX's constant slopes come to in a gated MLP (`attribution.decompose` with `gate="held"`).
    """

    operation: ClassVar[str] = "product"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return a.detach() * b


@kept
@dataclass(frozen=True)
class AttentionFactors(Rule):
    """Attention: gradients of queries, keys and values times constants; the softmax's Jacobian at a temperature.

    AttnLRP halves relevance at each product: values get 1/2, and of the other half, which goes through the softmax
    with its own gradient, queries and keys get 1/2 each: `AttentionFactors(1/4, 1/4, 1/2)`. GIM (Edin et al. 2025,
    arXiv:2505.17630) does the same and takes the softmax's Jacobian p_T (g - p_T . g) at p_T = softmax(scores / 2).
    With queries and keys at zero the pattern is held constant, which conserves relevance exactly: CP-LRP of Ali et
    al. 2022, the AH rule of RelP.
    """

    query: float = 1.0
    key: float = 1.0
    value: float = 1.0
    temperature: float | None = None
    operation: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        numbers.settle(self, temperature=numbers.Limits(0, open_low=True, advice="GIM's is 2"))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return scale_gradient(q, self.query), scale_gradient(k, self.key), scale_gradient(v, self.value)


def pattern_held() -> AttentionFactors:
    """Attention patterns held constant: no gradient to queries and keys."""
    return AttentionFactors(query=0.0, key=0.0)


@kept
@dataclass(frozen=True)
class HeldRouting(Rule):
    """Mixtures of experts: the routing weights are constants; rules apply inside every expert."""

    operation: ClassVar[str] = "routing"

    def __call__(self, value: Tensor, held: Callable[[], Tensor]) -> Tensor:
        from interp.kernels.backward import replace_gradient
        from interp.mlps import held_equals_own

        surrogate = held()
        if not held_equals_own(value, surrogate):
            raise InputError(
                "this mixture of experts does more than Mixtral's (shared experts, other routing), so backward rules "
                "cannot enter it; use a method without rules, such as 'eap-ig'"
            )
        return replace_gradient(value, surrogate)


class LinearRule(Rule, ABC):
    """How linear layers pass relevance: `pull` gives the gradient in front of one (see `interp.kernels.backward`)."""

    operation: ClassVar[str] = "linear"

    def __call__(self, affine: Affine, x: Tensor) -> Tensor:
        return run_function(_Pulled, x, affine, self)

    @abstractmethod
    def pull(self, weight: Tensor, bias: Tensor | None, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        """See `interp.kernels.backward.Pull`."""


class _Pulled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, affine: Affine, rule: LinearRule) -> Tensor:
        y = affine(x)
        ctx.affine, ctx.rule = affine, rule
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, y = ctx.saved_tensors
        affine = ctx.affine
        pulled = ctx.rule.pull(affine.weight, affine.bias, x, y, gradient)
        return pulled.to(gradient.dtype), None, None


@kept
@dataclass(frozen=True)
class Epsilon(LinearRule):
    """Linear layers: R_i = x_i sum_j w_ij R_j / (y_j + epsilon sign(y_j)).

    The epsilon rule (Bach et al. 2015); `epsilon` absorbs relevance where outputs are small. With epsilon = 0 it is
    the plain gradient.
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        numbers.settle(self, epsilon=numbers.FROM_ZERO)

    def pull(self, weight: Tensor, bias: Tensor | None, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        return _times(_share(gradient, y, y, self.epsilon), weight)


@kept
@dataclass(frozen=True)
class Gamma(LinearRule):
    """Linear layers: contributions of the output's own sign weigh 1 + gamma.

    The gamma rule (Montavon et al. 2019) for inputs and outputs of any sign (Andeol et al. 2022): with
    w+ = max(w, 0) and w- = min(w, 0), contributions to a positive output use w + gamma w+ for positive and
    w + gamma w- for negative inputs, and the other way around for a negative output. gamma = 0 is the plain gradient.
    """

    gamma: float = 0.25
    epsilon: float = 1e-9

    def __post_init__(self) -> None:
        numbers.settle(self, gamma=numbers.FROM_ZERO, epsilon=numbers.FROM_ZERO)

    def pull(self, weight: Tensor, bias: Tensor | None, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        rising = weight + self.gamma * weight.clamp(min=0)
        falling = weight + self.gamma * weight.clamp(max=0)
        above, below = x.clamp(min=0), x.clamp(max=0)
        up, down = (
            _forward(above, rising) + _forward(below, falling),
            _forward(above, falling) + _forward(below, rising),
        )
        if bias is not None:
            up = up + bias + self.gamma * bias.clamp(min=0)
            down = down + bias + self.gamma * bias.clamp(max=0)
        positive = y > 0
        share = _share(gradient, y, torch.where(positive, up, down), self.epsilon)
        to_up, to_down = share * positive, share * ~positive
        where_above = _times(to_up, rising) + _times(to_down, falling)
        where_below = _times(to_up, falling) + _times(to_down, rising)
        return torch.where(x >= 0, where_above, where_below)


def _share(gradient: Tensor, y: Tensor, total: Tensor, epsilon: float) -> Tensor:
    """gradient * y / (total + epsilon sign(total)); where all is zero, the gradient itself."""
    sign = torch.where(total < 0, -1.0, 1.0).to(total.dtype)
    stabilised = total + epsilon * sign
    return gradient * torch.where(stabilised == 0, 1.0, y / torch.where(stabilised == 0, 1.0, stabilised))


def _times(gradient: Tensor, weight: Tensor) -> Tensor:
    """gradient @ weight, head by head if the weight has heads."""
    return gradient @ weight if weight.ndim == 2 else torch.einsum("prho,hoi->prhi", gradient, weight)


def _forward(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight^T; with heads, `x` is `[point, row, 1, in]`."""
    return x @ weight.T if weight.ndim == 2 else torch.einsum("pri,hoi->prho", x[:, :, 0], weight)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` with its gradient times a constant."""
    if factor == 0:
        return x.detach()
    return x if factor == 1 else run_function(_Scaled, x, factor)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.factor, None

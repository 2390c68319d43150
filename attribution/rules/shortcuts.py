"""What engines need of a rule beside its call: what its class states, or else the slow way through the call itself.

A rule's call is the whole truth about it. Ours also state what makes them cheap (`HeldScale` that a norm's divisor is
a constant, `LinearRule` how a gradient gets in front of a weight). A statement holds for the call beside which it
stands: a sub-class with a call of its own is asked that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.mlps import Matrix
from interp.parts import Affine, Norm

if TYPE_CHECKING:
    from attribution.rules.rules import Rule

Factors = tuple[float, float, float]


def stated(rule: Rule, name: str) -> bool:
    """Whether a rule's class, or one between it and the call in force, states `name`."""
    for kind in type(rule).__mro__:
        if name in vars(kind):
            return True
        if "__call__" in vars(kind):
            return False
    return False


def through_norm(rule: Any, norm: Norm, x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in front of a norm, from the one behind it; `x` and `gradient` are of one shape."""
    return _through(lambda leaf: rule(norm, leaf), x, gradient)


def through_affine(rule: Any, weight: Tensor, bias: Tensor | None, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in front of a linear layer; shapes as in `interp.kernels.backward.Pull`."""
    if weight.ndim == 2:
        return _through(lambda leaf: rule(Affine(Matrix(weight, bias)), leaf), x, gradient)
    biases = [None] * len(weight) if bias is None else list(bias)
    heads = [
        through_affine(rule, of, own, x[:, :, 0], y[:, :, head], gradient[:, :, head])
        for head, (of, own) in enumerate(zip(weight, biases, strict=True))
    ]
    return torch.stack(heads, 2)


def _through(call: Any, x: Tensor, gradient: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        y = call(leaf)
        if not y.requires_grad:  # the rule lets nothing through
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(y, leaf, gradient.to(y.dtype), allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def constant_factors(rule: Any) -> Factors | None:
    """The constants that a rule for attention puts on the gradients of queries, keys and values; None if it does more.

    Hooks on a model's own attention see queries, keys and values one by one: all that they can do is this.
    """
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 3, 1, 4, generator=generator, dtype=torch.float64, device="cpu") for _ in "qkv"]
    arriving = [torch.randn(1, 3, 1, 4, generator=generator, dtype=torch.float64, device="cpu") for _ in "qkv"]
    with torch.enable_grad():
        leaves = [x.requires_grad_() for x in given]
        value = sum((y * g).sum() for y, g in zip(rule(*leaves), arriving, strict=True))
        leaving: Any = (None,) * 3
        if isinstance(value, Tensor) and value.requires_grad:
            leaving = torch.autograd.grad(value, leaves, allow_unused=True)
    factors = []
    for before, after in zip(leaving, arriving, strict=True):
        factor = 0.0 if before is None else float((before * after).sum() / after.square().sum())
        if before is not None and not torch.allclose(before, factor * after, rtol=1e-9, atol=1e-9):
            return None
        factors.append(factor)
    return factors[0], factors[1], factors[2]

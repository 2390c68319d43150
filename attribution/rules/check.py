"""Whether a rule keeps values: a rule changes gradients alone, and a user's own might forget that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.kernels.backward import PLAIN

# operation: (what of `Backward` asks for it, what its rule is called with)
CALLS = {
    "norm": ("norm", "norm, x"),
    "activation": ("activation", "function, x"),
    "product": ("product", "a, b"),
    "attention": ("factors", "q, k, v"),
    "routing": ("mixture", "value, held"),
    "linear": ("affine", "affine, x"),
}


@torch.no_grad()
def check_values(operation: str, rule: Any, anatomy: Anatomy) -> None:
    """Raise `InputError` unless a rule gives what the model's own operation gives, on a part of the model."""
    given = _example(operation, anatomy)
    asked, signature = CALLS[operation]
    own = getattr(PLAIN, asked)(*given)
    try:
        ruled = rule(*given)
    except TypeError as error:
        raise InputError(f"rules: {rule!r} must be callable with ({signature}); it is not: {error}") from error
    if wrong := _other_dtype(own, ruled):
        raise InputError(
            f"rules: {rule!r} gives {wrong} for the {operation} of a model in {anatomy.dtype}; a rule must keep the "
            "dtype, as tensor.to(x.dtype) does"
        )
    if not _same(own, ruled):
        raise InputError(
            f"rules: {rule!r} changes what the {operation} gives, and a rule must change gradients alone; return "
            "interp.kernels.backward.replace_gradient(value, surrogate)"
        )


def _example(operation: str, anatomy: Anatomy) -> tuple[Any, ...]:
    block, generator = anatomy.blocks[0], torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(1, 2, *shape, generator=generator, dtype=torch.float32, device="cpu")
        return x.to(anatomy.device, anatomy.dtype)

    if operation == "norm":
        return block.attention_norm, draw(anatomy.d_model)
    if operation == "linear":
        return block.q, draw(anatomy.d_model)
    if operation == "attention":
        heads = [len(affine.weight) // anatomy.d_head for affine in (block.q, block.k, block.v)]
        return tuple(draw(count, anatomy.d_head) for count in heads)
    if operation == "routing":
        value = draw(anatomy.d_model)
        return value, lambda: value
    inner = draw(anatomy.d_mlp)
    return (block.mlp.act, inner) if operation == "activation" else (inner, draw(anatomy.d_mlp))


def _other_dtype(own: Any, ruled: Any) -> torch.dtype | None:
    """The dtype of a rule's output that is not the operation's own."""
    pairs = ((own, ruled),) if isinstance(own, Tensor) else zip(own, ruled, strict=False)
    return next((b.dtype for a, b in pairs if isinstance(b, Tensor) and b.dtype != a.dtype), None)


def _same(own: Any, ruled: Any) -> bool:
    if isinstance(own, Tensor):
        own, ruled = (own,), (ruled,)
    if not isinstance(ruled, Sequence) or len(own) != len(ruled):
        return False
    tolerance = 1e-4 if own[0].dtype in (torch.float32, torch.float64) else 5e-2
    return all(
        isinstance(b, Tensor) and a.shape == b.shape and float((a - b).abs().max()) <= tolerance * float(a.abs().max())
        for a, b in zip(own, ruled, strict=True)
    )

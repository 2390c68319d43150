"""Weights of dictionaries as users hand them in: read, copied, and refused in one sentence."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arrays import as_tensor, is_dense
from interp.errors import InputError, refused, short


def matrix(name: str, values: Any, axes: str) -> Float[Tensor, "row column"]:
    """A matrix of finite floats; `axes` is what a refusal calls its shape."""
    found = _floats(name, values, axes)
    if found.ndim != 2 or not found.numel():
        raise InputError(f"{name} has shape {list(found.shape)}; it must be {axes}")
    return found


def decoders(name: str, values: Any, like: Tensor) -> Float[Tensor, "later feature d_model"]:
    """Decoders of later layers, each shaped as `like`, with its device and dtype."""
    found = _floats(name, values, "[later layer, feature, d_model]")
    if found.ndim != 3 or found.shape[1:] != like.shape or not len(found):
        raise InputError(
            f"{name} has shape {list(found.shape)}; it must be [later layer, feature, d_model], here "
            f"[.., {like.shape[0]}, {like.shape[1]}]"
        )
    return found.to(like)


def vector(name: str, values: Any, size: int, of: str, like: Tensor) -> Float[Tensor, " size"]:
    """A vector of `size` finite floats, with the device and the dtype of `like`; None: zeros.

    `of` is what a refusal calls its axis. A single number stands for all of them.
    """
    if values is None:
        return like.new_zeros(size)
    found = _floats(name, values, f"[{of}]").to(like)
    if found.ndim and found.shape != (size,):
        raise InputError(f"{name} has shape {list(found.shape)}; it must be [{of}], here [{size}]")
    return found.expand(size).clone()


def _floats(name: str, values: Any, axes: str) -> Tensor:
    with refused(f"{name}={short(values)} must be a tensor {axes}"):
        found = as_tensor(values)
    if not is_dense(found):
        raise InputError(f"{name} must be a dense tensor {axes}; give {name}.to_dense()")
    if not found.is_floating_point():
        found = found.to(torch.float32)
    if not bool(found.isfinite().all()):
        count = int((~found.isfinite()).sum())
        raise InputError(
            f"{name} holds {count:,} of {found.numel():,} numbers that are NaN or infinite; was its training cut off?"
        )
    return found.detach()

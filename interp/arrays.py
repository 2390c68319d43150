"""What users hand in as tensors, whatever torch's default device and dtype are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is, an array as a tensor of its dtype; numbers in lists become float32 or int64, on the CPU.

    `torch.as_tensor` would move tensors to the default device. Raises what that does for what is no array.
    """
    if isinstance(values, Tensor):
        return values
    found = torch.as_tensor(values, device="cpu")
    if found.is_floating_point() and not hasattr(values, "dtype") and found.dtype == torch.get_default_dtype():
        return torch.as_tensor(values, dtype=torch.float32, device="cpu")
    return found


def copied(values: Any) -> Any:
    """An array or tensor for somebody's function that may write into it; anything else as it is."""
    if isinstance(values, Tensor):
        return values.clone()
    return values.copy() if isinstance(values, np.ndarray) else values


def is_dense(tensor: Tensor) -> bool:
    """Whether it holds a value for every place: it is not sparse, and not on the device `meta`."""
    return tensor.layout is torch.strided and not tensor.is_meta

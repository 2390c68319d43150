"""What users hand in as tensors, whatever torch's default device and dtype are."""

from __future__ import annotations

from typing import Any

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

"""Where streamed weights lie in memory: buffers that are used again as soon as nothing holds a tensor in them.

Fresh memory costs more than reading into it: the system has to find and clear every page.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

_ALIGNED = 64  # bytes
_IDLE = 4  # other uses after which a buffer is given back
_lone = [np.empty(0, dtype=np.uint8)]
_UNUSED = sys.getrefcount(_lone[0])  # what is counted of an array that only its list holds


class Pool:
    """Buffers of one device. Those of a GPU are torch's own to keep; of a CPU they are arrays counted here."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._arrays: list[np.ndarray] = []
        self._idle: list[int] = []  # for each array how often another one was taken since

    def tensors(self, shapes: list[torch.Size], dtype: torch.dtype) -> list[Tensor]:
        """Empty tensors that lie side by side, each with a storage of its own."""
        if self._device.type != "cpu":
            return [torch.empty(shape, dtype=dtype, device=self._device) for shape in shapes]
        sizes = [shape.numel() * dtype.itemsize for shape in shapes]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGNED) * _ALIGNED)
        array = self._take(starts[-1] + _ALIGNED)
        first = -array.ctypes.data % _ALIGNED
        parts = (array[first + start :][:size] for start, size in zip(starts, sizes, strict=False))
        # a tensor keeps its slice alive, and that the whole array: counting references tells whether it is in use
        return [torch.from_numpy(part).view(dtype).view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _take(self, n_bytes: int) -> np.ndarray:
        free = [i for i in range(len(self._arrays)) if sys.getrefcount(self._arrays[i]) <= _UNUSED]
        fitting = [i for i in free if len(self._arrays[i]) >= n_bytes]
        chosen = min(fitting, key=lambda i: len(self._arrays[i]), default=len(self._arrays))
        self._idle = [0 if i == chosen else idle + 1 for i, idle in enumerate(self._idle)]
        if not fitting:
            self._arrays.append(np.empty(n_bytes, dtype=np.uint8))
            self._idle.append(0)
        array = self._arrays[chosen]
        # too small, or for something as large as an unembedding, which is not needed again soon
        for i in reversed(free):
            if i != chosen and (not fitting or self._idle[i] > _IDLE):
                del self._arrays[i], self._idle[i]
        return array

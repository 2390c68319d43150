"""Reading stored tensors into memory, chunk by chunk, with the working dtype made on the way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from interp.errors import InputError
from interp.streaming.checkpoint import File, Stored

CHUNK = 16 << 20  # bytes


class Reader:
    """Reads for one device through one small buffer (on CUDA a pinned one, copied on a stream of its own).

    For one thread at a time. `n_bytes` counts what was read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.n_bytes = 0
        cuda = device.type == "cuda"
        self._buffer = torch.empty(CHUNK, dtype=torch.uint8, device="cpu", pin_memory=cuda)
        self._side = torch.cuda.Stream(device) if cuda else None

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """Copies to a GPU inside run beside what computes there, and have arrived at the end."""
        if self._side is None:
            yield
            return
        self._side.wait_stream(torch.cuda.current_stream(self.device))  # what used this memory before is done with it
        with torch.cuda.stream(self._side):
            yield
        self._side.synchronize()

    @torch.no_grad()
    def read(self, stored: Stored, into: Tensor) -> None:
        """Fill `into`, a contiguous tensor of at most as many elements, with a stored tensor's first ones.

        Raises `InputError` where the file has changed, or ends too early.
        """
        stored.file.refuse_changed()
        flat, item = into.view(-1), stored.dtype.itemsize
        straight = into.device.type == "cpu" and into.dtype == stored.dtype
        with _opened(stored.file) as descriptor:
            for first in range(0, len(flat), CHUNK // item):
                part = flat[first : first + CHUNK // item]
                buffer = part.view(torch.uint8) if straight else self._buffer[: len(part) * item]
                _fill(descriptor, stored.file, buffer, stored.offset + first * item)
                if not straight:
                    values = buffer.view(stored.dtype)
                    # cast on the device that has the time for it
                    part.copy_(values.to(self.device) if self._side is not None else values)
        self.n_bytes += len(flat) * item
        stored.file.refuse_changed()

    @torch.no_grad()
    def rows(self, stored: Stored, rows: list[int], dtype: torch.dtype) -> Tensor:
        """Some rows of a stored matrix, `[row, width]`, on the device."""
        stored.file.refuse_changed()
        width = torch.Size(stored.shape[1:]).numel()
        found = torch.empty(len(rows), width, dtype=stored.dtype, device="cpu")
        each = width * stored.dtype.itemsize
        with _opened(stored.file) as descriptor:
            for place, row in zip(found, rows, strict=True):
                _fill(descriptor, stored.file, place.view(torch.uint8), stored.offset + row * each)
        self.n_bytes += len(rows) * each
        return found.to(self.device, dtype)


@contextlib.contextmanager
def _opened(file: File) -> Iterator[int]:
    try:
        descriptor = os.open(file.path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{str(file.path)!r} cannot be read any more: {error}; load the model again") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fill(descriptor: int, file: File, buffer: Tensor, offset: int) -> None:
    """Read exactly as many bytes as `buffer` has."""
    left = memoryview(buffer.numpy().data)
    while left:
        try:
            n = os.preadv(descriptor, [left], offset)
        except OSError as error:
            raise InputError(f"{str(file.path)!r} cannot be read: {error}") from error
        if not n:
            raise InputError(f"{str(file.path)!r} was cut short while its model was in use; load the model again")
        left, offset = left[n:], offset + n

"""What autograd saves of streamed weights for a backward pass: where they come from, in the place of their values.

Otherwise every layer's weights would stay in memory until the backward pass has gone through it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class _Origin(NamedTuple):
    stream: Any
    weight: Any
    start: int  # of the whole weight in its storage


class _Packed(NamedTuple):
    origin: _Origin
    size: torch.Size
    stride: tuple[int, ...]
    offset: int  # from the start of the whole weight


streams: weakref.WeakSet[Any] = weakref.WeakSet()  # all there are
_known: dict[int, _Origin] = {}  # by the address of the storage


def know(values: Tensor, stream: Any, weight: Any) -> None:
    """From now on tensors in this memory are saved as parts of `stream.get(weight)`."""
    _known[values.untyped_storage().data_ptr()] = _Origin(stream, weight, int(values.storage_offset()))


def forget(values: Tensor) -> None:
    """The memory may soon hold something else; tensors in it are saved as they are."""
    _known.pop(values.untyped_storage().data_ptr(), None)


def _pack(tensor: Tensor) -> Tensor | _Packed:
    origin = _known.get(tensor.untyped_storage().data_ptr()) if tensor.layout == torch.strided else None
    if origin is None:
        return tensor
    return _Packed(origin, tensor.size(), tensor.stride(), int(tensor.storage_offset()) - origin.start)


def _unpack(packed: Tensor | _Packed) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    whole: Tensor = packed.origin.stream.get(packed.origin.weight)
    return whole.as_strided(packed.size, packed.stride, int(whole.storage_offset()) + packed.offset)


@contextlib.contextmanager
def by_origin() -> Iterator[None]:
    """Inside, autograd saves streamed weights by where they come from; costs nothing where there are none."""
    if not streams:
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        yield

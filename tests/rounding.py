"""A pytest plugin (`-p tests.rounding`): kernels round in their own way for every shape, layout and alignment.

Processors, thread counts and library versions choose kernels by shape and add up in another order. Here each result
of a contraction, reduction or transcendental function is moved by up to one unit of rounding of the terms that went
into it, by noise that hangs on shapes, strides and alignment alone: the same call twice is the same to the last bit,
and what should be exactly zero or equal by another way is not. What has few binary digits is exact in any order and
stays. A test that passes only on some processors fails here.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
SUMS = {  # of products, or of elements: terms may cancel, so noise is of the terms' size
    aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default, aten.mv.default, aten.dot.default,
    aten.addmv.default, aten.sum.default, aten.sum.dim_IntList, aten.convolution.default,
}  # fmt: skip
OTHERS = {
    aten.mean.default, aten.mean.dim, aten._softmax.default, aten._log_softmax.default, aten.logsumexp.default,
    aten.native_layer_norm.default, aten.native_layer_norm_backward.default, aten.native_group_norm.default,
    aten.exp.default, aten.tanh.default, aten.sigmoid.default, aten.gelu.default, aten.silu.default,
    aten.rsqrt.default, aten.linalg_vector_norm.default, aten.var.correction, aten.std.correction,
    aten._softmax_backward_data.default, aten.gelu_backward.default, aten.silu_backward.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
}  # fmt: skip
ROUNDING = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


class Rounding(TorchDispatchMode):
    """Moves results in their last digits."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function not in SUMS and function not in OTHERS:
            return result
        first = result[0] if isinstance(result, tuple) else result
        if first is None or first.dtype not in ROUNDING:
            return result
        moved = noise(call(function, args), tuple(first.shape), first.dtype)
        if function in OTHERS:
            first.mul_(1 + moved * ~short(first))
        elif not function.name().startswith("aten::sum") or first.numel() < args[0].numel():  # a single term is exact
            sizes = [arg.abs() if isinstance(arg, Tensor) else arg for arg in args]
            size = function(*sizes, **(kwargs or {})).abs()
            first.add_(size * moved * ~(short(first) & short(size)))
        return result


def short(x: Tensor) -> Tensor:
    """Whether numbers have so few binary digits that they cannot have been rounded."""
    return (4096 * x).frac() == 0


def call(function: Any, args: Any) -> str:
    """What a kernel is chosen by."""
    layouts = [(*arg.shape, arg.stride(), arg.data_ptr() % 64) for arg in args if isinstance(arg, Tensor)]
    return f"{function} {layouts} {[arg for arg in args if not isinstance(arg, Tensor)]}"


@functools.lru_cache(4096)
def noise(key: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return ((torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * ROUNDING[dtype]).to(dtype)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with Rounding():
        return (yield)

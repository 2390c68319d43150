"""Fused projections of streamed models: which rows of them TransformerLens makes its queries, keys and values of.

TransformerLens splits such weights when it boots. Here they then hold the numbers of their outputs in the place of
values, so that what comes out of the split says which outputs it consists of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp import compat
from interp.running import parts_of
from interp.streaming.modules import Source, give, shell, stream_of, take_back
from interp.streaming.weights import Share, Weight

_FUSED = ("c_attn", "qkv_proj", "gate_up_proj", "query_key_value")
_UNREAD = "query_key_value"  # split without a look at the values; made of numbers they would be copied
_MOST = 1 << 24  # outputs of one projection


@dataclass(frozen=True)
class _Fused:
    module: nn.Module
    source: Source
    bias: nn.Parameter | None

    @property
    def transposed(self) -> bool:
        return type(self.module).__name__ == "Conv1D"


def boot_split(module: nn.Module, boot: Callable[[], Any]) -> Any:
    """`boot()`, a bridge around a module that streams its weights: what it splits of fused projections streams too."""
    fused = {
        part: name
        for name, part in module.named_modules()
        if name.endswith(_FUSED) and "weight" in part.__dict__.get("streamed", {})
    }
    kept = [_number(part, i, name.endswith(_UNREAD)) for i, (part, name) in enumerate(fused.items())]
    known = {part: dict(compat.parameters_of(part)) for part in module.modules()}
    stream = stream_of(module)
    stream.asleep = True  # TransformerLens asks for shapes alone
    try:
        bridge = boot()
    finally:
        stream.asleep = False
    for part in parts_of(bridge):
        if part not in known and any(one is not None for one in compat.parameters_of(part).values()):
            _settle(part, kept)
    for one in kept:
        compat.parameters_of(one.module).update(weight=shell(one.source), bias=one.bias)
        give(one.module, "weight", one.source)
    return bridge


def _number(part: nn.Module, place: int, unread: bool) -> _Fused:
    """Put numbers of outputs into a fused projection."""
    own: Any = compat.parameters_of(part)
    kept = _Fused(part, take_back(part, "weight"), own.get("bias"))
    n_out, n_in = own["weight"].shape[::-1] if kept.transposed else own["weight"].shape
    numbers = place * _MOST + torch.arange(n_out, dtype=torch.float64, device="cpu")
    if not unread:
        spread = numbers.expand(n_in, n_out)
        own["weight"] = nn.Parameter(spread if kept.transposed else spread.T, requires_grad=False)
    if kept.bias is not None:
        own["bias"] = nn.Parameter(numbers, requires_grad=False)
    return kept


def _settle(part: nn.Module, kept: list[_Fused]) -> None:
    """Let a layer that was split off give the outputs of the fused one that its numbers name."""
    own: Any = compat.parameters_of(part)
    bias: Tensor | None = own.get("bias")
    numbers = (own["weight"][:, 0] if bias is None else bias).long()
    fused, first = kept[int(numbers[0]) // _MOST], int(numbers[0]) % _MOST
    rows: Tensor | slice = numbers % _MOST
    if torch.equal(numbers, torch.arange(int(numbers[0]), int(numbers[0]) + len(numbers), device="cpu")):
        rows = slice(first, first + len(numbers))
    assert isinstance(fused.source.weight, Weight)
    share = Share(fused.source.weight, rows, fused.transposed)
    stream = fused.source.stream
    stream.add(share)
    own["weight"] = shell(source := Source(stream, share))
    if bias is not None:
        assert fused.bias is not None
        own["bias"] = nn.Parameter(fused.bias[rows], requires_grad=False)
    give(part, "weight", source)

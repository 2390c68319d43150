"""From what wraps a model to the model itself, or one sentence on what to hand in instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp import compat
from interp.errors import InputError

_PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")
_QUANTISED = (
    "quantized", "bitsandbytes", "torchao", "gptq", "awq", "hqq", "quanto", "aqlm", "eetq", "fbgemm", "fp8", "vptq",
    "compressed_tensors", "compressed_linear",
)  # fmt: skip
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def uncompiled(given: Any) -> Any:
    """The module that `torch.compile` was given, of which it shares the weights; anything else as it is."""
    inside = compat.compiled_from(given) if isinstance(given, nn.Module) else None
    return given if inside is None else uncompiled(inside)


def refuse_wrapped(module: nn.Module, name: str) -> None:
    """Raise `InputError`, which names the argument `name`, for a module that does not compute as its weights say.

    That is a model under adapters of peft, one made parallel, and one whose weights are quantised, sharded, on the meta
    device or on several devices: neither parts nor gradients of these are what they seem.
    """
    kind = type(module).__name__
    above = {base.__name__ for base in type(module).__mro__}
    if "PeftModel" in above or hasattr(module, "merge_and_unload"):
        raise InputError(
            f"{name} is a {kind}: a model under an adapter of peft; merge the adapter into the weights and give what "
            "merge_and_unload() returns"
        )
    if above & set(_PARALLEL):
        raise InputError(f"{name} is a {kind}, a model made parallel; give the model in it, as it was before: .module")
    refuse_parts(module, f"{name}={kind}")
    _refuse_weights(module, f"{name}={kind}")


def refuse_adapter(folder: Path) -> None:
    """Raise `InputError` for a folder of peft, which holds the difference from a model and may name one elsewhere."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"source={str(folder)!r} holds an adapter of peft, not a model; load it with "
            "peft.AutoPeftModelForCausalLM.from_pretrained (or the class of your task) and give what "
            "merge_and_unload() returns"
        )


def refuse_parts(module: nn.Module, what: str) -> None:
    """Raise `InputError`, whose sentence begins with `what`, for adapters of peft and quantised layers in a module."""
    for path, part in module.named_modules():
        kind, home = type(part).__name__, type(part).__module__
        if home.startswith("peft."):
            raise InputError(
                f"{what} carries an adapter of peft at {path!r}; load the model without it, put it on with "
                "peft.PeftModel.from_pretrained(model, folder), and give what merge_and_unload() returns"
            )
        if any(word in f"{home}.{kind}".lower() for word in _QUANTISED):
            raise _quantised(what, path, f"is a {home}.{kind}")


def _refuse_weights(module: nn.Module, what: str) -> None:
    for path, values in (*module.named_parameters(), *module.named_buffers()):
        if values.is_meta:
            raise InputError(
                f"{what} has no values at {path!r} (device meta): it was made without weights, or accelerate holds "
                "them elsewhere; load it whole, on one device: from_pretrained(..., device_map=None); or give it, or "
                "where it does not fit its folder with weights='streamed', to load_model"
            )
        if type(values) not in (Tensor, nn.Parameter):
            raise _quantised(what, path, f"is a {type(values).__name__}")
    for path, weight in module.named_parameters():
        if weight.dtype not in _FLOATS:
            raise _quantised(what, path, f"holds {weight.dtype}")
    devices = {str(weight.device) for weight in module.parameters()}
    if len(devices) > 1:
        raise InputError(
            f"{what} is spread over {', '.join(sorted(devices))}; load it on one device: from_pretrained(..., "
            "device_map=None); or give it, or its folder with weights='streamed', to load_model"
        )


def _quantised(what: str, path: str, how: str) -> InputError:
    return InputError(
        f"{what} does not compute with plain floating-point weights ({path!r} {how}), so that its parts and gradients "
        "cannot be followed; load it without quantisation and without sharding"
    )

"""Models that accelerate has spread over devices, memory and disk (`device_map=`): their weights come as streamed ones.

Its hooks would run whole modules, and the kernels read weights: so the hooks go, and a stream asks what stands behind
them. A weight that lies on the device of the model's runs is used where it is; another comes there when its part runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from interp import boot, compat
from interp.errors import InputError
from interp.streaming.modules import stream_weights
from interp.streaming.split import boot_split
from interp.streaming.weights import Weight
from interp.wrappers import refuse_parts

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def is_dispatched(module: nn.Module) -> bool:
    """Whether accelerate holds some of a module's weights elsewhere, or they lie on several devices."""
    if any(hook.offload for part in module.modules() for hook in compat.hooks_of_accelerate(part)):
        return True
    return len({one.device for one in module.parameters() if not one.is_meta}) > 1


def load_dispatched(module: nn.Module, tokenizer: Any | None, name: str, **asked: Any) -> TransformerBridge:
    """A bridge around a module that accelerate has spread, in place; `asked` are settings that it cannot have.

    Raises `InputError` for these, for wrapped and quantised modules, and for what is no causal language model.
    """
    if given := [f"{key}={value}" for key, value in asked.items() if value is not None]:
        raise InputError(
            f"source is spread over devices, memory or disk by accelerate, and {given[0]} would move it; leave that "
            "out, or load the model's folder with it"
        )
    refuse_parts(module, f"source={type(module).__name__}")
    architecture = boot.check_module(module)
    device, dtype = _device(module), next(module.parameters()).dtype
    weights = dict(_held(module))
    _unhook(module)
    compat.fill_fused_bias(module)
    stream_weights(module, weights, device, dtype)
    module.requires_grad_(False)
    boot.suit_experts(module, dtype)
    before = boot.logits_of(module, module)
    weight = torch.empty(0, device=device, dtype=dtype)
    bridge: TransformerBridge = boot_split(
        module, functools.partial(boot.wrap, module, architecture, tokenizer, name, weight)
    )
    boot.refuse_changed(before, bridge)
    return bridge


def _device(module: nn.Module) -> torch.device:
    """Where the model runs: where accelerate runs its embedding, or where that lies."""
    words: Any = module.get_input_embeddings()  # type: ignore[operator]
    for hook in compat.hooks_of_accelerate(words):
        if hook.execution_device is not None:
            place = hook.execution_device
            return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
    there: torch.device = words.weight.device
    return there


def _held(module: nn.Module) -> Iterator[tuple[str, Weight]]:
    """Each parameter and buffer by name, with what gives its values: accelerate's map, or itself."""
    maps: dict[str, tuple[Mapping[str, Tensor], str]] = {}
    for path, part in module.named_modules():
        for hook in compat.hooks_of_accelerate(part):
            if hook.offload:
                for inner, _ in (*part.named_parameters(), *part.named_buffers()):
                    if hook.place_submodules or "." not in inner:
                        maps[f"{path}.{inner}" if path else inner] = hook.weights_map, inner
    for name, value in (*module.named_parameters(remove_duplicate=False), *module.named_buffers()):
        if not value.is_meta:
            yield name, Weight(name, value.shape, held=functools.partial(_itself, value.detach()))
        elif name in maps:
            yield name, Weight(name, value.shape, held=functools.partial(_of_map, *maps[name]))
        else:
            raise InputError(f"source has no values at {name!r}: accelerate has not been told where they are")


def _itself(value: Tensor) -> Tensor:
    return value


def _of_map(held: Mapping[str, Tensor], name: str) -> Tensor:
    try:
        return held[name]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{name!r} that accelerate has put aside cannot be read any more: {error}") from error


def _unhook(module: nn.Module) -> None:
    """Take off what accelerate has put on a module, and leave weights where they are."""
    from accelerate.hooks import remove_hook_from_submodules

    for part in module.modules():
        for hook in compat.hooks_of_accelerate(part):
            hook.offload = False  # or it would load them all as it goes
    remove_hook_from_submodules(module)
    for part in module.modules():
        own = part.__dict__.get("forward")
        if getattr(own, "__func__", None) is type(part).forward:
            del part.__dict__["forward"]  # it is the class's own, which a stream may replace
    module.__dict__.pop("hf_device_map", None)  # TransformerLens would move inputs by it

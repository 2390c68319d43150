"""What a checked model is made of: tells whether it is still what was checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from interp import compat
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.parts import Affine, Norm
from interp.rotary import Rotary
from interp.running import parts_of

Place = tuple[nn.Module, str]  # a module and the name of one of its parameters

_COPIED = ("eps", "variance_epsilon", "scaling", "forward")  # what an anatomy holds of a module besides its weights
_PROCESSED = ("compatibility_mode", "_weights_processed")  # what TransformerLens notes when it rewrites weights
_SAMPLED = 4096  # elements of a weight


def fingerprint(model: Any, read: Collection[Place]) -> tuple[Any, ...]:
    """A bridge's modules, the dtypes and devices of their tensors, torch's hooks on them, and the configuration.

    The weights in `read` may change, since the anatomy reads them live. Of all others (a LoRA's, an adapter's) a
    sample of the values belongs to the fingerprint: as long as they are zero the model may be what it was read as.

    A fingerprint keeps the modules alive, but not the bridge itself, so that a cache may forget it. Takes about 2 ms
    for the 2,000 modules of SmolLM2-135M.

    Raises `InputError` for hooks on the bridge, which circuits would ignore.
    """
    from transformer_lens.hook_points import HookPoint

    facts: list[Any] = [repr(model.original_model.config.__dict__)]
    facts += [model.__dict__.get(name) for name in _PROCESSED]
    unread: list[Tensor] = []
    for part in (parts := parts_of(model)):
        own = part.__dict__
        if type(part) is HookPoint:  # most parts are, and hold nothing else
            if own["fwd_hooks"] or own["bwd_hooks"]:
                _refuse_hooks(part)
        else:
            facts += map(own.get, _COPIED)
            if own["_buffers"]:
                facts += _kinds(own["_buffers"])
            if parameters := own["_parameters"]:
                facts += _kinds(parameters)
                unread += [one for name, one in parameters.items() if one is not None and (part, name) not in read]
        if own["_forward_hooks"] or own["_forward_pre_hooks"]:
            facts += [*own["_forward_hooks"], *own["_forward_pre_hooks"]]
    parts.remove(model)
    return (*parts, *facts, *_sample(unread))


def _kinds(tensors: Mapping[str, Tensor | None]) -> list[Any]:
    return [(one.dtype, one.device, one.is_inference()) for one in tensors.values() if one is not None]


def edition(model: Any) -> tuple[tuple[int, int], ...]:
    """Where each weight lies, and how often torch counted a change of it: another one after an edit.

    Edits in place behind torch's back (`weight.data[0] = 0`, `weight.numpy()[0] = 0`) are not counted.
    """
    held = (part.__dict__["_parameters"] for part in parts_of(model))
    weights = [one for parameters in held if parameters for one in parameters.values() if one is not None]
    return tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in weights)


def read_of(anatomy: Anatomy, model: Any) -> frozenset[Place]:
    """The parameters that an anatomy reads live, and those of modules that it runs as they are."""
    found = set(_places(anatomy))
    for name in ("embed", "pos_embed"):
        if hasattr(model, name):
            found |= set(_all_places(getattr(model, name)))
    return frozenset(found)


def _places(value: Any) -> Iterator[Place]:
    if isinstance(value, Affine | Norm):
        yield value.module, "weight"
        yield value.module, "bias"
    elif isinstance(value, nn.Module):
        yield from _all_places(value)
    elif isinstance(value, Rotary):
        return  # it reads buffers alone
    elif isinstance(value, tuple):
        for each in value:
            yield from _places(each)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _places(getattr(value, field.name))


def _all_places(module: nn.Module) -> Iterator[Place]:
    return ((part, name) for part in module.modules() for name in compat.parameters_of(part))


@torch.no_grad()
def _sample(tensors: list[Tensor]) -> list[float]:
    """A sum over some elements of each: changes with all that training, or a new draw, does."""
    there = [one for one in tensors if not one.is_meta]  # what streams is as its files are
    sums = [one.flatten()[:: max(1, one.numel() // _SAMPLED)].double().sum().cpu() for one in there]
    return torch.stack(sums).tolist() if sums else []


def _refuse_hooks(point: Any) -> None:
    for handle in (*point.fwd_hooks, *point.bwd_hooks):
        # the bridge wires some architectures (OPT) with permanent hooks of its own
        if not compat.home_of_hook(handle).startswith("transformer_lens."):
            raise InputError(
                f"model carries a hook at {point.name}, which a circuit would silently ignore; "
                "take it off with model.reset_hooks(), or edit the weights instead"
            )


def _tensors(part: nn.Module) -> list[Tensor]:
    return [one for one in (*compat.parameters_of(part).values(), *compat.buffers_of(part).values()) if one is not None]


def refuse_inference(model: Any) -> None:
    """Raise `InputError` for a model made in inference mode: no gradient goes through such tensors."""
    for part in parts_of(model):
        if any(tensor.is_inference() for tensor in _tensors(part)):
            raise InputError(
                f"model holds tensors that were made inside torch.inference_mode (in a {type(part).__name__}), through "
                "which no gradient goes; make, copy or cast it outside, or hand a language model to interp.load_model"
            )

"""What a call can leave behind on a model."""

from __future__ import annotations

from typing import Any


def state(model: Any) -> tuple[Any, ...]:
    """Modes, gradients, hooks of both kinds, methods put on modules, how often torch saw weights edited."""
    parts = {}
    for name, module in model.named_modules():
        parts[name] = (
            module.training,
            len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks),
            {key: id(value) for key, value in module.__dict__.items() if callable(value)},
            {key: id(value) for key, value in type(module).__dict__.items() if callable(value)},
        )  # fmt: skip
    hooks = {name: (len(point.fwd_hooks), len(point.bwd_hooks)) for name, point in model.hook_dict.items()}
    parameters = {name: (p.requires_grad, p._version, id(p)) for name, p in model.named_parameters()}
    return parts, hooks, parameters

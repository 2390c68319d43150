"""Dictionaries at the modules of transformers themselves, by hooks that know nothing of our kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

# architecture, place (tests.dictionaries), what writes, the norm that a transcoder reads in front of its gain
HOOKED: list[tuple[str, str, str, str]] = [
    ("llama", "transcoder", "layers.2.mlp", ""),
    ("llama", "residual", "layers.0", ""),
    ("llama", "attention", "layers.1.self_attn", ""),
    ("gemma2", "mlp-added", "layers.2.post_feedforward_layernorm", ""),
    ("gemma2", "transcoder-scope", "layers.0.post_feedforward_layernorm", "layers.0.pre_feedforward_layernorm"),
    ("gemma2", "mlp", "layers.1.mlp", ""),
]


@contextlib.contextmanager
def hooked(
    module: Any, place: str, writes: str, reads: str, replace: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """`replace(read, written)` gives what the module writes instead."""
    seen: dict[str, Any] = {}

    def listen(norm: Any, arguments: Any) -> None:
        (x,) = arguments
        seen["x"] = x / (x.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()

    def change(part: Any, arguments: Any, output: Any) -> Any:
        out = output[0] if isinstance(output, tuple) else output
        read = seen.get("x", arguments[0] if arguments and place == "transcoder" else out)
        new = replace(read, out)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handles = [module.get_submodule(writes).register_forward_hook(change)]
    handles += [module.get_submodule(reads).register_forward_pre_hook(listen)] if reads else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_logits(model: Any, tokens: Tensor) -> Tensor:
    """The module's own logits at the last position."""
    logits: Tensor = model.original_model(tokens).logits
    return logits[:, -1]

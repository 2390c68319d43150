"""Loading a folder as a model whose weights are streamed, checked on its first layers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from interp import boot, compat
from interp.errors import InputError
from interp.inspection import anatomy_of, trust
from interp.streaming.checkpoint import Stored, read_folder
from interp.streaming.modules import empty_module, shapes_of, stream_of, stream_weights, weights_of
from interp.streaming.split import boot_split
from interp.streaming.stream import Stream

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_CHECKED_WORDS = 256  # tokens of the vocabulary that the model is checked with


def load_streamed(
    folder: Path, tokenizer: Any | None, name: str, device: torch.device, dtype: torch.dtype
) -> TransformerBridge:
    """A bridge around the model in `folder`; nothing but its vectors is read for good.

    The architecture is checked on a model of its first layers and first tokens, with their own weights, as
    `interp.models.load_model` and the first use check a whole one.

    Raises `InputError` where the folder is no causal language model, lacks weights or is damaged.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(
            f"source={str(folder)!r} holds quantised weights, which cannot be streamed; give weights='loaded', or the "
            "model in half precision"
        )
    load = functools.partial(_Folder, folder, read_folder(folder), device, dtype)
    first = load(_cut(config))
    before = first.logits()
    bridge = first.bridge(None, name)
    boot.refuse_changed(before, bridge)
    anatomy_of(bridge)
    first.release()
    whole = load(config).bridge(tokenizer, name)
    trust(whole)
    return whole


def hollow_model(config: Any, tokenizer: Any | None, name: str, dtype: torch.dtype) -> TransformerBridge:
    """A bridge of a configuration alone: it knows its shapes, and refuses to run."""
    whole = _Folder(None, {}, torch.device("cpu"), dtype, config).bridge(tokenizer, name)
    trust(whole)
    return whole


class _Folder:
    """The model of a configuration, with the weights in a folder; None: without any."""

    def __init__(
        self, folder: Path | None, tensors: Mapping[str, Stored], device: torch.device, dtype: torch.dtype, config: Any
    ) -> None:
        self.folder, self.tensors, self.device, self.dtype, self.config = folder, tensors, device, dtype, config
        self._streams: list[Stream] = []

    def module(self) -> nn.Module:
        """The module of transformers, which streams its weights."""
        module = empty_module(copy.deepcopy(self.config), self.dtype)
        weights = shapes_of(module) if self.folder is None else weights_of(module, self.tensors, str(self.folder))
        compat.fill_fused_bias(module)
        stream_weights(module, weights, self.device, self.dtype)
        self._streams.append(stream_of(module))
        boot.suit_experts(module, self.dtype)
        return module

    def logits(self) -> torch.Tensor | None:
        """Of a random prompt, as transformers computes them."""
        module = self.module()
        return boot.logits_of(module, module)

    def bridge(self, tokenizer: Any | None, name: str) -> TransformerBridge:
        """The same as a bridge."""
        module = self.module()
        architecture = boot.check_module(module)
        weight = torch.empty(0, device=self.device, dtype=self.dtype)
        wrap = functools.partial(boot.wrap, module, architecture, tokenizer, name, weight)
        bridge: TransformerBridge = boot_split(module, wrap)
        return bridge

    def release(self) -> None:
        """Give back what its modules hold: they lie in circles, and might stay long after the last use."""
        for stream in self._streams:
            stream.release()


def _cut(config: Any) -> Any:
    """The configuration of the first layers, one of each type at least, and of the first tokens."""
    short = copy.deepcopy(config)
    types = list(getattr(config, "layer_types", None) or ())
    layers = min(config.num_hidden_layers, 2)
    while set(types[:layers]) != set(types):
        layers += 1
    short.num_hidden_layers = layers
    if types:
        short.layer_types = types[:layers]
    short.vocab_size = min(config.vocab_size, _CHECKED_WORDS)
    for special in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(short, special, None)
    return short

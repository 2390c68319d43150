"""How the time of `eap` grows with prompts, length and depth, beside two forwards and a backward at each size."""

from __future__ import annotations

from typing import Any

import torch

from attribution import attribute
from benchmarks.common import HEADER, Plain, interleave, line, load, plain_of, random_task
from interp import load_model


def _row(name: str, model: Any, plain: Plain, n: int, length: int) -> None:
    task = random_task(n, length, model.cfg.d_vocab)
    prompts = task.prompts(model)

    def floor() -> None:
        for rows in torch.arange(n).split(16):  # in batches that fit, as ours are
            plain.forward(prompts.corrupted[rows])
            plain.forward_backward(prompts.clean[rows])

    line(name, interleave(lambda: attribute(model, task, "eap", quiet=True), floor, 3), "")


def _deep(layers: int) -> Any:
    """A random Llama of SmolLM2's width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    return load_model(LlamaForCausalLM(config))


def main() -> None:
    """Print the table."""
    model, plain = load()
    print("Growth of eap (random prompts, no shared prefix)")
    print(HEADER)
    for n in (16, 32, 64, 128):
        _row(f"{n} prompts of 15 tokens", model, plain, n, 15)
    for length in (16, 64, 256):
        _row(f"8 prompts of {length} tokens", model, plain, 8, length)
    for layers in (6, 12, 24, 48):
        deep = _deep(layers)
        _row(f"{layers} layers, 16 prompts of 15", deep, plain_of(deep), 16, 15)


if __name__ == "__main__":
    main()

"""A tiny random GPT-2 with so few edges that each can be patched exactly: edge importances that are known."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp import Task, load_model
from interp.kernels.answers import answer_logits

VOCAB, LENGTH = 53, 7


def tiny_circuit(n: int, seed: int = 0) -> tuple[Any, Task]:
    """A model with two layers of two heads, and up to `n` random prompts, each answered as the model answers it.

    The correct answer is what the model says to the clean prompt, the incorrect one what it says to the corrupted
    one, so that every prompt loses something when it is corrupted.
    """
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24, "n_positions": 32}
    module = GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False, **sizes)
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        # large weights, so that every edge does something
        noise = 0.3 * torch.randn(parameter.shape, generator=generator)
        parameter.data = noise + 1 if parameter.ndim == 1 and name.endswith("weight") else noise
    model = load_model(module.eval())
    clean = torch.randint(VOCAB, (4 * n, LENGTH), generator=generator)
    corrupted = clean.clone()
    corrupted[:, [1, 2, 4]] = torch.randint(VOCAB, (4 * n, 3), generator=generator)
    prompts = Task.from_tokens("unanswered", clean, corrupted, [0] * 4 * n, [1] * 4 * n).prompts(model)
    right, wrong = (answer_logits(model, one).argmax(1).tolist() for one in (prompts, prompts.turned()))
    kept = [i for i in range(4 * n) if right[i] != wrong[i]][:n]
    answers = ([[found[i]] for i in kept] for found in (right, wrong))
    return model, Task.from_tokens("own answers", clean[kept], corrupted[kept], *answers)

"""A tiny model in which some neurons, known ones, decide which of two answers is likelier, and no other part does.

Two places of the residual stream are theirs alone. One holds what the last token says, 1 or -1, the other the answer:
planted neurons read the first and write to the second, and the two answers' unembeddings differ there and nowhere else.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from interp.models import load_model
from interp.tasks.task import Task
from tests.tiny import VOCAB, stay_in_float64, tiny_module

PLANTED = ((0, 3), (0, 11), (1, 5), (2, 20))  # layer, neuron
YES, NO, ASKS_YES, ASKS_NO = 5, 6, 7, 8
SAID, ALWAYS, ANSWER = 0, 1, 2  # places of the residual stream


@functools.cache
def planted_model() -> Any:
    module = tiny_module("llama")
    inner = module.model
    with torch.no_grad():
        module.lm_head.weight[NO] = module.lm_head.weight[YES]
        module.lm_head.weight[:, [SAID, ALWAYS, ANSWER]] = 0
        module.lm_head.weight[YES, ANSWER], module.lm_head.weight[NO, ANSWER] = 2.0, -2.0
        inner.embed_tokens.weight[:, [SAID, ANSWER]] = 0
        inner.embed_tokens.weight[:, ALWAYS] = 2.0
        inner.embed_tokens.weight[ASKS_YES, SAID], inner.embed_tokens.weight[ASKS_NO, SAID] = 2.0, -2.0
        inner.norm.weight[:] = 1
        for layer, block in enumerate(inner.layers):
            block.input_layernorm.weight[:] = block.post_attention_layernorm.weight[:] = 1
            for written in (block.self_attn.o_proj, block.mlp.down_proj):
                written.weight *= 0.2
                written.weight[[SAID, ALWAYS, ANSWER]] = 0
            for read in (block.mlp.gate_proj, block.mlp.up_proj):
                read.weight[:, [SAID, ANSWER]] = 0
            for _, neuron in (one for one in PLANTED if one[0] == layer):
                block.mlp.gate_proj.weight[neuron] = block.mlp.up_proj.weight[neuron] = 0
                block.mlp.gate_proj.weight[neuron, ALWAYS] = block.mlp.up_proj.weight[neuron, SAID] = 1.0
                block.mlp.down_proj.weight[:, neuron] = 0
                block.mlp.down_proj.weight[ANSWER, neuron] = 0.1
    model = load_model(module)
    stay_in_float64(model)
    return model


def planted_questions(n: int = 24, seed: int = 0) -> Task:
    """Random prompts that end with one of two tokens, which says which answer is the right one; both equally often."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(9, VOCAB, (n, 6), generator=generator)
    yes = torch.arange(n) % 2 == 0
    prompts[:, -1] = torch.where(yes, ASKS_YES, ASKS_NO)
    corrupted = prompts.clone()
    corrupted[:, -1] = torch.where(yes, ASKS_NO, ASKS_YES)
    right, wrong = torch.where(yes, YES, NO), torch.where(yes, NO, YES)
    return Task.from_tokens("planted", prompts, corrupted, right[:, None].tolist(), wrong[:, None].tolist())

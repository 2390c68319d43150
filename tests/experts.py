"""Mixtures of experts for tests: one whose experts are known by construction, and others as they are saved."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from interp.tasks.task import Task
from tests.tiny import VOCAB, tiny_module

CONTEXT, MEMORY, NEITHER = 5, 6, 7  # last tokens of prompts
EXPERT = {CONTEXT: 2, MEMORY: 0, NEITHER: 1}  # of the last layer, to which the router sends them
EXPERTS = 4


def planted_module(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Two layers, four experts, one a token. Of the last layer 2 and 0 write something; attention does not."""
    module: Any = tiny_module("mixtral", dtype, num_hidden_layers=2, num_local_experts=EXPERTS, num_experts_per_tok=1)
    words = module.model.embed_tokens.weight.data
    for layer in module.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    first, last = (layer.mlp.experts.down_proj.data for layer in module.model.layers)
    first.zero_()
    last[[1, 3]] = 0
    last *= 5
    gate = module.model.layers[1].mlp.gate.weight.data
    gate.zero_()
    norm = module.model.layers[1].post_attention_layernorm.weight.data
    # of tokens that point elsewhere, one each: what no other token has in common with it
    among = torch.stack([words[token] * norm for token in EXPERT])
    gate[list(EXPERT.values())] = torch.linalg.pinv(among).T * 20
    return module


def undecided_module() -> nn.Module:
    """The same with two experts a token: at `NEITHER` the router weighs expert 0 most, and 2 less."""
    module = planted_module(torch.float32)
    words, norm = module.model.embed_tokens.weight.data, module.model.layers[1].post_attention_layernorm.weight.data
    among = torch.linalg.pinv(torch.stack([words[token] * norm for token in EXPERT])).T[list(EXPERT).index(NEITHER)]
    gate = module.model.layers[1].mlp.gate
    gate.weight.data = torch.stack([2 * among, 0 * among, among, -among])
    gate.top_k = 2
    return module


def planted_task(model: Any, token: int, n: int = 4) -> Task:
    """Prompts that end in a token, against the same with `NEITHER`; the answer is what the token's expert writes."""
    generator = torch.Generator().manual_seed(token)
    clean = torch.randint(8, VOCAB, (n, 5), generator=generator)
    clean[:, -1] = token
    corrupted = clean.clone()
    corrupted[:, -1] = NEITHER
    with torch.no_grad():
        gain = model(clean)[:, -1] - model(corrupted)[:, -1]
    return Task.from_tokens("planted", clean, corrupted, gain.argmax(1), gain.argmin(1))


def moe_module(kind: str, dtype: torch.dtype = torch.float32, **settings: Any) -> nn.Module:
    """A tiny random mixture of a transformers type: `qwen3_moe`, `olmoe`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {
        "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2,
        "max_position_embeddings": 32, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    config = AutoConfig.for_model(kind, **{**given, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()

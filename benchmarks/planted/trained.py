"""The models trained under interchange intervention: which program, planted where, in which transformer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution import attribute
from benchmarks.planted.siit import Causal, Recipe, Swaps, measure, train
from benchmarks.planted.writing import gpt2_config
from circuits.planted.models import FOLDER, empty, save
from circuits.planted.programs import DIGITS, EQUALS, PROGRAMS
from interp import ComputationalGraph, load_model

PORTS = ("<q>", "<k>", "<v>")
SHARE = 0.05  # a planted link's port is in the truth if patching it alone matters more than this share of the largest


@dataclass(frozen=True)
class Plan:
    """A program's variables in nodes of a model, and the links between them, node by node."""

    config: dict[str, Any]
    causal: Causal
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    description: str
    recipe: Recipe


def _pick(swap: Tensor, base: Tensor, other: Tensor) -> Tensor:
    return torch.where(swap, other, base)


def greater(base: Tensor, other: Tensor, swaps: Swaps) -> Tensor:
    """first (a0.h1) and third (a0.h2) digit, and whether the first is greater (m1)."""
    first = _pick(swaps["a0.h1"], base[:, 1], other[:, 1])
    third = _pick(swaps["a0.h2"], base[:, 3], other[:, 3])
    greater = _pick(swaps["m1"], first > third, other[:, 1] > other[:, 3])
    return torch.where(greater, DIGITS + 2, DIGITS + 3)


def sum_of_three(base: Tensor, other: Tensor, swaps: Swaps) -> Tensor:
    """Digits (a0.h0, a0.h3, a1.h1), the sum of the first two (m0) and of all three (m1)."""
    first, second, third = (
        _pick(swaps[node], base[:, at], other[:, at]) - 1 for node, at in (("a0.h0", 1), ("a0.h3", 3), ("a1.h1", 5))
    )
    two = _pick(swaps["m0"], first + second, other[:, 1] + other[:, 3] - 2)
    return _pick(swaps["m1"], two + third + 1, PROGRAMS["sum"].answer(other))


PLANS = {
    "greater": Plan(
        config=gpt2_config(2, 4, 32, 64, DIGITS + 4, 6) | {"activation_function": "gelu_new"},
        causal=greater,
        nodes=("a0.h1", "a0.h2", "m1"),
        links=("input->a0.h1", "input->a0.h2", "a0.h1->m1", "a0.h2->m1", "m1->logits"),
        description="a0.h1 holds the first digit, a0.h2 the third, and m1 whether the first is greater.",
        recipe=Recipe(steps=3000),
    ),
    "sum": Plan(
        config={
            "model_type": "llama",
            "vocab_size": EQUALS + 1,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 8,
            "initializer_range": 0.1,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": None,
        },
        causal=sum_of_three,
        nodes=("a0.h0", "a0.h3", "m0", "a1.h1", "m1"),
        links=(
            "input->a0.h0", "input->a0.h3", "a0.h0->m0", "a0.h3->m0",
            "input->a1.h1", "m0->m1", "a1.h1->m1", "m1->logits",
        ),
        description="a0.h0 and a0.h3 hold the first and third digit, m0 their sum, a1.h1 the fifth, m1 the sum of all.",
        recipe=Recipe(steps=800, batch=64, rate=5e-3),
    ),
}  # fmt: skip


def main(name: str) -> None:
    """Train a model and write its file."""
    plan, program = PLANS[name], PROGRAMS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.recipe.seed)
        module = empty(plan.config)
        train(module, program, plan.causal, plan.nodes, plan.recipe)
    measured = measure(module, program, plan.causal, plan.nodes)
    print(measured)
    edges = true_edges(module, name, plan.links)
    print(save(FOLDER, name, module, plan.config, edges, plan.description, "trained", measured))


def true_edges(module: nn.Module, name: str, links: Sequence[str]) -> list[str]:
    """The edges of the planted links; of a head's q, k and v those through which the link acts, by exact patching."""
    model = load_model(copy.deepcopy(module))  # it would be wrapped in place
    graph, task = ComputationalGraph.of(model), PROGRAMS[name].task(256, seed=2)
    candidates = []
    for link in links:
        into_head = link.partition("->")[2].startswith("a")
        candidates += [link + port for port in PORTS] if into_head else [link]
    exact = attribute(model, task, "exact", edges=candidates, quiet=True).values
    effects = {edge: float(exact[graph.edge_index(edge)]) for edge in candidates}
    print({edge: round(effect, 3) for edge, effect in effects.items()})
    return [edge for edge, effect in effects.items() if effect > SHARE * max(effects.values())]

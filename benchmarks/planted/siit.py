"""Strict interchange intervention training (Gupta et al. 2024, arXiv:2407.14494; after Geiger et al. 2022).

A program's variables are planted in nodes (heads, MLPs) of a model. Three losses are minimised together: behaviour
(the program's answer on plain prompts); interchange (planted nodes take the values that they have on another prompt:
the answer is what the program gives with those variables from the other prompt); strictness (nodes that are not
planted take such values: the logits stay as they are).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from circuits.planted.programs import Program

Swaps = dict[str, Bool[Tensor, " n"]]  # for each planted node: whose value comes from the other prompt
Causal = Callable[[Tensor, Tensor, Swaps], Tensor]  # (prompts, other prompts, swaps) to answers


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: weights of the losses, and the optimiser's settings."""

    steps: int = 3000
    batch: int = 128
    rate: float = 3e-3
    interchange: float = 1.0
    strictness: float = 1.0
    seed: int = 0


class Nodes:
    """Reads and replaces what the heads and MLPs of a GPT-2 or Llama module write."""

    def __init__(self, module: nn.Module) -> None:
        self.module, config = module, module.config
        self.n_heads, body = config.num_attention_heads, getattr(module, "transformer", None) or module.model
        self.blocks = list(body.h if hasattr(body, "h") else body.layers)
        self.names = [
            name
            for layer in range(len(self.blocks))
            for name in (*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}")
        ]

    def run(
        self, prompts: Tensor, swap: Bool[Tensor, "n node"] | None = None, values: Sequence[Tensor] = ()
    ) -> tuple[Float[Tensor, "n vocabulary"], list[Tensor]]:
        """Logits of the next token and what each attention (before its output map) and MLP wrote, layer by layer.

        Where `swap` is true, a node's output is taken from `values`, what another run returned, at every position.
        """
        written: list[Tensor] = []
        with self._hooks(written, swap, values):
            logits = self.module(input_ids=prompts, use_cache=False, logits_to_keep=1).logits[:, -1]
        return logits, written

    @contextlib.contextmanager
    def _hooks(self, written: list[Tensor], swap: Tensor | None, values: Sequence[Tensor]) -> Iterator[None]:
        handles, per_layer = [], self.n_heads + 1

        def attention(layer: int, own: Tensor) -> Tensor:
            if swap is not None:
                mask = swap[:, layer * per_layer : layer * per_layer + self.n_heads]
                mask = mask.repeat_interleave(own.shape[-1] // self.n_heads, 1)[:, None]
                own = torch.where(mask, values[2 * layer], own)
            written.append(own)
            return own

        def mlp(layer: int, own: Tensor) -> Tensor:
            if swap is not None:
                own = torch.where(swap[:, layer * per_layer + self.n_heads, None, None], values[2 * layer + 1], own)
            written.append(own)
            return own

        try:
            for i, block in enumerate(self.blocks):
                out = block.attn.c_proj if hasattr(block, "attn") else block.self_attn.o_proj
                handles.append(out.register_forward_pre_hook(lambda _, args, i=i: (attention(i, args[0]),)))
                handles.append(block.mlp.register_forward_hook(lambda _, __, own, i=i: mlp(i, own)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def train(module: nn.Module, program: Program, causal: Causal, planted: Sequence[str], recipe: Recipe) -> None:
    """Train a module in place, without dropout. Cost: a pass over two batches, twice, for each step."""
    nodes, generator = Nodes(module), torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    for step in range(recipe.steps):
        base, other = (program.sample(recipe.batch, generator) for _ in range(2))
        plain, written = nodes.run(torch.cat((base, other)))
        clean, values = plain.chunk(2)[0], [value.chunk(2)[1].repeat(2, 1, 1) for value in written]
        swap, answer = _interchange(nodes, base, other, causal, planted, generator)
        swap = torch.cat((swap, _rest(nodes, planted, recipe.batch, generator)))
        swapped, held = nodes.run(torch.cat((base, base)), swap, values)[0].chunk(2)
        behaviour = F.cross_entropy(clean, program.answer(base))
        interchange = F.cross_entropy(swapped, answer)
        strictness = F.cross_entropy(held, program.answer(base)) + F.mse_loss(held, clean)
        loss = behaviour + recipe.interchange * interchange + recipe.strictness * strictness
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 0 or step == recipe.steps - 1:
            print(
                f"{step:5d} behaviour {behaviour:.4f} interchange {interchange:.4f} strictness {strictness:.4f}",
                flush=True,
            )


@torch.no_grad()
def measure(
    module: nn.Module, program: Program, causal: Causal, planted: Sequence[str], n: int = 4096, seed: int = 1
) -> dict[str, float]:
    """Accuracies on fresh prompts: plain, under interchange of planted nodes, and with all other nodes swapped.

    `strictness` is the mean change of the right answer's margin over the runner-up when all other nodes are swapped,
    as a share of the margin.
    """
    nodes, generator = Nodes(module), torch.Generator().manual_seed(seed)
    base, other = (program.sample(n, generator) for _ in range(2))
    right = program.answer(base)
    clean, _ = nodes.run(base)
    _, values = nodes.run(other)
    swap, answer = _interchange(nodes, base, other, causal, planted, generator)
    swapped, _ = nodes.run(base, swap, values)
    rest = torch.tensor([name not in planted for name in nodes.names]).expand(n, -1)
    held, _ = nodes.run(base, rest, values)
    margin = _margin(clean, right)
    return {
        "accuracy": float((clean.argmax(1) == right).double().mean()),
        "interchange accuracy": float((swapped.argmax(1) == answer).double().mean()),
        "accuracy, others swapped": float((held.argmax(1) == right).double().mean()),
        "margin's change, others swapped": float((_margin(held, right) - margin).abs().mean() / margin.mean()),
    }


def _margin(logits: Tensor, right: Tensor) -> Tensor:
    best = logits.scatter(1, right[:, None], -torch.inf).amax(1)
    return logits.gather(1, right[:, None])[:, 0] - best


def _interchange(
    nodes: Nodes, base: Tensor, other: Tensor, causal: Causal, planted: Sequence[str], generator: Generator
) -> tuple[Tensor, Tensor]:
    """For each prompt a random set of planted nodes, at least one, and the program's answer with them interchanged."""
    n = len(base)
    drawn = torch.rand(n, len(planted), generator=generator)
    chosen = (drawn < 0.3) | (drawn == drawn.amin(1, keepdim=True))
    swap = torch.zeros(n, len(nodes.names), dtype=torch.bool)
    for i, name in enumerate(planted):
        swap[:, nodes.names.index(name)] = chosen[:, i]
    return swap, causal(base, other, {name: chosen[:, i] for i, name in enumerate(planted)})


def _rest(nodes: Nodes, planted: Sequence[str], n: int, generator: Generator) -> Tensor:
    """For each prompt a random set of nodes that are not planted."""
    share = torch.rand(n, 1, generator=generator)
    swap = torch.rand(n, len(nodes.names), generator=generator) < share
    return swap & torch.tensor([name not in planted for name in nodes.names])

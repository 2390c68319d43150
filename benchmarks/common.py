"""What the benchmarks share: the model, the prompts, the plain model as a floor, and interleaved timing."""

from __future__ import annotations

import contextlib
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from attribution import gradients
from interp import Task, load_model

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "eap_smollm2_ioi16.safetensors"


def golden_task() -> Task:
    """Sixteen IOI prompts of fifteen tokens, the ones that the reference was timed on."""
    with safe_open(GOLDEN, "pt") as file:
        metadata = file.metadata()
        clean, corrupted = file.get_tensor("clean_tokens"), file.get_tensor("corrupted_tokens")
    answers = [[[i] if isinstance(i, int) else i for i in json.loads(metadata[k])] for k in ("correct", "incorrect")]
    return Task.from_tokens("ioi16", clean, corrupted, *answers)


def random_task(n: int, length: int, vocabulary: int, seed: int = 0) -> Task:
    """Random prompts whose second token is exchanged: nearly no shared prefix, the worst case."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(vocabulary, (n, length), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 1] = (clean[:, 1] + 1) % vocabulary
    return Task.from_tokens("random", clean, corrupted, [[1]] * n, [[2]] * n)


@dataclass(frozen=True)
class Plain:
    """The unmodified transformers model: frozen, its fused attention on, unembedding the answer position alone."""

    module: nn.Module

    def forward(self, tokens: Tensor) -> None:
        """One forward pass without gradients."""
        with torch.no_grad():
            self.module(input_ids=tokens, logits_to_keep=1, use_cache=False)

    def forward_backward(self, tokens: Tensor) -> None:
        """One forward and one backward pass down to the embedding, without parameter gradients."""
        embedding = self.module.get_input_embeddings()(tokens).detach().requires_grad_()
        logits = self.module(inputs_embeds=embedding, logits_to_keep=1, use_cache=False).logits
        torch.autograd.grad(logits[:, -1, 0].sum(), embedding)


def load(dtype: str = "float32") -> tuple[Any, Plain]:
    """SmolLM2-135M twice, on a GPU where there is one: as the toolkit loads it, and as transformers runs it."""
    model = load_model("smollm2-135m", dtype=dtype)
    return model, plain_of(model)


def plain_of(model: Any) -> Plain:
    """An untouched transformers module with the weights of a loaded model."""
    config = copy.deepcopy(model.original_model.config)
    config._attn_implementation = "sdpa"
    weight = next(model.original_model.parameters())
    module = type(model.original_model)(config).to(weight.device, weight.dtype)
    own = {name.replace("._original_component", ""): p for name, p in model.original_model.named_parameters()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(own[name])
    return Plain(module.eval().requires_grad_(False))


@dataclass(frozen=True)
class Ratio:
    """Two things timed in turn, pair by pair, so that a drift of the machine's speed cancels."""

    ours: list[float]
    floor: list[float]

    @property
    def median(self) -> float:
        """Median of the pairs' ratios."""
        return statistics.median(a / b for a, b in zip(self.ours, self.floor, strict=True))

    def __str__(self) -> str:
        ratios = sorted(a / b for a, b in zip(self.ours, self.floor, strict=True))
        return (
            f"{statistics.median(self.ours):8.3f} s {statistics.median(self.floor):8.3f} s "
            f"{self.median:7.2f}  [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        )


def interleave(ours: Callable[[], Any], floor: Callable[[], Any], repeats: int = 7) -> Ratio:
    """Time both in turn after one warm-up of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for work, kept in zip((ours, floor), times, strict=True):
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                kept.append(time.perf_counter() - started)
    return Ratio(*times)


HEADER = f"{'':34s} {'ours':>10s} {'floor':>10s} {'ratio':>7s}  [least, most]   aim"


@contextlib.contextmanager
def contraction_timed(clock: Callable[[], float] = time.perf_counter) -> Iterator[list[float]]:
    """While the block runs, how many seconds each contraction takes."""
    plain, taken = gradients.contract, list[float]()

    def timed(*arguments: Any) -> Any:
        started = clock()
        try:
            return plain(*arguments)
        finally:
            taken.append(clock() - started)

    gradients.contract = timed
    try:
        yield taken
    finally:
        gradients.contract = plain


Row = tuple[str, Ratio, str]  # what was timed, how long it took, and the aim


def line(name: str, ratio: Ratio, aim: str) -> None:
    """Print one row of a table."""
    print(f"{name:34s} {ratio}   {aim}", flush=True)

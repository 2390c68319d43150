"""Training some weights of a language model to answer: prompts, answers, and a loss on the answers' tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp import numbers
from interp.errors import InputError, short
from interp.keywords import told
from interp.progress import progress


class TuningKeywords(TypedDict, total=False):
    """The keywords of `Tuning`, as public functions take them."""

    epochs: int
    learning_rate: float
    batch_size: int
    warm_up: float
    seed: int


@dataclass(frozen=True)
class Tuning:
    """How weights are tuned; the defaults are those of Router Lens (arXiv:2508.19594).

    Attributes:
        epochs: how often each prompt is seen.
        learning_rate: of AdamW without weight decay, at its highest.
        batch_size: prompts a step.
        warm_up: the share of steps in which the rate rises; then it falls as a cosine.
        seed: of the order and of what peft draws.

    Raises `InputError` for numbers that cannot be.
    """

    epochs: int = 3
    learning_rate: float = 5e-4
    batch_size: int = 8
    warm_up: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        numbers.settle(self, epochs=numbers.COUNT, learning_rate=numbers.POSITIVE, warm_up=numbers.UNIT)

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Tuning:
        """From a function's keywords; those of others are passed over."""
        return told(cls(), keywords, TuningKeywords)


@dataclass(frozen=True)
class Answered:
    """Prompts with their answers behind them, padded on the right: ids, what is no padding, what is an answer."""

    ids: Int[Tensor, "n pos"]
    attention: Bool[Tensor, "n pos"]
    answer: Bool[Tensor, "n pos"]

    @classmethod
    def of(cls, prompts: Any, answers: Any) -> Answered:
        """Raises `InputError` for what is no ids, and for prompts or answers of no token."""
        asked, given = _ids("prompts", prompts), _ids("answers", answers)
        if len(asked) != len(given):
            raise InputError(f"answers must be ids for each of {len(asked)} prompts; there are {len(given)}")
        longest = max(len(one) + len(other) for one, other in zip(asked, given, strict=True))
        ids = torch.zeros(len(asked), longest, dtype=torch.long, device="cpu")
        attention, answer = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
        for row, (prompt, own) in enumerate(zip(asked, given, strict=True)):
            end = len(prompt) + len(own)
            ids[row, :end] = torch.tensor([*prompt, *own], device="cpu")
            attention[row, :end], answer[row, len(prompt) : end] = True, True
        return cls(ids, attention, answer)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Answered]:
        """All once, in random order."""
        for rows in torch.randperm(len(self.ids), generator=generator, device="cpu").split(size):
            yield Answered(self.ids[rows], self.attention[rows], self.answer[rows])

    def loss(self, module: nn.Module) -> Float[Tensor, ""]:
        """Mean cross-entropy of the answers' tokens."""
        device = next(module.parameters()).device
        logits = module(self.ids.to(device), attention_mask=self.attention.to(device), use_cache=False).logits
        here = self.answer[:, 1:].to(device)
        return F.cross_entropy(logits[:, :-1][here].float(), self.ids[:, 1:].to(device)[here])


def tune(
    module: nn.Module, weights: Sequence[nn.Parameter], data: Answered, how: Tuning, description: str, quiet: bool
) -> list[float]:
    """Train some weights of a module, and no others; the loss of each step."""
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW(weights, lr=how.learning_rate, weight_decay=0.0)
    steps = how.epochs * -(-len(data.ids) // how.batch_size)
    rate = get_cosine_schedule_with_warmup(optimizer, round(how.warm_up * steps), steps)
    generator = torch.Generator().manual_seed(how.seed)
    losses = []
    with progress(description, steps, quiet) as bar:
        for _ in range(how.epochs):
            for batch in data.batches(how.batch_size, generator):
                loss = batch.loss(module)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rate.step()
                losses.append(float(loss.detach()))
                bar.advance()
    return losses


def _ids(name: str, rows: Any) -> list[list[int]]:
    if isinstance(rows, Tensor):
        rows = rows.tolist()
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise InputError(f"{name}={short(rows)} must be ids: a list of them for each prompt")
    found = [numbers.many(f"{name}[{i}]", row, numbers.whole, numbers.FROM_ZERO) for i, row in enumerate(rows)]
    if not all(found):
        raise InputError(f"{name}[{found.index([])}] holds no token")
    return found

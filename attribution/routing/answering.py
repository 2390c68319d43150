"""Training some weights of a language model to answer: prompts, answers, and a loss on the answers' tokens alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp import numbers
from interp.adam_state import AdamState
from interp.errors import InputError, short
from interp.keywords import told
from interp.progress import progress
from interp.resumed import Resumed

_KEPT_EVERY = 20  # steps: a copy of all that is trained each time


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


@dataclass(frozen=True)
class TuningRun:
    """How a training is told of and kept, and what else than prompts and recipe it is a training of."""

    description: str
    quiet: bool
    resume: str | os.PathLike[str] | None
    told: dict[str, Any]

    def fingerprint(self, module: nn.Module, data: Answered, how: Tuning) -> dict[str, Any]:
        """What a file of it must be of."""
        content = torch.cat((data.ids, data.attention, data.answer), 1).cpu().contiguous().numpy().tobytes()
        sums = [float(one.detach().double().sum()) for one in module.parameters()]
        prompts = hashlib.sha256(content).hexdigest()
        return {"what": self.description, **asdict(how), **self.told, "prompts": prompts, "weights": sums}


def tune(
    module: nn.Module, weights: Sequence[nn.Parameter], data: Answered, how: Tuning, run: TuningRun
) -> list[float]:
    """Train some weights of a module, and no others; the loss of each step."""
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW(weights, lr=how.learning_rate, weight_decay=0.0)
    steps = how.epochs * -(-len(data.ids) // how.batch_size)
    rates = get_cosine_schedule_with_warmup(optimizer, round(how.warm_up * steps), steps).lr_lambdas[0]
    adam = AdamState(optimizer, {f"weight {number}": one for number, one in enumerate(weights)})
    losses = torch.zeros(steps, dtype=torch.float64, device="cpu")

    def state(step: int) -> dict[str, Tensor]:
        return {"step": torch.tensor(step, device="cpu"), "losses": losses.clone(), **adam.tensors()}

    file, done = None, 0
    if run.resume is not None:  # whose state is a copy of all that is trained
        file = Resumed(run.resume, state(0), run.fingerprint(module, data, how))
        adam.take(file.state)
        losses.copy_(file.state["losses"])
        done = int(file.state["step"])
    generator = torch.Generator().manual_seed(how.seed)
    batches = (one for _ in range(how.epochs) for one in data.batches(how.batch_size, generator))
    with progress(run.description, steps, run.quiet) as bar:
        bar.advance(done)
        try:
            for step, batch in enumerate(batches):
                if step < done:
                    continue
                optimizer.param_groups[0]["lr"] = how.learning_rate * rates(step)
                loss = batch.loss(module)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[step] = float(loss.detach())
                bar.advance()
                if file is not None and (step + 1) % _KEPT_EVERY == 0:
                    file.put(**state(step + 1))
        finally:
            if file is not None:
                file.save()
    return losses.tolist()


def _ids(name: str, rows: Any) -> list[list[int]]:
    if isinstance(rows, Tensor):
        rows = rows.tolist()
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise InputError(f"{name}={short(rows)} must be ids: a list of them for each prompt")
    found = [numbers.many(f"{name}[{i}]", row, numbers.whole, numbers.FROM_ZERO) for i, row in enumerate(rows)]
    if not all(found):
        raise InputError(f"{name}[{found.index([])}] holds no token")
    return found

"""What the planted models compute: prompts, answers and counterfactuals of each program, as token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from interp.tasks.task import Task

Prompts = Int[Tensor, "n pos"]


@dataclass(frozen=True)
class Program:
    """A function from prompts to answers, with a way to draw prompts.

    Attributes:
        name: what the planted model is called.
        words: a word for every token id.
        length: tokens in a prompt.
        description: one sentence for people.
        sample: `(n, generator)` to prompts.
        answer: prompts to the id of the right next token.
        corrupt: `(prompts, generator)` to counterfactuals; None for prompts drawn afresh.
    """

    name: str
    words: tuple[str, ...]
    length: int
    description: str
    sample: Callable[[int, Generator], Prompts]
    answer: Callable[[Prompts], Int[Tensor, " n"]]
    corrupt: Callable[[Prompts, Generator], Prompts] | None = None

    def pairs(self, n: int, generator: Generator) -> tuple[Prompts, Prompts]:
        """Prompts and counterfactuals with another answer."""
        clean = self.sample(n, generator)
        corrupted = clean.clone()
        same = torch.ones(n, dtype=torch.bool, device="cpu")
        while same.any():
            old = clean[same]
            corrupted[same] = self.corrupt(old, generator) if self.corrupt else self.sample(len(old), generator)
            same = self.answer(corrupted) == self.answer(clean)
        return clean, corrupted

    def task(self, n: int = 64, seed: int = 0) -> Task:
        """A task of `n` prompts; the incorrect answer is the counterfactual's."""
        clean, corrupted = self.pairs(n, torch.Generator().manual_seed(seed))
        return Task.from_tokens(
            self.name, clean, corrupted, self.answer(clean), self.answer(corrupted), seed=seed,
            description=self.description,
        )  # fmt: skip


def choice(n: int, among: int, size: int, generator: Generator) -> Int[Tensor, "n size"]:
    """`size` different numbers below `among`, in random order, `n` times."""
    return torch.rand(n, among, generator=generator, dtype=torch.float32, device="cpu").argsort(1)[:, :size]


# induction: BOS, six different letters, and one of the first five of them again; the answer is what followed it

LETTERS, CONTEXT = 11, 6


def _induction_sample(n: int, generator: Generator) -> Prompts:
    letters = choice(n, LETTERS, CONTEXT, generator) + 1
    return _asked_again(letters, generator)


def _asked_again(letters: Tensor, generator: Generator) -> Prompts:
    asked = torch.randint(CONTEXT - 1, (len(letters), 1), generator=generator, device="cpu")
    return torch.cat((torch.zeros_like(asked), letters, letters.gather(1, asked)), 1)


def _induction_answer(prompts: Prompts) -> Tensor:
    earlier = (prompts[:, :-1] == prompts[:, -1:]).int().argmax(1)
    return prompts.gather(1, earlier[:, None] + 1)[:, 0]


def _induction_corrupt(prompts: Prompts, generator: Generator) -> Prompts:
    order = choice(len(prompts), CONTEXT, CONTEXT, generator)
    return _asked_again(prompts[:, 1:-1].gather(1, order), generator)


# boolean: BOS a b c x y =; the answer is (a and b) xor c, and x and y do not matter

BOS, ZERO, ONE, ASK, TRUE, FALSE = range(6)


def _boolean_sample(n: int, generator: Generator) -> Prompts:
    bits = torch.randint(2, (n, 5), generator=generator, device="cpu") + ZERO
    return torch.cat((torch.full((n, 1), BOS, device="cpu"), bits, torch.full((n, 1), ASK, device="cpu")), 1)


def _boolean_answer(prompts: Prompts) -> Tensor:
    a, b, c = (prompts[:, i] == ONE for i in (1, 2, 3))
    return torch.where((a & b) ^ c, TRUE, FALSE)


# greater: BOS and four digits, then =; is the first digit greater than the third?

DIGITS = 8


def _greater_sample(n: int, generator: Generator) -> Prompts:
    compared = choice(n, DIGITS, 2, generator)
    others = torch.randint(DIGITS, (n, 2), generator=generator, device="cpu")
    digits = torch.stack((compared[:, 0], others[:, 0], compared[:, 1], others[:, 1]), 1) + 1
    return torch.cat((torch.full((n, 1), 0, device="cpu"), digits, torch.full((n, 1), DIGITS + 1, device="cpu")), 1)


def _greater_answer(prompts: Prompts) -> Tensor:
    return torch.where(prompts[:, 1] > prompts[:, 3], DIGITS + 2, DIGITS + 3)


# sum: BOS and five digits, then =; the answer is the sum of the first, third and fifth

BELOW = 4  # digits are smaller
EQUALS = 3 * (BELOW - 1) + 2


def _sum_sample(n: int, generator: Generator) -> Prompts:
    digits = torch.randint(BELOW, (n, 5), generator=generator, device="cpu") + 1
    return torch.cat(
        (torch.zeros(n, 1, dtype=torch.long, device="cpu"), digits, torch.full((n, 1), EQUALS, device="cpu")), 1
    )


def _sum_answer(prompts: Prompts) -> Tensor:
    return (prompts[:, [1, 3, 5]] - 1).sum(1) + 1


PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "induction", ("<bos>", *"abcdefghijk"), CONTEXT + 2,
            "Of six letters one comes again: what followed it?",
            _induction_sample, _induction_answer, _induction_corrupt,
        ),
        Program(
            "boolean", ("<bos>", "0", "1", "=", "true", "false", "yes", "no"), 7,
            "(a and b) xor c of the first three of five bits.",
            _boolean_sample, _boolean_answer,
        ),
        Program(
            "greater", ("<bos>", *map(str, range(DIGITS)), "=", "yes", "no"), 6,
            "Is the first of four digits greater than the third?",
            _greater_sample, _greater_answer,
        ),
        Program(
            "sum", ("<bos>", *map(str, range(EQUALS - 1)), "="), 7,
            "The sum of the first, third and fifth of five digits.",
            _sum_sample, _sum_answer,
        ),
    )
}  # fmt: skip

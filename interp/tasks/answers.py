"""Answers of several tokens: one row of tokens for each, teacher-forced, and the positions at which it is read.

A row is a prompt with an answer behind it, without the answer's last token, which nothing reads. Its logits are read
from the prompt's last position on: there the answer's first token is predicted. All rows of a prompt share the prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp.errors import InputError


class Reads(NamedTuple):
    """Where logits are read, one entry for each token that is predicted: in the order of rows and positions."""

    row: Int[Tensor, " read"]
    position: Int[Tensor, " read"]


@dataclass(frozen=True, eq=False)
class Answers:
    """What is predicted in each row, and whose answer it is.

    Attributes:
        prompt: int64 [row], the number of the prompt, ascending: a prompt's correct answers first.
        correct: bool [row], whether it is a correct answer.
        positions: int64 [row, answer], where logits are read, filled with -1.
        tokens: int64 [row, answer], the token that is predicted there, filled with -1.

    Raises `InputError` for shapes that do not match, and for prompts whose first row is no correct answer.
    """

    prompt: Int[Tensor, " row"]
    correct: Bool[Tensor, " row"]
    positions: Int[Tensor, "row answer"]
    tokens: Int[Tensor, "row answer"]

    def __post_init__(self) -> None:
        rows = len(self.prompt)
        if self.tokens.shape != self.positions.shape or len(self.tokens) != rows or len(self.correct) != rows:
            raise InputError(
                f"answers has {rows} rows, tokens of shape {list(self.tokens.shape)} and positions of shape "
                f"{list(self.positions.shape)}; positions and tokens must be [row, answer]"
            )
        if not bool(self.correct[self.first].all()):
            raise InputError("every prompt needs at least one correct answer, in front of its incorrect ones")

    @classmethod
    def of(cls, rows: Sequence[tuple[int, bool, Sequence[int], Sequence[int]]]) -> Answers:
        """From one `(prompt, correct, positions, tokens)` for each row."""
        prompt, correct, positions, tokens = zip(*rows, strict=True)
        return cls(
            torch.tensor(prompt, device="cpu"), torch.tensor(correct, device="cpu"), _padded(positions), _padded(tokens)
        )

    @functools.cached_property
    def first(self) -> Int[Tensor, " n"]:
        """The first row of each prompt: its first correct answer."""
        new = torch.ones_like(self.correct)
        new[1:] = self.prompt[1:] != self.prompt[:-1]
        return new.nonzero()[:, 0]

    @functools.cached_property
    def reads(self) -> Reads:
        """Where logits are read."""
        row, place = (self.tokens >= 0).nonzero(as_tuple=True)
        return Reads(row, self.positions[row, place])

    @functools.cached_property
    def read_of(self) -> Int[Tensor, "row answer"]:
        """For each token of an answer the number of its read, filled with -1."""
        there = self.tokens >= 0
        numbers = there.flatten().cumsum(0).view_as(there) - 1
        return torch.where(there, numbers, -1)

    def rows_of(self, correct: bool) -> Int[Tensor, "n k"]:
        """The rows of each prompt's correct (incorrect) answers, filled with -1; k may be 0."""
        chosen = (self.correct == correct).nonzero()[:, 0]
        groups = [chosen[self.prompt[chosen] == prompt] for prompt in self.prompt[self.first]]
        return pad_sequence(groups, batch_first=True, padding_value=-1)

    @functools.cached_property
    def correct_rows(self) -> Int[Tensor, "n k"]:
        """The rows of correct answers, filled with -1."""
        return self.rows_of(True)

    @functools.cached_property
    def incorrect_rows(self) -> Int[Tensor, "n k"]:
        """The rows of incorrect answers, filled with -1; k may be 0."""
        return self.rows_of(False)

    def select(self, prompts: Int[Tensor, " chosen"]) -> tuple[Answers, Int[Tensor, " row"]]:
        """The answers of some prompts, numbered anew in that order, and the rows that these are."""
        bounds = torch.cat((self.first, self.first.new_tensor([len(self.prompt)])))
        rows = [torch.arange(int(bounds[i]), int(bounds[i + 1]), device=self.prompt.device) for i in prompts]
        chosen = torch.cat(rows)
        counts = torch.tensor([len(some) for some in rows], device=chosen.device)
        prompt = torch.arange(len(rows), device=chosen.device).repeat_interleave(counts)
        tokens, positions = self.tokens[chosen], self.positions[chosen]
        width = int((tokens >= 0).sum(1).max())
        return Answers(prompt, self.correct[chosen], positions[:, :width], tokens[:, :width]), chosen

    def each(self, change: Callable[[Tensor], Tensor]) -> Answers:
        """The same function of all tensors."""
        return Answers(change(self.prompt), change(self.correct), change(self.positions), change(self.tokens))


def _padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "row width"]:
    tensors = [torch.tensor(list(row), dtype=torch.int64, device="cpu") for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=-1)

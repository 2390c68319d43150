"""Rows of tokens with their answers behind them, from prompts and answers that are token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.tasks.answers import Answers
from interp.tasks.examples import Example
from interp.tasks.prompts import Prompts

Ids = Sequence[int]


@dataclass
class Rows:
    """Rows of all prompts, in their order."""

    clean: list[list[int]] = field(default_factory=list)
    corrupted: list[list[int]] = field(default_factory=list)
    scored: list[tuple[int, bool, Ids, Ids]] = field(default_factory=list)  # prompt, correct, positions, tokens
    first_tokens: tuple[list[list[int]], list[list[int]]] = field(default_factory=lambda: ([], []))

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        clean: Sequence[Ids],
        corrupted: Sequence[Ids],
        correct: Sequence[Sequence[tuple[int, ...]]],
        incorrect: Sequence[Sequence[tuple[int, ...]]],
    ) -> Rows:
        """A row for each answer, teacher-forced behind both prompts; for a text that is scored itself, that text."""
        rows = cls()
        for index, example in enumerate(examples):
            if example.scored is not None:
                assert not isinstance(example.scored, str)  # spans have become positions
                rows._add_text(index, clean[index], corrupted[index], example.scored)
                continue
            for side, answers in enumerate((correct[index], incorrect[index])):
                rows.first_tokens[side].append([answer[0] for answer in answers])
                for answer in answers:
                    rows._add_answer(index, side == 0, clean[index], corrupted[index], answer)
        return rows

    def _add_answer(self, index: int, correct: bool, clean: Ids, corrupted: Ids, answer: tuple[int, ...]) -> None:
        self.clean.append([*clean, *answer[:-1]])
        self.corrupted.append([*corrupted, *answer[:-1]])
        start = len(clean) - 1
        self.scored.append((index, correct, range(start, start + len(answer)), answer))

    def _add_text(self, index: int, clean: Ids, corrupted: Ids, span: tuple[int | None, int | None]) -> None:
        positions = range(len(clean))[slice(*span)]
        positions = positions[: len(positions) - (len(positions) > 0 and positions[-1] == len(clean) - 1)]
        if not positions:
            raise InputError(
                f"prompt {index} has {len(clean)} tokens, and positions={list(span)} leaves none of them that is "
                f"followed by another; choose among 0 to {len(clean) - 2}"
            )
        if len(corrupted) < len(clean) - positions[0]:
            raise InputError(
                f"text {index} is read from position {positions[0]} on, and its corrupted version, aligned at the end, "
                f"is {len(clean) - len(corrupted)} tokens shorter and lacks that one; make it as long, or give "
                f"positions=slice({len(clean) - len(corrupted)}, None)"
            )
        tokens = [clean[position + 1] for position in positions]
        self.clean.append(list(clean))
        self.corrupted.append(list(corrupted))
        self.scored.append((index, True, positions, tokens))
        self.first_tokens[0].append(tokens[:1])
        self.first_tokens[1].append([])

    @property
    def reads(self) -> list[tuple[int, Sequence[int]]]:
        """Of each row the number of its prompt, and where logits are read."""
        return [(prompt, positions) for prompt, _, positions, _ in self.scored]

    def prompts(self, paired: bool, aligned: Int[Tensor, "row pos 2"] | None = None) -> Prompts:
        """The prompts that these rows make."""
        answers = Answers.of(self.scored)
        return Prompts.from_lists(self.clean, self.corrupted, *self.first_tokens, answers, paired, aligned)

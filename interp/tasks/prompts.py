"""Prompts: token ids of clean and corrupted prompts with their answers, as engines take them.

What is run is a row. Where all answers are one token, the rows are the prompts; where one has several, each answer has
a row of its own (`interp.tasks.answers`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp.errors import InputError
from interp.tasks.answers import Answers, Reads
from interp.tasks.counterparts import of_ends, same_positions, turned_around
from interp.tasks.sound import TENSORS, check_contents, check_shapes


@dataclass(frozen=True, eq=False)
class Prompts:
    """Tokenised prompts, padded on the right: with causal attention the padding changes nothing before it.

    Attributes:
        clean: int64 [row, pos]; a row is a prompt, or with `answers` a prompt and one of its answers.
        corrupted: int64 [row, pos], each prompt as long as its clean one unless `corrupted_lengths` says otherwise.
        lengths: int64 [row], the number of real tokens.
        correct: int64 [n, k], ids of correct answers, filled with -1; with `answers` those of their first tokens.
        incorrect: int64 [n, k'], the same of incorrect answers; k' may be 0.
        answers: the answers, where one has several tokens; else None, and the row's last position is read.
        corrupted_lengths: int64 [row], the number of real tokens of corrupted prompts of other lengths than the clean
            ones: both are aligned at their ends, if not by `aligned`. None: that of the clean ones, one to one.
        aligned: int64 [row, pos, 2], start and stop of the corrupted positions that stand for each clean one, where
            spans say so (`interp.tasks.counterparts`); `corrupted_lengths` are then given.
        paired: False where there are no corrupted prompts; `corrupted` is then `clean`.

    Raises `InputError` for shapes that do not match, no prompts, negative ids, a prompt without a correct
    answer or with one twice (from_lists counts an id once), and a corrupted prompt that equals its clean one.

    >>> prompts = Prompts.from_lists([[5, 6, 7], [5, 8]], [[5, 9, 7], [5, 9]], [[1], [2]], [[2], [1, 3]])
    >>> len(prompts), prompts.lengths.tolist(), prompts.first_difference.tolist()
    (2, [3, 2], [1, 1])
    """

    clean: Int[Tensor, "row pos"]
    corrupted: Int[Tensor, "row pos2"]
    lengths: Int[Tensor, " row"]
    correct: Int[Tensor, "n k"]
    incorrect: Int[Tensor, "n k2"]
    answers: Answers | None = None
    corrupted_lengths: Int[Tensor, " row"] | None = None
    paired: bool = True
    aligned: Int[Tensor, "row pos 2"] | None = None

    def __post_init__(self) -> None:
        check_shapes(self)
        check_contents(self)

    @classmethod
    def from_lists(
        cls,
        clean: Sequence[Sequence[int]],
        corrupted: Sequence[Sequence[int]],
        correct: Sequence[Sequence[int]],
        incorrect: Sequence[Sequence[int]],
        answers: Answers | None = None,
        paired: bool = True,
        aligned: Int[Tensor, "row pos 2"] | None = None,
    ) -> Prompts:
        """Pad lists of token ids: clean and corrupted one list per row, answers one per prompt.

        Raises `InputError` if there are not equally many.
        """
        counts = [len(clean), len(corrupted), len(correct), len(incorrect)]
        if len(set(counts)) != 1 and (answers is None or counts[0] != counts[1] or counts[2] != counts[3]):
            raise InputError(
                "clean, corrupted, correct and incorrect must have one entry per prompt; they have "
                f"{', '.join(map(str, counts))}"
            )
        if not clean:
            raise InputError("there are no prompts; at least one is needed")
        lengths, others = ([len(tokens) for tokens in side] for side in (clean, corrupted))
        if aligned is not None and same_positions(aligned, torch.tensor(lengths, device="cpu")):
            aligned = None
        return cls(
            clean=_pad(clean, 0),
            corrupted=_pad(corrupted, 0),
            lengths=torch.tensor(lengths, device="cpu"),
            correct=_pad([list(dict.fromkeys(ids)) for ids in correct], -1),
            incorrect=_pad([list(dict.fromkeys(ids)) for ids in incorrect], -1),
            answers=answers,
            corrupted_lengths=None if lengths == others and aligned is None else torch.tensor(others, device="cpu"),
            paired=paired,
            aligned=aligned,
        )

    def __len__(self) -> int:
        return len(self.correct)

    def __repr__(self) -> str:
        low, high = int(self.lengths.min()), int(self.lengths.max())
        rows = "" if self.answers is None else f"rows={self.n_rows}, "
        return f"Prompts(n={len(self)}, {rows}tokens={low if low == high else f'{low}-{high}'}, device={self.device})"

    @property
    def n_rows(self) -> int:
        """How many rows of tokens are run: the prompts, or their answers where these are several tokens."""
        return len(self.clean)

    @functools.cached_property
    def prompt_of(self) -> Int[Tensor, " row"]:
        """The number of each row's prompt."""
        return torch.arange(len(self), device=self.device) if self.answers is None else self.answers.prompt

    def rows_of(self, prompts: Int[Tensor, " chosen"]) -> Int[Tensor, " row"]:
        """The rows of some prompts, in their order."""
        return prompts if self.answers is None else self.answers.select(prompts)[1]

    @property
    def longest(self) -> int:
        """How many positions a prompt takes at most, all its rows together."""
        rows = 1 if self.answers is None else int(self.answers.prompt.bincount().max())
        return rows * self.clean.shape[1]

    @functools.cached_property
    def reads(self) -> Reads:
        """Where logits are read: at each row's last position, or where an answer's tokens are predicted."""
        if self.answers is not None:
            return self.answers.reads
        return Reads(torch.arange(self.n_rows, device=self.device), self.lengths - 1)

    @property
    def answer(self) -> Int[Tensor, "n answer"]:
        """The tokens of each prompt's first correct answer, filled with -1."""
        return self.correct[:, :1] if self.answers is None else self.answers.tokens[self.answers.first]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.clean.device

    @functools.cached_property
    def mask(self) -> Bool[Tensor, "n pos"]:
        """True at real tokens, False at padding."""
        return torch.arange(self.clean.shape[1], device=self.device) < self.lengths[:, None]

    @property
    def correct_mask(self) -> Bool[Tensor, "n k"]:
        """True where `correct` holds an id."""
        return self.correct >= 0

    @property
    def incorrect_mask(self) -> Bool[Tensor, "n k2"]:
        """True where `incorrect` holds an id."""
        return self.incorrect >= 0

    @functools.cached_property
    def first_difference(self) -> Int[Tensor, " row"]:
        """First position at which clean and corrupted differ: the runs are the same before it.

        Of unequal lengths it is the first one that has a counterpart: what one side lacks counts as no difference.
        """
        counterparts = self.counterparts
        if counterparts is None:
            differs = (self.clean != self.corrupted) & self.mask
        else:
            own = torch.arange(self.clean.shape[1], device=self.device)
            there = self.corrupted[:, own.clamp(max=self.corrupted.shape[1] - 1)]
            start, stop = counterparts.unbind(2)
            same = (start == own) & (stop == own + 1) & (self.clean == there)
            differs = ~same.int().cumprod(1).bool() & (stop > start) & self.mask  # all in front of it is the same too
        return torch.where(differs.any(1), differs.int().argmax(1), self.lengths)

    @functools.cached_property
    def counterparts(self) -> Int[Tensor, "row pos 2"] | None:
        """Start and stop of the corrupted positions that stand for each clean one; None: each stands for itself."""
        if self.aligned is not None or self.corrupted_lengths is None:
            return self.aligned
        return of_ends(self.lengths, self.corrupted_lengths, self.clean.shape[1])

    @functools.cached_property
    def first_run(self) -> Int[Tensor, " row"]:
        """First position that has to be run where prefixes are shared: that of a difference, or of a logit read."""
        if self.answers is None:
            return self.first_difference
        return torch.minimum(self.first_difference, self.answers.positions[:, 0])

    def select(self, indices: Sequence[int] | Tensor | slice) -> Prompts:
        """The prompts at `indices`, in that order, with padding trimmed to the longest of them.

        >>> prompts = Prompts.from_lists([[5, 6, 7], [5, 8]], [[5, 9, 7], [5, 9]], [[1], [2]], [[2], [1]])
        >>> prompts.select([1]).clean.tolist()
        [[5, 8]]
        """
        if isinstance(indices, slice):
            chosen = torch.arange(len(self), device=self.device)[indices]
        else:
            chosen = torch.as_tensor(indices, device=self.device)
            chosen = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
        if len(chosen) == 0:
            raise InputError("there are no prompts; at least one is needed")
        answers, rows = (None, chosen) if self.answers is None else self.answers.select(chosen)
        lengths = self.lengths[rows]
        others = None if self.corrupted_lengths is None else self.corrupted_lengths[rows]
        aligned = None if self.aligned is None else self.aligned[rows, : int(lengths.max())]
        if aligned is not None and same_positions(aligned, lengths):
            aligned = None
        if others is not None and aligned is None and torch.equal(others, lengths):
            others = None
        return Prompts(
            clean=self.clean[rows, : int(lengths.max())],
            corrupted=self.corrupted[rows, : int((lengths if others is None else others).max())],
            lengths=lengths,
            correct=_trim(self.correct[chosen]),
            incorrect=_trim(self.incorrect[chosen]),
            answers=answers,
            corrupted_lengths=others,
            paired=self.paired,
            aligned=aligned,
        )

    def turned(self) -> Prompts:
        """The corrupted prompts in the place of the clean ones, with the same answers."""
        others, answers = self.lengths if self.corrupted_lengths is None else self.corrupted_lengths, self.answers
        if answers is not None and self.corrupted_lengths is not None:
            moved = answers.positions + (others - self.lengths)[:, None]
            answers = replace(answers, positions=torch.where(answers.positions < 0, -1, moved))
        back = None if self.corrupted_lengths is None else self.lengths
        aligned = None if self.aligned is None else turned_around(self.aligned, self.corrupted.shape[1])
        return replace(
            self, clean=self.corrupted, corrupted=self.clean, lengths=others, corrupted_lengths=back, answers=answers,
            aligned=aligned,
        )  # fmt: skip

    def until_answer(self) -> Prompts:
        """The prompts up to where their answers begin, each with the first tokens of its answers."""
        if self.answers is None:
            return self
        rows = self.answers.first
        lengths = self.answers.positions[rows, 0] + 1
        others = None
        if self.corrupted_lengths is not None:
            others = lengths + (self.corrupted_lengths - self.lengths)[rows]
        shared = (self.incorrect[:, :, None] == self.correct[:, None]).any(2)
        return Prompts(
            clean=self.clean[rows, : int(lengths.max())],
            corrupted=self.corrupted[rows, : int((lengths if others is None else others).max())],
            lengths=lengths,
            correct=self.correct,
            incorrect=torch.where(shared, -1, self.incorrect),
            corrupted_lengths=others,
            paired=self.paired,
            aligned=None if self.aligned is None else self.aligned[rows, : int(lengths.max())],
        )

    def copy(self) -> Prompts:
        """The same prompts in tensors of their own."""
        return self._each(torch.clone)

    def restore(self, kept: Prompts) -> bool:
        """Write a copy back where something has changed, and say whether it had."""
        pairs = [(getattr(self, name), getattr(kept, name)) for name in TENSORS if getattr(self, name) is not None]
        if self.answers is not None and kept.answers is not None:
            pairs += [(getattr(self.answers, one.name), getattr(kept.answers, one.name)) for one in fields(Answers)]
        changed = [(here, was) for here, was in pairs if not torch.equal(here, was)]
        for here, was in changed:
            here.copy_(was)
        return bool(changed)

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on another device."""
        return self if torch.device(device) == self.device else self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Prompts:
        changed = {name: None if getattr(self, name) is None else change(getattr(self, name)) for name in TENSORS}
        answers = None if self.answers is None else self.answers.each(change)
        return Prompts(**changed, answers=answers, paired=self.paired)  # type: ignore[arg-type]  # names hold tensors


def _pad(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "n width"]:
    return pad_sequence(
        [torch.tensor(list(row), dtype=torch.int64, device="cpu") for row in rows],
        batch_first=True,
        padding_value=value,
    )


def _trim(ids: Int[Tensor, "n k"]) -> Int[Tensor, "n k2"]:
    """Without the columns that are padding in every row."""
    return ids[:, (ids >= 0).any(0)]

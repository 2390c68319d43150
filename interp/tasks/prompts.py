"""Prompts: token ids of clean and corrupted prompts with their answers, as engines take them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp.errors import InputError


@dataclass(frozen=True, eq=False)
class Prompts:
    """Tokenised prompts, padded on the right: with causal attention the padding changes nothing before it.

    Attributes:
        clean: int64 [n, pos].
        corrupted: int64 [n, pos], each prompt as long as its clean one.
        lengths: int64 [n], the number of real tokens.
        correct: int64 [n, k], ids of correct answers, filled with -1.
        incorrect: int64 [n, k'], ids of incorrect answers, filled with -1; k' may be 0.

    Raises `InputError` for shapes that do not match, no prompts, negative ids, a prompt without a correct
    answer or with one twice (from_lists counts an id once), and a corrupted prompt that equals its clean one.

    >>> prompts = Prompts.from_lists([[5, 6, 7], [5, 8]], [[5, 9, 7], [5, 9]], [[1], [2]], [[2], [1, 3]])
    >>> len(prompts), prompts.lengths.tolist(), prompts.first_difference.tolist()
    (2, [3, 2], [1, 1])
    """

    clean: Int[Tensor, "n pos"]
    corrupted: Int[Tensor, "n pos"]
    lengths: Int[Tensor, " n"]
    correct: Int[Tensor, "n k"]
    incorrect: Int[Tensor, "n k2"]

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_contents()

    @classmethod
    def from_lists(
        cls,
        clean: Sequence[Sequence[int]],
        corrupted: Sequence[Sequence[int]],
        correct: Sequence[Sequence[int]],
        incorrect: Sequence[Sequence[int]],
    ) -> Prompts:
        """Pad lists of token ids, one list per prompt.

        Raises `InputError` if a prompt's clean and corrupted versions differ in length, or if the four lists do.
        """
        counts = [len(clean), len(corrupted), len(correct), len(incorrect)]
        if len(set(counts)) != 1:
            raise InputError(
                "clean, corrupted, correct and incorrect must have one entry per prompt; they have "
                f"{', '.join(map(str, counts))}"
            )
        if not clean:
            raise InputError("there are no prompts; at least one is needed")
        for index, (one, other) in enumerate(zip(clean, corrupted, strict=True)):
            if len(one) != len(other):
                raise InputError(
                    f"prompt {index} has {len(one)} clean and {len(other)} corrupted tokens; they must be equally "
                    "many, so that every position of one run has its counterpart in the other"
                )
        return cls(
            clean=_pad(clean, 0),
            corrupted=_pad(corrupted, 0),
            lengths=torch.tensor([len(tokens) for tokens in clean], device="cpu"),
            correct=_pad([list(dict.fromkeys(ids)) for ids in correct], -1),
            incorrect=_pad([list(dict.fromkeys(ids)) for ids in incorrect], -1),
        )

    def _check_shapes(self) -> None:
        for name in ("clean", "corrupted", "correct", "incorrect", "lengths"):
            value, ndim = getattr(self, name), 1 if name == "lengths" else 2
            if value.ndim != ndim or value.dtype != torch.int64:
                kind = str(value.dtype).removeprefix("torch.")
                raise InputError(
                    f"{name} is {kind} of shape {list(value.shape)}; it must be int64 with {ndim} dimension(s)"
                )
            if len(value) != len(self.clean):
                raise InputError(f"{name} has {len(value)} rows, but there are {len(self.clean)} prompts")
        if len(self.clean) == 0:
            raise InputError("there are no prompts; at least one is needed")
        if self.clean.shape != self.corrupted.shape:
            raise InputError(
                f"clean has the shape {list(self.clean.shape)}, corrupted {list(self.corrupted.shape)}; "
                "they must be equal"
            )

    def _check_contents(self) -> None:
        width = self.clean.shape[1]
        bad = (self.lengths < 1) | (self.lengths > width)
        if bad.any():
            index = _first(bad)
            raise InputError(
                f"prompt {index} has the length {int(self.lengths[index])}; it must be between 1 and {width}"
            )
        for name in ("clean", "corrupted"):
            bad = ((getattr(self, name) < 0) & self.mask).any(1)
            if bad.any():
                raise InputError(f"{name} holds a negative token id in prompt {_first(bad)}")
        for name in ("correct", "incorrect"):
            bad = (getattr(self, name) < -1).any(1)
            if bad.any():
                raise InputError(f"{name} holds a negative token id in prompt {_first(bad)} (-1 is padding)")
        for names in (("correct",), ("incorrect",), ("correct", "incorrect")):
            ids = torch.cat([getattr(self, name) for name in names], 1).sort(1).values
            twice = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)
            if twice.any():
                index = _first(twice.any(1))
                token = int(ids[index, 1:][twice[index]][0])
                raise InputError(
                    f"prompt {index} has the token id {token} twice among its {' and '.join(names)} answers; "
                    "each counts once, and on one side"
                )
        bad = ~self.correct_mask.any(1)
        if bad.any():
            raise InputError(f"prompt {_first(bad)} has no correct answer; every prompt needs at least one")
        bad = self.first_difference == self.lengths
        if bad.any():
            raise InputError(
                f"prompt {_first(bad)} has a corrupted version equal to the clean one; nothing can be attributed "
                "to their difference"
            )

    def __len__(self) -> int:
        return len(self.clean)

    def __repr__(self) -> str:
        low, high = int(self.lengths.min()), int(self.lengths.max())
        return f"Prompts(n={len(self)}, tokens={low if low == high else f'{low}-{high}'}, device={self.device})"

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
    def first_difference(self) -> Int[Tensor, " n"]:
        """First position at which clean and corrupted differ: the runs are the same before it."""
        differs = (self.clean != self.corrupted) & self.mask
        return torch.where(differs.any(1), differs.int().argmax(1), self.lengths)

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
        if len(chosen) == 0:
            raise InputError("there are no prompts; at least one is needed")
        lengths = self.lengths[chosen]
        width = int(lengths.max())
        return Prompts(
            clean=self.clean[chosen, :width],
            corrupted=self.corrupted[chosen, :width],
            lengths=lengths,
            correct=_trim(self.correct[chosen]),
            incorrect=_trim(self.incorrect[chosen]),
        )

    def copy(self) -> Prompts:
        """The same prompts in tensors of their own."""
        return Prompts(**{one.name: getattr(self, one.name).clone() for one in fields(self)})

    def restore(self, kept: Prompts) -> bool:
        """Write a copy back where something has changed, and say whether it had."""
        names = [one.name for one in fields(self)]
        changed = [name for name in names if not torch.equal(getattr(self, name), getattr(kept, name))]
        for name in changed:
            getattr(self, name).copy_(getattr(kept, name))
        return bool(changed)

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on another device."""
        if torch.device(device) == self.device:
            return self
        return Prompts(
            clean=self.clean.to(device),
            corrupted=self.corrupted.to(device),
            lengths=self.lengths.to(device),
            correct=self.correct.to(device),
            incorrect=self.incorrect.to(device),
        )


def _first(flags: Bool[Tensor, " n"]) -> int:
    return int(flags.int().argmax())


def _pad(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "n width"]:
    return pad_sequence(
        [torch.tensor(list(row), dtype=torch.int64, device="cpu") for row in rows],
        batch_first=True,
        padding_value=value,
    )


def _trim(ids: Int[Tensor, "n k"]) -> Int[Tensor, "n k2"]:
    """Without the columns that are padding in every row."""
    return ids[:, (ids >= 0).any(0)]

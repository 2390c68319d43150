"""`needle_prompts`: a sentence hidden in others, and its beginning once more at the end, for any tokenizer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.tasks.encoding import Encoder

_WHO = ("farmer", "teacher", "sailor", "baker", "doctor", "painter", "neighbour", "driver", "singer", "guard", "nurse")
_DID = ("carried", "found", "painted", "sold", "cleaned", "watched", "moved", "described", "repaired", "kept")
_WHAT = (
    "a basket",
    "the old clock",
    "a wooden chair",
    "two lamps",
    "the map",
    "a green coat",
    "some bread",
    "the boat",
)
_WHERE = ("near the bridge", "behind the house", "at the market", "in the garden", "by the river", "on the hill")
_WHEN = ("in the morning", "before dinner", "after the rain", "on Monday", "last winter", "in the evening")
_OWNERS = ("Anna", "Peter", "Maria", "David", "Laura", "Simon", "Emma", "Oscar", "Julia", "Martin")
_SECRETS = (
    "apple", "silver", "window", "tiger", "orange", "pencil", "castle", "butter", "yellow", "candle", "rabbit",
    "engine", "flower", "guitar", "island", "jacket", "kitchen", "ladder", "mirror", "needle", "ocean", "pepper",
)  # fmt: skip
_WORDS, _KEY = 4, 2  # that make an answer; ids that ask for one where there is no tokenizer


@dataclass(frozen=True, eq=False)
class Needle:
    """A prompt whose answer stands in it.

    Attributes:
        ids: int [pos]: the prompt, which ends where the answer begins.
        start: where the answer stands in the prompt.
        stop: behind its last token.

    Raises `InputError` where no answer stands there.
    """

    ids: Int[Tensor, " pos"]
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not isinstance(self.ids, Tensor) or self.ids.ndim != 1 or self.ids.is_floating_point():
            raise InputError("ids of a needle must be a tensor of token ids [pos]")
        if not 0 <= self.start < self.stop <= len(self.ids):
            raise InputError(
                f"a needle from start={self.start} to stop={self.stop} holds no token of a prompt of {len(self.ids)}"
            )

    @property
    def answer(self) -> list[int]:
        """The ids of the answer."""
        return [int(token) for token in self.ids[self.start : self.stop]]


@numbers.checked(n=numbers.COUNT, length=numbers.COUNT)
def needle_prompts(model: Any, n: int = 20, length: int = 150, seed: int = 0) -> list[Needle]:
    """`n` prompts of at least `length` tokens, each with a sentence that it then asks for.

    "The four secret words of Anna are castle, tiger, ocean and pepper." stands between sentences of a farmer, a
    teacher and others; the prompt ends in "The four secret words of Anna are". Answers stand at all depths, from the
    first sentence to the last. A model without a tokenizer gets random ids: two of them are repeated at the end, the
    four that followed are the answer.

    Raises `InputError` where the tokenizer makes the answer and what is around it one token, or the model has too few
    ids.
    """
    drawn = random.Random(seed)
    depths = [i / max(1, n - 1) for i in range(n)]
    drawn.shuffle(depths)
    encoder = Encoder(model)
    one = _of_ids if encoder.tokenizer is None else _of_words
    return [one(encoder, length, depth, drawn) for depth in depths]


def _of_words(encoder: Encoder, length: int, depth: float, drawn: random.Random) -> Needle:
    question = f"The four secret words of {drawn.choice(_OWNERS)} are"
    *first, last = drawn.sample(_SECRETS, _WORDS)
    answer = f" {', '.join(first)} and {last}"
    around = [_sentence(drawn)]
    while len(encoder.texts([" ".join(around)])[0]) < length:
        around.append(_sentence(drawn))
    place = round(depth * len(around))
    before = " ".join([*around[:place], question])
    text = " ".join([before + answer + ".", *around[place:], question])
    whole, front, through = encoder.texts([text, before, before + answer])
    start, stop = _shared(whole, front), _shared(whole, through)
    if start >= stop:
        raise InputError("the tokenizer makes one token of a needle's answer and the words around it; give ids: Needle")
    return Needle(torch.tensor(whole, device="cpu"), start, stop)


def _sentence(drawn: random.Random) -> str:
    who, did, what, where, when = (drawn.choice(words) for words in (_WHO, _DID, _WHAT, _WHERE, _WHEN))
    return f"The {who} {did} {what} {where} {when}."


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens two rows have in common at their beginning."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same


def _of_ids(encoder: Encoder, length: int, depth: float, drawn: random.Random) -> Needle:
    needle = _KEY + _WORDS
    if encoder.d_vocab < 2 * needle:
        raise InputError(f"model has {encoder.d_vocab} token ids; needles of random ids take at least {2 * needle}")
    hidden = drawn.sample(range(encoder.d_vocab), needle)
    others = [token for token in range(encoder.d_vocab) if token not in hidden]
    around = drawn.choices(others, k=max(0, length - needle - _KEY))
    place = round(depth * len(around))
    ids = [*around[:place], *hidden, *around[place:], *hidden[:_KEY]]
    return Needle(torch.tensor(ids, device="cpu"), place + _KEY, place + needle)

"""Induction: what followed a token before follows it again."""

from __future__ import annotations

import random
from typing import Any

from interp import numbers
from interp.errors import InputError
from interp.tasks.encoding import Encoder
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build
from interp.tasks.spans import END, Slot
from interp.tasks.task import Task

ABOUT = About("induction", "the token that followed the first time")


@numbers.checked(n=numbers.COUNT, length=numbers.Limits(2))
def induction(n: int = 64, seed: int = 0, model: Any = None, *, length: int = 12) -> Task:
    """Repeated random tokens: A B C A B is continued by C.

    A sequence of `length` different random tokens is followed by itself without its last token, which is the
    answer. In the corrupted prompt the first occurrence of that token is another one, which is the incorrect
    answer. Special tokens are left out, and BOS comes first where the model wants it. Elhage et al. 2021 and Olsson
    et al. 2022 (arXiv 2209.11895) describe the behaviour. Spans: before (the token in front of the answer, the first
    time), answer (the first time), end.

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose vocabulary the tokens are drawn from; it is needed.
        length: of the sequence that is repeated, at least 2.

    Raises `InputError` without a model, and for a vocabulary with fewer than `length` + 1 ordinary tokens.
    """
    if model is None:
        raise InputError("induction draws random tokens from a vocabulary: pass model=")
    encoder = Encoder(model)
    vocabulary = _ordinary_tokens(encoder)
    if len(vocabulary) <= length:
        raise InputError(
            f"length={length} is too long: the vocabulary has {len(vocabulary)} ordinary tokens, and they must differ"
        )
    start = () if encoder.bos is None else (encoder.bos,)

    def draw(rng: random.Random, number: int) -> Candidate:
        *tokens, replacement = rng.sample(vocabulary, length + 1)
        prefix, answer = tuple(tokens[:-1]), tokens[-1]
        first = len(start) + len(prefix)  # where the answer stands the first time
        return Candidate(
            Example(
                clean=(*start, *prefix, answer, *prefix),
                corrupted=(*start, *prefix, replacement, *prefix),
                correct=(answer,),
                incorrect=(replacement,),
                spans=(Slot("before", first - 1, first), Slot("answer", first, first + 1), END),
            )
        )

    return build(ABOUT, draw, n, seed, model, parameters={"length": length})


def _ordinary_tokens(encoder: Encoder) -> list[int]:
    """Token ids that the model and the tokenizer share, without special ones."""
    if encoder.tokenizer is None:
        return list(range(encoder.d_vocab))
    special = set(encoder.tokenizer.all_special_ids)
    return [token for token in range(min(encoder.d_vocab, len(encoder.tokenizer))) if token not in special]

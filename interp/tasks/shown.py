"""Tokenised prompts to look at: what templates, BOS and tokenizers made of what a user gave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from interp.tasks.prompts import Prompts
from interp.token_text import token_texts


def shown_rows(prompts: Prompts, tokenizer: Any) -> pd.DataFrame:
    """A row for each answer: see `Task.shown`."""
    others = prompts.lengths if prompts.corrupted_lengths is None else prompts.corrupted_lengths
    records = []
    for row, prompt, correct, positions, predicted in _answers(prompts):
        clean = prompts.clean[row, : int(prompts.lengths[row])]
        corrupted = prompts.corrupted[row, : int(others[row])]
        records.append(
            {
                "prompt": prompt,
                "answer": "correct" if correct else "incorrect",
                "clean": token_texts(tokenizer, clean.tolist()),
                "corrupted": token_texts(tokenizer, corrupted.tolist()) if prompts.paired else None,
                "positions": positions,
                "predicted": token_texts(tokenizer, predicted),
            }
        )
    return pd.DataFrame(records)


def _answers(prompts: Prompts) -> Iterator[tuple[int, int, bool, list[int], list[int]]]:
    """Of each answer: its row, its prompt, whether it is correct, and where which tokens are predicted."""
    answers = prompts.answers
    if answers is not None:
        for row, (prompt, correct) in enumerate(zip(answers.prompt.tolist(), answers.correct.tolist(), strict=True)):
            there = answers.tokens[row] >= 0
            yield row, prompt, correct, answers.positions[row, there].tolist(), answers.tokens[row, there].tolist()
        return
    for prompt, last in enumerate((prompts.lengths - 1).tolist()):
        for correct, ids in ((True, prompts.correct), (False, prompts.incorrect)):
            for token in ids[prompt].tolist():
                if token >= 0:
                    yield prompt, prompt, correct, [last], [token]

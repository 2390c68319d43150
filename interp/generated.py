"""`GeneratedText`: texts that a model made, those that were left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.result import Result

REASONS = ("short", "repeats", "duplicate")
NO_TOKEN = -1  # behind a text's end
GRAM = 4  # tokens whose return is a repetition


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GeneratedText(Result):
    """What a model wrote by itself; made by `interp.sample_text`.

    Attributes:
        ids: int [text, pos]: each from its first token on, -1 behind its end.
        dropped: why a text is left out: `short`, `repeats` (itself), `duplicate` (of an earlier one); "": it is kept.
        model, seconds, settings: how they were made.
    """

    matching: ClassVar = (("ids", "dropped"),)

    ids: Int[Tensor, "text pos"]
    dropped: list[str]
    model: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> Bool[Tensor, " text"]:
        """Which texts are kept."""
        return torch.tensor([not why for why in self.dropped], dtype=torch.bool, device="cpu")

    @property
    def n_tokens(self) -> int:
        """Tokens of the texts that are kept, their first ones included."""
        return int((self.ids[self.kept] != NO_TOKEN).sum())

    def texts(self) -> list[list[int]]:
        """The ids of each text that is kept."""
        return [row[row != NO_TOKEN].tolist() for row in self.ids[self.kept]]

    @numbers.checked(length=numbers.Limits(2))
    def rows(self, length: int) -> Int[Tensor, "row pos"]:
        """The kept texts as `packed_rows` of `length` tokens. Raises `InputError` where they fill none."""
        return packed_rows(self.texts(), length)

    def to_frame(self) -> pd.DataFrame:
        """One row for what was kept and one for each reason to drop. Columns: what, texts, tokens, mean_length, ended
        (the share that ended by itself), repeated (the mean share of 4-grams that stood earlier in their text)."""
        own = pd.DataFrame(
            {
                "what": [why or "kept" for why in self.dropped],
                "tokens": (self.ids != NO_TOKEN).sum(1).numpy(),
                "ended": (self.ids[:, -1] == NO_TOKEN).numpy(),
                "repeated": [repeated(row[row != NO_TOKEN].tolist()) for row in self.ids],
            }
        )
        rows = []
        for what in ("kept", *REASONS):
            these = own[own["what"] == what]
            rows.append(
                {
                    "what": what, "texts": len(these), "tokens": int(these["tokens"].sum()),
                    "mean_length": float(these["tokens"].mean()), "ended": float(these["ended"].mean()),
                    "repeated": float(these["repeated"].mean()),
                }
            )  # fmt: skip
        return pd.DataFrame(rows)

    def headline(self) -> str:
        counts = ", ".join(f"{self.dropped.count(why)} {why}" for why in REASONS)
        return (
            f"{int(self.kept.sum()):,} texts of {len(self.dropped):,} kept, {self.n_tokens:,} tokens; left out: "
            f"{counts}; {self.model}"
        )


@numbers.checked(length=numbers.Limits(2))
def packed_rows(texts: Sequence[Sequence[int]], length: int) -> Int[Tensor, "row pos"]:
    """Texts, each from its first token on, one behind the other in rows of `length` that all begin with that token.

    So each row's first position, whose norms differ from all others' in many models, is the same token and no word of a
    text; other texts' first tokens are left out, and so is what fills no row. Raises `InputError` for no whole row.

    >>> packed_rows([[0, 5, 6, 7], [0, 8, 9]], 3).tolist()
    [[0, 5, 6], [0, 7, 8]]
    """
    words = [token for text in texts for token in text[1:]]
    count = len(words) // (length - 1)
    if not count:
        raise InputError(
            f"length={length}: the {len(texts)} texts have {len(words)} tokens behind their first; give more"
        )
    rows = torch.tensor(words[: count * (length - 1)], dtype=torch.long, device="cpu").view(count, length - 1)
    return torch.cat((torch.full_like(rows[:, :1], texts[0][0]), rows), 1)


def why_dropped(ids: Int[Tensor, "text pos"], min_length: int, max_repeated: float) -> list[str]:
    """One of `REASONS` for each text, or "" where it is kept."""
    seen: set[tuple[int, ...]] = set()
    found = []
    for row in ids:
        text = tuple(row[row != NO_TOKEN].tolist())
        if len(text) - 1 < min_length:
            found.append("short")
        elif repeated(text) > max_repeated:
            found.append("repeats")
        else:
            found.append("duplicate" if text in seen else "")
            seen.add(text)
    return found


def repeated(text: Any) -> float:
    """The share of a text's 4-grams that stood earlier in it; NaN where it has none.

    >>> repeated([1, 2, 3, 4, 1, 2, 3])
    0.0
    >>> repeated([1, 1, 1, 1, 1])
    0.5
    """
    grams = [tuple(text[i : i + GRAM]) for i in range(len(text) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")

"""`GeneratedText`: texts that a model made, those that were left out, and why."""

from __future__ import annotations

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

    @numbers.checked(length=numbers.COUNT)
    def rows(self, length: int) -> Int[Tensor, "row pos"]:
        """The kept texts, one behind the other, in rows of `length` tokens; what fills no row is left.

        Raises `InputError` where they fill none.
        """
        ids = self.ids[self.kept]
        flat = ids[ids != NO_TOKEN]
        if len(flat) < length:
            raise InputError(f"length={length}: the texts that are kept have {len(flat)} tokens in all; sample more")
        return flat[: len(flat) // length * length].view(-1, length)

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

"""`Inversion`: the prompts that were found, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from interp import theme
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLUMNS = ["prompt", "position", "token", "text", "distance", "runner_up", "tried", "seconds"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Inversion(Result):
    """Prompts recovered from hidden states; made by `interp.inversion.invert`.

    Attributes:
        found: one row a token that was accepted. Columns: prompt, position, token (its id), text, distance (of its
            state from the given one, over the norm of the given one), runner_up (the same of the nearest other that
            was tried), tried (tokens), seconds.
        misses: the same of positions at which no token of the vocabulary was near enough, with the nearest; a prompt
            ends there.
        lengths: positions that were given, of each prompt.
        known: the tokens that every prompt was said to begin with.
        layer, tolerance, order, model, seconds: what was asked.
    """

    found: pd.DataFrame
    misses: pd.DataFrame
    lengths: tuple[int, ...]
    known: tuple[int, ...]
    layer: int
    tolerance: float
    order: str
    model: str
    seconds: float

    @classmethod
    def of(
        cls,
        found: Sequence[dict[str, Any]],
        misses: Sequence[dict[str, Any]],
        *,
        lengths: Sequence[int],
        known: Sequence[int],
        texts: Callable[[Sequence[int]], list[str]],
        **asked: Any,
    ) -> Self:
        """From rows without texts."""
        frames = []
        for rows in (found, misses):
            frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "text"])
            frame.insert(3, "text", texts(frame["token"].tolist()))
            frames.append(frame)
        return cls(found=frames[0], misses=frames[1], lengths=tuple(lengths), known=tuple(known), **asked)

    @property
    def ids(self) -> list[list[int]]:
        """The tokens of each prompt as far as they were found, the known ones in front."""
        by_prompt = {prompt: rows["token"].tolist() for prompt, rows in self.found.groupby("prompt")}
        return [[*self.known, *by_prompt.get(prompt, [])] for prompt in range(len(self.lengths))]

    @property
    def texts(self) -> list[str]:
        """What was found of each prompt, as text; without a tokenizer ids in angle brackets."""
        by_prompt = {prompt: "".join(rows["text"]) for prompt, rows in self.found.groupby("prompt")}
        return [by_prompt.get(prompt, "") for prompt in range(len(self.lengths))]

    @property
    def complete(self) -> list[bool]:
        """Of each prompt whether all of it was found."""
        return [len(ids) == length for ids, length in zip(self.ids, self.lengths, strict=True)]

    def to_frame(self) -> pd.DataFrame:
        """`found`; a copy."""
        return self.found.copy()

    def figure(self) -> Figure:
        """Distances of accepted tokens and of their runners-up, by position."""
        import plotly.graph_objects as go

        picture = go.Figure()
        hover = "prompt %{customdata[0]}: %{customdata[1]}<br>%{y:.2e}<extra></extra>"
        for column, name in (("distance", "accepted"), ("runner_up", "runner-up")):
            picture.add_scatter(
                x=self.found["position"],
                y=self.found[column].clip(lower=1e-18),
                mode="markers",
                name=name,
                customdata=[
                    (prompt, theme.label(text))
                    for prompt, text in zip(self.found["prompt"], self.found["text"], strict=True)
                ],
                hovertemplate=hover,
            )
        picture.add_hline(y=self.tolerance, line_dash="dash", annotation_text="tolerance")
        picture.update_xaxes(title="position")
        picture.update_yaxes(title="distance over the state's norm", type="log", exponentformat="power")
        return theme.styled(picture, theme.named(self.model, f"prompts from states behind layer {self.layer}"))

    def headline(self) -> str:
        whole, tried = sum(self.complete), self.found["tried"]
        line = f"{whole} of {len(self.lengths)} prompts recovered from layer {self.layer} of {self.model}"
        if len(tried):
            line += f", {tried.median():.0f} tokens tried at a position (median; {tried.max()} at most)"
        if len(self.misses):
            first = self.misses.iloc[0]
            line += (
                f"; prompt {first['prompt']} misses at position {first['position']}: the nearest token is "
                f"{first['distance']:.1e} away (tolerance {self.tolerance:.1e})"
            )
        return line

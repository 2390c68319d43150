"""Methods compared again on other draws of the scoring prompts, and with other seeds of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeVar

import numpy as np
import pandas as pd

from attribution.edges.method import Method
from circuits.candidates import Candidate, Scored, score
from circuits.ladders import Controls, Stack, placed
from interp import numbers
from interp.errors import InputError
from interp.interval import Interval
from interp.keywords import told
from interp.plugins import fields_of
from interp.selection import Selection
from interp.setting import Setting
from metrics.circuit.comparison import AREAS, OUTPUTS, curve_figures, paired
from metrics.circuit.elements import Elements
from metrics.statistics import estimates, resample, resampled

COMPARED = (*AREAS, *OUTPUTS)
NO_CONTROLS = Controls(0, None, False, 0)
T = TypeVar("T", Method, Selection)


class DrawKeywords(TypedDict, total=False):
    """The keywords of `Draws`."""

    draws: int
    seeds: int


@dataclass(frozen=True)
class Draws:
    """How often methods are compared anew.

    Attributes:
        draws: bootstrap draws of the scoring prompts; the judging ones stay.
        seeds: of methods that draw themselves (learned masks, `acdc`), in each draw.
    """

    draws: int = 1
    seeds: int = 1

    def __post_init__(self) -> None:
        numbers.settle(self, draws=numbers.COUNT, seeds=numbers.COUNT)

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Draws:
        """From a function's keywords."""
        return told(cls(), keywords, DrawKeywords)

    def __bool__(self) -> bool:
        return self.draws > 1 or self.seeds > 1


def refuse_resumed(chosen: Sequence[Candidate], draws: Draws) -> None:
    """Raise `InputError` for methods that resume where they are to be run more than once."""
    for one in chosen if draws else ():
        if getattr(one.method, "resume", None) is not None:
            raise InputError(f"methods[{one.label!r}] has resume=, which keeps one run; draws make several: drop it")


def compared_again(
    elements: Elements, judging: Setting, chosen: Sequence[Candidate], draws: Draws, seed: int
) -> pd.DataFrame:
    """Score and judge all that is a method on every draw, with every seed: a row each, without intervals.

    Columns: method, draw, seed, the areas and outputs, and the sizes that goals need; empty where nothing is drawn. One
    draw is of all scoring prompts; of several each is as many of these, drawn with replacement.
    """
    methods = [one for one in chosen if one.method is not None] if draws else []
    if not methods:
        return pd.DataFrame()
    of_prompts: list[Elements] = [elements]
    if draws.draws > 1:
        setting = elements.setting
        of_prompts = [elements.on(setting.select(some)) for some in resample(len(setting), draws.draws, seed)]
    rows: list[dict[str, Any]] = []
    with elements.setting.run.progress("comparing again", draws.draws * draws.seeds * len(methods)) as bar:
        for draw, scoring in enumerate(of_prompts):
            fixed: dict[str, Scored] = {}
            for number in range(draws.seeds):
                again = []
                for one in methods:
                    again.append(fixed[one.label] if one.label in fixed else _scored(scoring, one, draw, number, draws))
                    if not _draws(one):
                        fixed[one.label] = again[-1]
                    bar.advance(1)
                rows += [{"draw": draw, "seed": number, **row} for row in _figures(scoring, judging, again)]
    return pd.DataFrame(rows)


def over_draws(again: pd.DataFrame, interval: Interval, correction: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means over draws with their intervals, a row a method, and the paired differences of methods.

    Draws of prompts are resampled, each with the mean over its seeds; with one draw, its seeds are.
    """
    unit = "draw" if again["draw"].nunique() > 1 else "seed"
    names = list(dict.fromkeys(again["method"]))
    means = again.groupby(["method", unit], sort=False)
    values = np.stack([means[name].mean().unstack().loc[names].to_numpy() for name in COMPARED])  # figure, method, draw
    drawn = resampled(values, lambda means: means.reshape(len(means), -1), interval)
    at = np.arange(len(drawn.point)).reshape(len(COMPARED), len(names))
    cells: list[dict[str, Any]] = [{"method": name} for name in names]
    for name, places in zip(COMPARED, at, strict=True):
        for row, one in zip(cells, estimates(drawn.columns(places), interval.confidence), strict=True):
            row |= one.columns(f"{name}_drawn")
    pairs = paired(drawn, names, dict(zip(COMPARED, at, strict=True)), interval.confidence, correction)
    renamed = {name: f"{name}_drawn" for name in ("difference", "low", "high", "p", "p_adjusted")}
    return pd.DataFrame(cells), pairs.rename(columns=renamed)


def _figures(scoring: Elements, judging: Setting, rows: Sequence[Scored]) -> list[dict[str, Any]]:
    stack = Stack()
    found = placed(stack, scoring, rows, NO_CONTROLS, signed=False)
    ran = stack.run(scoring.on(judging))
    figures = curve_figures(*ran.ends, [one.ladder(ran) for one in found])
    return [{"method": one.method, **row} for one, row in zip(found, figures, strict=True)]


def _scored(scoring: Elements, one: Candidate, draw: int, number: int, draws: Draws) -> Scored:
    """A method's scores on a draw; one that draws itself does so anew in each."""
    assert one.method is not None
    by = draw * draws.seeds + number
    return score(scoring, replace(one, method=reseeded(one.method, by), selection=reseeded(one.selection, by)))


def _draws(one: Candidate) -> bool:
    assert one.method is not None
    return reseeded(one.method, 1) is not one.method or reseeded(one.selection, 1) is not one.selection


def reseeded(thing: T, by: int) -> T:
    """A method (selection) whose own seed, and those of methods that it is made of, are larger by so much.

    The same object where nothing is drawn.
    """
    changes: dict[str, Any] = {}
    for name, value in fields_of(thing).items():
        if name == "seed" and isinstance(value, int):
            if not isinstance(thing, Method) or thing.drawn_with() is not None:
                changes[name] = value + by
            continue
        several = value if isinstance(value, tuple) else (value,)
        again = tuple(reseeded(one, by) if isinstance(one, Method) else one for one in several)
        if any(one is not other for one, other in zip(again, several, strict=True)):
            changes[name] = again if isinstance(value, tuple) else again[0]
    return replace(thing, **changes) if changes else thing  # type: ignore[type-var]

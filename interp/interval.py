"""`Estimate`, a number with its interval, and `Interval`, how such intervals are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from interp.keeping import kept
from interp.keywords import told
from interp.numbers import settle


@kept
@dataclass(frozen=True)
class Estimate:
    """A number with its interval, NaN where there is none.

    >>> print(Estimate(0.9, 0.8, 1.0))
    0.900 [0.800, 1.000]
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"

    def to_dict(self) -> dict[str, float]:
        """`value`, `low`, `high` and `confidence`."""
        return {"value": self.value, "low": self.low, "high": self.high, "confidence": self.confidence}

    def columns(self, name: str) -> dict[str, float]:
        """Cells of a table: `name`, `name_low`, `name_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


class IntervalKeywords(TypedDict, total=False):
    """The keywords of `Interval`, as public functions take them."""

    confidence: float
    resamples: int
    seed: int


@kept
@dataclass(frozen=True)
class Interval:
    """How intervals are made, and the seed of everything that is drawn.

    Attributes:
        confidence: of the intervals.
        resamples: bootstrap draws (of prompts, or of samples).
        seed: of these draws, and of splits, random circuits and controls: the same seed gives the same figures.

    Raises `InputError` for numbers that cannot be.

    >>> Interval(seed=3)
    Interval(confidence=0.95, resamples=2000, seed=3)
    """

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        settle(self)

    @classmethod
    def of(cls, keywords: Mapping[str, Any], resamples: int = 2000) -> Interval:
        """From a function's keywords, with its own default of `resamples`; those of others are passed over."""
        return told(cls(resamples=resamples), keywords, IntervalKeywords)

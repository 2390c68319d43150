"""What a circuit has to reach on the prompts that choose it, and how near it comes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from interp import numbers
from interp.interval import Interval
from metrics.circuit.elements import Elements, Mask
from metrics.circuit.evaluate import faithfulness_errors, faithfulness_in, faithfulness_values, together

DEFAULT_FAITHFULNESS = 0.85
# the smallest circuit whose mean just reaches a goal misses it on half of all other prompts; so Breiman et al. (1984)
# allow for the error of what chooses the size of a tree
ONE_ERROR = 1.0
ROUNDING = 1e-6  # the whole model reaches every goal, to rounding


@dataclass(frozen=True)
class Reached:
    """What a circuit reached on the prompts that choose it.

    Attributes:
        faithfulness: a ratio of mean objectives.
        kl: mean KL(model || circuit) in nats, where the goal names one.
        part: how far that is of what was asked for: 1 and more is enough, of several goals the farthest counts.
    """

    faithfulness: float
    kl: float | None
    part: float

    @property
    def enough(self) -> bool:
        """Whether the goal is reached."""
        return self.part >= 1 - ROUNDING


@dataclass(frozen=True)
class Goal:
    """Faithfulness of at least so much, KL(model || circuit) of at most so much, or both, on the choosing prompts.

    Attributes:
        faithfulness: None where `kl` alone is asked for.
        kl: in nats, mean over prompts; None: the output is not looked at.
        lower_end: whether it is the lower end of the interval over prompts that has to reach it, which is farther.
        interval: its confidence, resamples and seed.
        spare: by how many standard errors over prompts the mean has to be above it.
    """

    faithfulness: float | None = DEFAULT_FAITHFULNESS
    kl: float | None = None
    lower_end: bool = False
    interval: Interval = field(default_factory=Interval)
    spare: float = 0.0

    def __post_init__(self) -> None:
        numbers.settle(self, kl=numbers.POSITIVE, spare=numbers.FROM_ZERO)

    def reached(self, elements: Elements, masks: Sequence[Mask]) -> list[Reached]:
        """What each circuit reaches on the elements' prompts; NaN where the model shows no behaviour there."""
        objectives = (None,) if self.kl is None else (None, "kl")
        values, *others = elements.setting.measure_all(together([elements.circuit(one) for one in masks]), objectives)
        found = faithfulness_values(values)
        if self.lower_end:
            counted = [one.low for one in faithfulness_in(values, self.interval)]
        else:
            errors = faithfulness_errors(values)
            counted = [value - self.spare * error for value, error in zip(found, errors, strict=True)]
        divergences: list[float | None] = [None] * len(found)
        for one in others:
            divergences = [max(-float(row.double().mean()), 0.0) for row in one.circuits]
        return [
            Reached(value, kl, self._part(judged, kl))
            for value, judged, kl in zip(found, counted, divergences, strict=True)
        ]

    def _part(self, faithfulness: float, kl: float | None) -> float:
        parts = []
        if self.faithfulness is not None:
            parts.append(faithfulness / self.faithfulness)
        if self.kl is not None and kl is not None:
            parts.append(self.kl / kl if kl > 0 else math.inf)
        return math.nan if any(math.isnan(one) for one in parts) else min(parts)

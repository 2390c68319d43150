"""What a circuit has to reach on the prompts that choose it, and how near it comes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from interp import numbers
from interp.interval import Interval
from metrics.circuit.elements import Elements, Mask
from metrics.circuit.evaluate import faithfulness_in, together

DEFAULT_FAITHFULNESS = 0.85
ROUNDING = 1e-6  # the whole model reaches every goal, to rounding


@dataclass(frozen=True)
class Reached:
    """What a circuit reached on the prompts that choose it.

    Attributes:
        faithfulness, low: and the lower end of its interval over prompts.
        kl: mean KL(model || circuit) in nats, where the goal names one.
        part: how far that is of what was asked for: 1 and more is enough, of several goals the farthest counts.
    """

    faithfulness: float
    low: float
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
        lower_end: whether faithfulness is that of the lower end of the interval over prompts, not of the mean.
        interval: its confidence, resamples and seed.
    """

    faithfulness: float | None = DEFAULT_FAITHFULNESS
    kl: float | None = None
    lower_end: bool = False
    interval: Interval = field(default_factory=Interval)

    def __post_init__(self) -> None:
        numbers.settle(self, kl=numbers.POSITIVE)

    def reached(self, elements: Elements, masks: Sequence[Mask]) -> list[Reached]:
        """What each circuit reaches on the elements' prompts; NaN where the model shows no behaviour there."""
        objectives = (None,) if self.kl is None else (None, "kl")
        values, *others = elements.setting.measure_all(together([elements.circuit(one) for one in masks]), objectives)
        divergences = [max(-float(row.double().mean()), 0.0) for one in others for row in one.circuits]
        return [
            self._judged(one.value, one.low, divergences[i] if divergences else None)
            for i, one in enumerate(faithfulness_in(values, self.interval))
        ]

    def _judged(self, value: float, low: float, kl: float | None) -> Reached:
        parts = []
        if self.faithfulness is not None:
            parts.append((low if self.lower_end else value) / self.faithfulness)
        if self.kl is not None and kl is not None:
            parts.append(self.kl / kl if kl > 0 else math.inf)
        part = math.nan if any(math.isnan(one) for one in parts) else min(parts)
        return Reached(value, low, kl, part)

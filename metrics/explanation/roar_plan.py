"""What is masked and trained for Recursive ROAR, and how much that is, known before it starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp import numbers
from interp.errors import InputError
from interp.keywords import told
from metrics.explanation.racu import racu

RANDOM = "random"  # the baseline
RATIOS = tuple(i / 10 for i in range(1, 11))


class MaskingKeywords(TypedDict, total=False):
    """The keywords of `Masking`, as public functions take them."""

    ratios: Sequence[int | float]
    recursive: bool
    clip: bool
    least: float


class RetrainingKeywords(MaskingKeywords, total=False):
    """The keywords of `Retraining`, as public functions take them."""

    seeds: int | Sequence[int]
    mask: Any
    performance: str | Callable[[Any, Any], float]


@dataclass(frozen=True)
class Masking:
    """How much is masked, in which order, and how RACU is made of it.

    Attributes:
        ratios: shares of the elements of each input, or (whole numbers) how many of them; ascending.
        recursive: importance is taken anew at each ratio, from the inputs as masked so far; False: once.
        clip, least: of RACU, see `metrics.explanation.racu`.

    Raises `InputError` for ratios that cannot be.
    """

    ratios: Sequence[int | float] = RATIOS
    recursive: bool = True
    clip: bool = False
    least: float = 0.01

    def __post_init__(self) -> None:
        numbers.settle(self, least=numbers.FROM_ZERO)
        object.__setattr__(self, "ratios", _ratios(self.ratios))

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Masking:
        """From a function's keywords; those of others are passed over."""
        return told(cls(), keywords, MaskingKeywords)

    @property
    def places(self) -> tuple[float, ...]:
        """The ratios, with nothing masked before them."""
        return (0 if isinstance(self.ratios[0], int) else 0.0, *self.ratios)

    @property
    def possible(self) -> tuple[float, float]:
        """What RACU can be."""
        return (-1.0, 1.0) if self.clip else (-np.inf, np.inf)

    def racu(self, performance: ArrayLike, random: ArrayLike, everything: ArrayLike) -> NDArray[np.float64]:
        """RACU of performances `[..., place]`, with everything masked `[...]`."""
        return racu(self.places, performance, random, everything, clip=self.clip, least=self.least)


@dataclass(frozen=True)
class Retraining(Masking):
    """What Recursive ROAR masks and trains: `Masking`, and how often which models are trained.

    Attributes:
        seeds: how many (0, 1, ...), or which ones.
        mask: how elements are removed: `"mean"` of the training inputs, a number, the id of the mask token, an array
            that broadcasts over an input, or `mask(inputs, removed) -> inputs`.
        performance: `accuracy`, `macro-f1`, or a callable (class scores, labels) -> number; higher is better.

    >>> Retraining(seeds=3).seeds
    (0, 1, 2)
    """

    seeds: int | Sequence[int] = 5
    mask: Any = "mean"
    performance: str | Callable[[Any, Any], float] = "accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seeds", _seeds(self.seeds))

    def changed(self, keywords: Mapping[str, Any]) -> Retraining:
        """The same with what a function's keywords say; those of others are passed over."""
        return told(self, keywords, RetrainingKeywords)

    def plan(self, explain: Callable[..., Any] | Mapping[str, Callable[..., Any]]) -> RoarPlan:
        """What is trained to judge these explainers."""
        assert not isinstance(self.seeds, int)  # settled
        return RoarPlan(tuple(explainers(explain)), tuple(self.ratios), tuple(self.seeds))


@dataclass(frozen=True)
class RoarPlan:
    """How much there is to train: for each seed once unmasked, once with everything masked, and once for each
    ratio in between, of each measure and of random masking.
    """

    measures: tuple[str, ...]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def steps(self) -> tuple[float, ...]:
        """The ratios short of everything, at which each measure has a model of its own."""
        return tuple(ratio for ratio in self.ratios if isinstance(ratio, int) or ratio < 1)

    @property
    def trainings(self) -> int:
        """How many models are trained."""
        return len(self.seeds) * (2 + (1 + len(self.measures)) * len(self.steps))

    def __str__(self) -> str:
        return (
            f"{self.trainings} trainings: {len(self.seeds)} seeds x (unmasked + everything masked + "
            f"{len(self.steps)} ratios x ({', '.join(self.measures)}, {RANDOM}))"
        )


@numbers.checked()
def roar_plan(
    explain: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    ratios: Sequence[int | float] = RATIOS,
    seeds: int | Sequence[int] = 5,
) -> RoarPlan:
    """What `recursive_roar` would train with these arguments, without doing it.

    >>> print(roar_plan({"gradient": len}, seeds=3))
    60 trainings: 3 seeds x (unmasked + everything masked + 9 ratios x (gradient, random))
    """
    return Retraining(ratios=ratios, seeds=seeds).plan(explain)


def explainers(explain: Any) -> dict[str, Callable[..., Any]]:
    """By name; one alone is called as its function is."""
    named = explain if isinstance(explain, Mapping) else {getattr(explain, "__name__", "explanation"): explain}
    if not named:
        raise InputError("explain is empty; give at least one explainer by name")
    for name, one in named.items():
        if not isinstance(name, str) or not callable(one):
            raise InputError(f"explain[{name!r}] must be a callable (model, inputs, labels, seed) -> scores, by name")
        if name == RANDOM:
            raise InputError(f"explain names {RANDOM!r}, which is the baseline; call it something else")
    return dict(named)


def _ratios(ratios: Sequence[int | float]) -> tuple[float, ...]:
    values = np.asarray(ratios).tolist()  # plain numbers, all of one kind
    if not isinstance(values, list) or not values or not all(type(v) in (int, float) for v in values):
        raise InputError(f"ratios={ratios!r} must be shares such as 0.1, or whole numbers of elements")
    if isinstance(values[0], float):
        if not all(0 < v <= 1 for v in values) or values[0] == 1:
            raise InputError(f"ratios={ratios!r} must lie above 0 and up to 1, one of them below")
    elif min(values) < 1:
        raise InputError(f"ratios={ratios!r} must be at least 1 as numbers of elements")
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise InputError(f"ratios={ratios!r} must ascend")
    return tuple(values)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    values = tuple(range(seeds)) if isinstance(seeds, int) else tuple(np.asarray(seeds).tolist())
    values = tuple(numbers.many("seeds", values, limits=numbers.SEED))
    if not values or len(set(values)) < len(values):
        raise InputError(f"seeds={seeds!r} must be how many (at least 1), or different whole numbers from 0")
    return values

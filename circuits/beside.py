"""Two circuits side by side, of edges or of nodes: what they share, where they differ, and by how much."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.result import Result

BOTH, HERE, THERE = "both", "only here", "only there"


@dataclass(frozen=True, eq=False, repr=False)
class Beside(Result):
    """Circuit `here` against circuit `there`, made of the same; `names` are what pictures and tables call them.

    Raises `InputError` for circuits that are made of different things and for names that are empty or equal.
    """

    here: Any
    there: Any
    names: tuple[str, str] = ("here", "there")
    noun: ClassVar[str]

    def __post_init__(self) -> None:
        self.here.jaccard(self.there)  # refuses what has no overlap
        if len(self.names) != 2 or not all(self.names) or self.names[0] == self.names[1]:
            raise InputError(f"names={self.names!r} must be two different names, one for each circuit")

    @abstractmethod
    def inside(self, circuit: Any) -> Bool[Tensor, " place"]:
        """What a circuit holds, flattened."""

    @abstractmethod
    def scores(self, circuit: Any) -> Float[Tensor, " place"]:
        """The scores of everything that it could hold, flattened."""

    @abstractmethod
    def called(self, places: Int[Tensor, " some"]) -> Sequence[str]:
        """Names of places."""

    @property
    def jaccard(self) -> float:
        """Shared edges (nodes) over those in either circuit; 1.0 when both are empty."""
        return float(self.here.jaccard(self.there))

    @property
    def counts(self) -> dict[str, int]:
        """How many edges (nodes) are in both, only here and only there."""
        here, there = self.inside(self.here), self.inside(self.there)
        parts = (here & there, here & ~there, there & ~here)
        return {name: int(part.sum()) for name, part in zip((BOTH, HERE, THERE), parts, strict=True)}

    @property
    def same_scale(self) -> bool:
        """Whether the scores are of one method and objective, so that their differences mean something."""
        first, second = self.here.scores, self.there.scores
        return (first.method, first.settings.get("objective")) == (second.method, second.settings.get("objective"))

    def to_frame(self) -> pd.DataFrame:
        """What either circuit holds: edge (node), membership, here, there, difference; largest |difference| first.

        `here` and `there` are the scores that each circuit's method gave it, in the circuit or not.
        """
        held = [self.inside(circuit) for circuit in (self.here, self.there)]
        places = (held[0] | held[1]).nonzero()[:, 0]
        first, second = (self.scores(circuit).double()[places].numpy() for circuit in (self.here, self.there))
        here, there = (one[places].numpy() for one in held)
        frame = pd.DataFrame(
            {
                self.noun: self.called(places),
                "membership": np.select([here & there, here], [BOTH, HERE], THERE),
                "here": first,
                "there": second,
                "difference": first - second,
            }
        )
        return frame.sort_values("difference", key=np.abs, ascending=False, kind="stable", ignore_index=True)

    def headline(self) -> str:
        """How much they share, and their Jaccard index."""
        counts, (here, there) = self.counts, self.names
        return (
            f"{counts[BOTH]:,} {self.noun}s in both, {counts[HERE]:,} only in {here}, {counts[THERE]:,} only in "
            f"{there}; Jaccard {self.jaccard:.3f}"
        )

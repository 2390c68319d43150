"""Which part of a model is asked for next: learned from the steps that were made before."""

from __future__ import annotations

from collections import deque

_LONGEST = 4  # steps that a guess looks back on


class Order:
    """Guesses the next of numbered parts.

    Runs go through parts in few patterns: one after the other, attention alone, or back to front with each layer
    forward again. What followed on the longest known run of latest steps is taken to follow again; where nothing is
    known, the last step is repeated.
    """

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=_LONGEST)
        self._followed: dict[tuple[int, ...], int] = {}
        self._last: int | None = None

    def visit(self, part: int) -> None:
        """Tell it which part is asked for now."""
        if self._last is not None:
            step = part - self._last
            for past in self._pasts():
                self._followed[past] = step
            self._steps.append(step)
        self._last = part

    def next(self) -> int | None:
        """The part that is likely to be asked for next, which may lie beyond the ends; None before the first visit."""
        if self._last is None:
            return None
        known = (self._followed[past] for past in self._pasts() if past in self._followed)
        return self._last + next(known, self._steps[-1] if self._steps else 1)

    def _pasts(self) -> list[tuple[int, ...]]:
        steps = tuple(self._steps)
        return [steps[len(steps) - n :] for n in range(len(steps), 0, -1)]

"""The smallest circuit that reaches a goal: sizes are searched, few circuits are run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.goals import Goal, Reached
from metrics.circuit.balance import Bracket
from metrics.circuit.elements import Elements, Mask

Rung = dict[str, Any]  # a size, what it holds, what it reached
GROWTH = 8  # sizes tried first grow by this
SMALLER = (0.9, 0.75, 0.5)  # parts of the size found that must be seen to fail
MOST = 4.0  # what is reached beyond so many times the goal moves the search no further


@dataclass(eq=False)
class Sizes:
    """The circuits of some sizes, and what they reach; no size is measured twice.

    Attributes:
        elements: what circuits are made of, and the prompts that choose.
        take: the circuit of a size.
        goal: what is to be reached.
    """

    elements: Elements
    take: Callable[[int], Mask]
    goal: Goal
    masks: dict[int, Mask] = field(default_factory=dict)
    reached: dict[int, Reached] = field(default_factory=dict)

    def measure(self, sizes: Sequence[int]) -> None:
        """Run the circuits of sizes that were not run yet."""
        new = [n for n in dict.fromkeys(sizes) if n not in self.reached]
        if new:
            self.masks.update((n, self.take(n)) for n in new)
            self.reached.update(zip(new, self.goal.reached(self.elements, [self.masks[n] for n in new]), strict=True))

    def enough(self, n: int) -> bool:
        """Whether a size is enough; runs its circuit if that was not run yet."""
        self.measure([n])
        return self.reached[n].enough

    def part(self, n: int) -> float:
        """How far a size comes, within what a search can use."""
        if not n:
            return 0.0
        one = self.reached[n]
        if one.enough:
            return min(max(one.part, 1.0), MOST)
        return 0.0 if math.isnan(one.part) else max(one.part, -MOST)

    def rungs(self) -> list[Rung]:
        """What was measured, by size."""
        return [rung(self.elements, n, self.masks[n], one) for n, one in sorted(self.reached.items())]


def rung(elements: Elements, size: int, mask: Mask, reached: Reached) -> Rung:
    """A line of a report's ladder."""
    line = {"size": size, f"{elements.noun}s": elements.count(mask), "faithfulness": reached.faithfulness}
    return line if reached.kl is None else {**line, "kl": reached.kl}


def smallest(orders: Sequence[Sizes], close: float) -> tuple[Sizes, int]:
    """The smallest size found whose circuit reaches the goal, and in which of several orders; the whole if none does.

    Sizes grow eightfold from 1 until one is enough, one by one: each costs more than all before. Another order goes on
    if it is enough at a smaller one of these sizes. Between that size and the largest that is not, false position in
    the logarithm of size goes on until its ends are nearer than `close`. Faithfulness need not grow with size: nine
    tenths, three quarters and half of the size found are then tried too, and the search goes on below any of them that
    is enough. About 10 circuits.
    """
    sizes, *others = orders
    most = len(sizes.elements.places)
    growing = [n for i in range(most.bit_length()) if (n := GROWTH**i) < most]
    high = next((n for n in [*growing, most] if sizes.enough(n)), most)
    for other in others:
        while smaller := [n for n in growing if n < high]:
            if not other.enough(smaller[-1]):
                break
            sizes, high = other, smaller[-1]
    while True:
        low = max((n for n in sizes.reached if n < high), default=0)
        high = _between(sizes, low, high, close)
        smaller = [n for part in SMALLER if 0 < (n := round(part * high)) < high]
        less = next((n for n in smaller if sizes.enough(n)), None)
        if less is None:
            return sizes, high
        high = less


def _between(sizes: Sizes, low: int, high: int, close: float) -> int:
    """The smallest size seen to be enough, of those between one that is not (0: nothing) and one that is."""
    start, end = math.log(max(low, 1)), math.log(high)
    bracket = Bracket(below=sizes.part(low), above=sizes.part(high))
    while high - low > 1 and high > close * low:
        middle = round(math.exp(start + bracket.at * (end - start)))
        middle = max(low + 1, min(high - 1, middle))
        low, high = (low, middle) if sizes.enough(middle) else (middle, high)
        bracket.tell(sizes.part(middle))
    return high

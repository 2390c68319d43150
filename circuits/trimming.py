"""The last pass over a circuit that reaches a goal: what can go while the goal is still reached."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attribution.inside import AT_THE_CIRCUIT, inside_scores
from circuits.goals import Goal, Reached
from metrics.circuit.elements import Elements, Mask

FIRST = 4  # the first group is this part of the circuit
ENOUGH = 4  # prompts that say in which order edges are tried
LEAST = 64  # a group of less than this part of the circuit is not worth a run
TRIES = 8  # so many groups are tried
SINGLY = 8  # so many are tried alone, of circuits that have no more than that many groups; unless all are


@dataclass
class Trimming:
    """A circuit on its way to a smaller one; every step runs one circuit.

    Attributes:
        elements: what it is made of, and the prompts that choose.
        goal: what it goes on to reach.
        mask, reached: what is left, and what that reaches.
        circuits: how many were run.
        needed: elements that were tried alone in what is left now, and cannot go.
    """

    elements: Elements
    goal: Goal
    mask: Mask
    reached: Reached
    circuits: int
    needed: list[int]

    def drop(self, places: Sequence[int]) -> bool:
        """Take elements away, with what then leads nowhere, if the goal is still reached; whether it was."""
        left = self.elements.pruned(self.elements.without(self.mask, places))
        if not self.elements.count(left):
            return False
        (reached,) = self.goal.reached(self.elements, [left])
        self.circuits += 1
        if reached.enough:
            self.mask, self.reached = left, reached
        return reached.enough

    def left(self, order: Sequence[int]) -> list[int]:
        """What of some elements is still in the circuit."""
        flat = self.mask.flatten()
        return [place for place in order if flat[place]]


def trimmed(elements: Elements, goal: Goal, mask: Mask, scores: Tensor, reached: Reached, every: bool) -> Trimming:
    """Drop what the circuit can do without, those of least effect first: a quarter, an eighth, ..., then a few alone.

    Of edges the effect is the gradient at the circuit, which sees what scores of the whole model do not: what the
    circuit lacks; of nodes it is their score. It decides on the order alone, and is taken on a few prompts. A group
    goes if the goal is still reached, else half of it is tried, down to a `LEAST`th of the circuit and `TRIES` times.
    At the end the `SINGLY` weakest are tried alone, unless the circuit has more than `SINGLY` times `LEAST`; or `every`
    one.
    """
    state = Trimming(elements, goal, mask, reached, 0, [])
    order = _weakest_first(elements, mask, scores)
    group, least = len(order) // FIRST, len(order) // LEAST
    while group > max(1, least) and (every or state.circuits < TRIES):
        if state.drop(order[:group]):
            order = state.left(order[group:])
            group = min(group, len(order) // FIRST)
        else:
            group //= 2
    if every or len(order) <= SINGLY * LEAST:
        _singly(state, order, None if every else SINGLY)
    return state


def _singly(state: Trimming, order: Sequence[int], most: int | None) -> None:
    """Try elements alone, at `most` so many; what was needed is tried again in a circuit that has lost another."""
    queue = deque(order)
    tries = 0
    while queue and (most is None or tries < most):
        place = queue.popleft()
        if not state.left([place]):
            continue
        tries += 1
        if state.drop([place]):
            queue.extend(state.left(state.needed))
            state.needed.clear()
        else:
            state.needed.append(place)


def record(state: Trimming, before: Mask) -> dict[str, Any]:
    """What a report says of the pass."""
    elements = state.elements
    needed = elements.places.new_tensor(state.needed)
    return {
        "removed": elements.count(before) - elements.count(state.mask),
        "circuits": state.circuits,
        "tried_singly": elements.names(needed) if state.needed else [],
        "every_one": set(elements.inside(state.mask).tolist()) <= set(state.needed),
    }


def _weakest_first(elements: Elements, mask: Mask, scores: Tensor) -> list[int]:
    inside = elements.inside(mask)
    setting, effects = elements.setting, scores
    if elements.level == "edge":
        some = setting.first(ENOUGH)
        placed = None if elements.spans is None else some.placed(elements.spans)
        effects = inside_scores(some, mask, AT_THE_CIRCUIT, placed=placed)
    order = effects.flatten()[inside].sort(stable=True).indices
    found: list[int] = inside[order].tolist()
    return found

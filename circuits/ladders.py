"""The circuits of every method at every size, and of the controls beside them, run in one go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace

import numpy as np
from torch import Tensor

from attribution.edges.method import Passes
from circuits.candidates import Candidate, Scored, noise
from circuits.cost import Cost
from interp.kernels.evaluate import CircuitValues
from interp.plugins import fields_of
from interp.selection import Selection
from interp.setting import Setting
from metrics.circuit.comparison import Ladder
from metrics.circuit.elements import Elements, Mask

RANKINGS = {"absolute": True, "signed": False}


@dataclass(frozen=True)
class Controls:
    """Rows that no method should look like: random circuits, and the first method's ranking upside down."""

    n_random: int
    reference: str | None
    inverted: bool
    seed: int

    def rows(self, scored: list[Scored], selection: Selection, elements: Elements) -> list[Scored]:
        """The rows; the scores of the first method stand for the inverted one's, which are turned later."""
        rows = []
        if self.inverted:
            first = scored[0]
            turned = Candidate(f"inverted {first.candidate.label}", first.candidate.selection)
            rows.append(Scored(turned, first.values, Passes(math.nan, math.nan), Cost()))
        if self.n_random:
            drawn = Candidate("random", selection)
            rows.append(Scored(drawn, noise(elements.full, self.seed), Passes(0.0, 0.0), Cost(0.0)))
        return rows

    def circuits(self, elements: Elements, like: Mask, size: int) -> list[Mask]:
        """Random circuits of a size; of nodes those like a circuit of that size: of its layers, and near in norm."""
        wanted = size if elements.level == "edge" else None
        return elements.random(like, self.n_random, self.seed, self.reference, wanted)


def judge(
    scoring: Elements, judging: Setting, rows: Sequence[Scored], controls: Controls
) -> tuple[CircuitValues, list[Ladder]]:
    """Run every circuit of every row once; equal circuits of several methods are one."""
    stack: list[Mask] = []
    placed: list[tuple[str, str, tuple[int, ...], list[slice]]] = []  # name, ranking, edges, draws of each size
    first: list[Mask] = []  # the first method's circuits

    def put(masks: list[Mask]) -> slice:
        stack.extend(masks)
        return slice(len(stack) - len(masks), len(stack))

    for row in rows:
        label, rankings = row.candidate.label, _rankings(row.candidate.selection)
        if label == "random":
            sizes = scoring.ladder
            draws = [put(controls.circuits(scoring, *pair)) for pair in zip(first, sizes, strict=True)]
            placed += [(label, ranking, sizes, draws) for ranking in rankings]
            continue
        for ranking, selection in rankings.items():
            masks = _masks(scoring, row, ranking, selection)
            first = first or masks
            placed.append((label, ranking, tuple(map(scoring.count, masks)), [put([m]) for m in masks]))
    values = scoring.on(judging).measure(stack)
    found = values.circuits.double().numpy()
    ladders = [
        Ladder(label, ranking, sizes, np.stack([found[draws].mean(0) for draws in places]))
        for label, ranking, sizes, places in placed
    ]
    return values, ladders


def _rankings(selection: Selection) -> dict[str, Selection]:
    """The selection by |score| and by signed score, where it has both; else as it is."""
    if is_dataclass(selection) and "absolute" in fields_of(selection):
        return {name: replace(selection, absolute=absolute) for name, absolute in RANKINGS.items()}
    return {"absolute": selection}


def _masks(scoring: Elements, row: Scored, ranking: str, selection: Selection) -> list[Mask]:
    """A row's circuits on the ladder."""
    values: Tensor = row.values
    if row.candidate.label.startswith("inverted "):
        # above zero, so that absolute and signed selection alike take the smallest first
        values = (values.abs().max() + 1 - values.abs() if RANKINGS[ranking] else -values) * scoring.full
    return [rule(values) for rule in scoring.rules(selection, values, scoring.ladder)]

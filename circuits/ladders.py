"""The circuits of every method at every size, and of the controls beside them, run in one go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from attribution.edges.method import Passes
from circuits.candidates import Candidate, Scored, masks_of, noise
from circuits.cost import Cost
from interp.kernels.evaluate import CircuitValues
from interp.plugins import fields_of
from interp.selection import Selection
from metrics.circuit.comparison import Ladder
from metrics.circuit.elements import Elements, Mask
from metrics.circuit.evaluate import together
from metrics.circuit.output import OUTPUT_OBJECTIVES

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


@dataclass(frozen=True, eq=False)
class Ran:
    """What the circuits of a stack did, prompt by prompt.

    Attributes:
        values: objectives of the model, of the empty circuit, and of all circuits.
        outputs: KL(model || circuit) and whether the most likely token is the model's, `[2, circuit, n]`.
    """

    values: CircuitValues
    outputs: Float[np.ndarray, "output circuit n"]

    @property
    def ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Objectives of the model, and of the empty circuit."""
        return self.values.clean.double().numpy(), self.values.empty.double().numpy()

    def of(self, draws: slice) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "output n"]]:
        """Objectives and outputs of some circuits, on average."""
        return self.values.circuits[draws].double().numpy().mean(0), self.outputs[:, draws].mean(1)


@dataclass
class Stack:
    """Circuits that are run in one go; equal ones are one."""

    masks: list[Mask] = field(default_factory=list)

    def put(self, masks: Sequence[Mask]) -> slice:
        """Add circuits; where they stand."""
        self.masks.extend(masks)
        return slice(len(self.masks) - len(masks), len(self.masks))

    def run(self, elements: Elements) -> Ran:
        """Run them all on the elements' prompts."""
        circuits = together([elements.circuit(one) for one in self.masks])
        values, minus_kl, same = elements.setting.measure_all(circuits, (None, *OUTPUT_OBJECTIVES))
        # a divergence of zero may come out as minus a rounding
        kl = np.maximum(-minus_kl.circuits.double().numpy(), 0.0)
        return Ran(values, np.stack([kl, same.circuits.double().numpy()]))


@dataclass(frozen=True)
class Placed:
    """A row's circuits at each size in the stack: where they stand, and how many edges (nodes) they hold."""

    method: str
    ranking: str
    edges: tuple[int, ...]
    places: list[slice]

    def ladder(self, ran: Ran) -> Ladder:
        """What they did."""
        values, outputs = zip(*map(ran.of, self.places), strict=True)
        return Ladder(self.method, self.ranking, self.edges, np.stack(values), np.stack(outputs, 1))


def placed(
    stack: Stack, scoring: Elements, rows: Sequence[Scored], controls: Controls, signed: bool = True
) -> list[Placed]:
    """Put the circuits of every row, by |score| and where it has both by signed score, onto a stack."""
    found: list[Placed] = []
    first: list[Mask] = []  # the first method's circuits
    for row in rows:
        label, rankings = row.candidate.label, _rankings(row.candidate)
        rankings = rankings if signed else {"absolute": rankings["absolute"]}
        if label == "random":
            sizes = scoring.ladder
            draws = [stack.put(controls.circuits(scoring, *pair)) for pair in zip(first, sizes, strict=True)]
            found += [Placed(label, ranking, sizes, draws) for ranking in rankings]
            continue
        for ranking, selection in rankings.items():
            masks = _masks(scoring, row, ranking, selection)
            first = first or masks
            found.append(Placed(label, ranking, tuple(map(scoring.count, masks)), [stack.put([m]) for m in masks]))
    return found


def _rankings(candidate: Candidate) -> dict[str, Selection]:
    """The selection by |score| and by signed score, where it has both; else as it is."""
    selection = candidate.selection
    if is_dataclass(selection) and "absolute" in fields_of(selection) and not candidate.circuits:
        return {name: replace(selection, absolute=absolute) for name, absolute in RANKINGS.items()}
    return {"absolute": selection}


def _masks(scoring: Elements, row: Scored, ranking: str, selection: Selection) -> list[Mask]:
    """A row's circuits on the ladder; of circuits that are there, these and the whole model."""
    if row.candidate.circuits:
        return [*masks_of(scoring, row.candidate), scoring.full]
    values: Tensor = row.values
    if row.candidate.label.startswith("inverted "):
        # above zero, so that absolute and signed selection alike take the smallest first
        values = (values.abs().max() + 1 - values.abs() if RANKINGS[ranking] else -values) * scoring.full
    return [rule(values) for rule in scoring.rules(selection, values, scoring.ladder)]

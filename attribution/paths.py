"""Where gradients are taken: each path is a list of weighted points, each point a run to differentiate.

A point sets the output of one site (the input embedding, all heads of a layer together, or a layer's MLP) to
`alpha * clean + (1 - alpha) * corrupted`; everything behind it is recomputed, everything else is clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from interp import numbers
from interp.errors import choose

QUADRATURES = ("left", "right", "midpoint", "gauss-legendre")
Credit = Literal["all", "own"]
CREDITS = ("all", "own")


@dataclass(frozen=True)
class Site:
    """A sub-layer's output: `kind` is "input", "heads" or "mlp"; `layer` means nothing for the input."""

    kind: Literal["input", "heads", "mlp"] = "input"
    layer: int = 0


@dataclass(frozen=True)
class Point:
    """A run at which gradients are taken, with its weight in the average."""

    weight: float
    alpha: float
    site: Site = Site()


@dataclass(frozen=True)
class Path:
    """Points in groups; with `credit="own"` a group's gradients score the sources of its own site alone."""

    groups: tuple[tuple[Point, ...], ...]
    credit: Credit = "all"

    @property
    def n_points(self) -> int:
        """Forward and backward passes per prompt."""
        return sum(len(group) for group in self.groups)

    @property
    def only_clean(self) -> bool:
        """Whether gradients are taken at the clean run and nowhere else."""
        return all(point.alpha == 1 and point.site.kind == "input" for group in self.groups for point in group)


def clean_path() -> Path:
    """The clean run alone (attribution patching)."""
    return Path(((Point(1.0, 1.0),),))


def clean_corrupted_path() -> Path:
    """The clean and the corrupted run, half each."""
    return Path(((Point(0.5, 1.0), Point(0.5, 0.0)),))


def input_path(steps: int, quadrature: str) -> Path:
    """Integrated gradients over the input embedding, from corrupted to clean."""
    return Path((tuple(Point(w, a) for a, w in quadrature_rule(steps, quadrature)),))


def activation_path(n_layers: int, steps: int, quadrature: str, credit: str) -> Path:
    """Integrated gradients over each sub-layer's output in turn.

    `credit="all"` averages every edge over the passes of every site, as the authors' code does; `credit="own"`
    credits an edge in the passes of its own source alone, as the paper writes it.
    """
    choose("credit", credit, CREDITS)
    sites = [Site("input")]
    for layer in range(n_layers):
        sites += [Site("heads", layer), Site("mlp", layer)]
    share = 1.0 if credit == "own" else 1 / len(sites)
    rule = quadrature_rule(steps, quadrature)
    groups = tuple(tuple(Point(w * share, a, site) for a, w in rule) for site in sites)
    return Path(groups, "own" if credit == "own" else "all")


def check_rule(steps: int, quadrature: str) -> None:
    """Raise `InputError` for an unknown quadrature or an impossible number of steps."""
    choose("quadrature", quadrature, QUADRATURES)
    numbers.whole("steps", steps, numbers.STEPS)


def settle_rule(method: Any, quadrature: str) -> None:
    """Give a method that names no quadrature this one, and check it."""
    object.__setattr__(method, "quadrature", method.quadrature or quadrature)
    check_rule(method.steps, method.quadrature)


def quadrature_rule(steps: int, quadrature: str) -> list[tuple[float, float]]:
    """`(alpha, weight)` of a quadrature on [0, 1]."""
    check_rule(steps, quadrature)
    if quadrature == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return [((1 + float(x)) / 2, float(w) / 2) for x, w in zip(nodes, weights, strict=True)]
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[quadrature]
    return [((s + shift) / steps, 1 / steps) for s in range(steps)]

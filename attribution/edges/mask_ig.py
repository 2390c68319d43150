"""`mask-ig`: integrated gradients along the weights of a circuit's edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from attribution.edges.method import Method, Passes
from attribution.inside import Inside, Points
from attribution.paths import quadrature_rule, settle_rule
from attribution.scores import Level
from attribution.spans import refuse_nodes
from interp.errors import choose
from interp.graph import ComputationalGraph
from interp.setting import Setting


@dataclass(frozen=True)
class MaskIG(Method):
    """Integrated gradients along the weights of a circuit's edges: shares of M(circuit) - M(empty circuit).

    `inside` is the circuit (None: the whole model), as for `EAP`. The shares add up only as far as the quadrature
    goes: `scores.whole` and `scores.gap` say how far.
    """

    level: Level = "edge"
    steps: int = 5
    quadrature: str | None = "gauss-legendre"
    inside: Any = None
    positions: Any = None

    by_position: ClassVar[bool] = True
    name = "mask-ig"
    paper: ClassVar[str] = "Sundararajan et al. 2017, arXiv:1703.01365"
    formula: ClassVar[tuple[str, str]] = ("2S+4", "S")

    def __post_init__(self) -> None:
        choose("level", self.level, ("edge", "node"))
        refuse_nodes(self.level, self.positions)
        settle_rule(self, "gauss-legendre")

    def check(self, setting: Setting) -> None:
        super().check(setting)
        self._at(setting).check(self.name, self.points)

    def passes(self, graph: ComputationalGraph) -> Passes:
        return Passes(2 * self.steps + 4, self.steps)

    @property
    def points(self) -> Points:
        """Where on the way from the empty circuit gradients are taken, and their weights."""
        return quadrature_rule(self.steps, str(self.quadrature))

    def settings(self) -> dict[str, Any]:
        return {"steps": self.steps, "quadrature": self.quadrature}

    def _at(self, setting: Setting) -> Inside:
        return Inside.of(setting.graph.edge_mask if self.inside is None else self.inside, setting, self.positions)

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        inside = self._at(setting)
        values = inside.scores(self.points, self.name)
        whole, gap = inside.shortfall(values)
        return inside.at_level(values, self.level), {"whole": whole, "gap": gap, **inside.told(self.level)}

    def values(self, setting: Setting) -> Tensor:
        return self._found(setting)[0]

"""Scores inside a circuit: gradients with respect to the weights of edges, at a circuit or on the way to it.

    score(u, t) = sum over points of  weight * dM/dw[u, t]  at  w = alpha * mask

One point at alpha = 1 is the gradient at the circuit (`eap` with `inside=`); points of a quadrature on [0, 1] are
integrated gradients along the weights (`mask-ig`), whose scores of the circuit's edges add up to
M(circuit) - M(empty circuit).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.method import check_objective
from attribution.spans import placed_in, told_of
from interp.errors import InputError, short
from interp.kernels.soft import soft_values
from interp.setting import Setting
from interp.span_mask import SpanMask, span_masks
from interp.spans import Exactly, Placed

Points = Sequence[tuple[float, float]]  # (alpha, weight)
AT_THE_CIRCUIT: Points = ((1.0, 1.0),)
_POINTS_AT_ONCE = 16  # whose [source, target] gradients are kept side by side: bounds memory on long paths


def inside_scores(
    setting: Setting,
    mask: Bool[Tensor, "*each source target"],
    points: Points,
    advance: Callable[[float], None] = lambda n: None,
    placed: Placed | None = None,
) -> Float[Tensor, "*span source target"]:
    """Scores of all edges, inside the mask and outside; float32, or float64 for a float64 model; on the CPU.

    With `placed` at each of its spans: of a mask without spans their sum is what they are without.

    `advance` is called with the number of prompts done, a fraction for each point.
    """
    spans = () if placed is None else (len(placed.spans),)
    total = torch.zeros(*spans, *setting.graph.shape, dtype=torch.float64, device="cpu")
    for first in range(0, len(points), _POINTS_AT_ONCE):
        some = points[first : first + _POINTS_AT_ONCE]
        found = soft_values(
            setting.anatomy, setting.graph, setting.prompts, torch.stack([alpha * mask.double() for alpha, _ in some]),
            setting.ablator, setting.goal, batch_size=setting.run.batch_size, memory=setting.run.memory,
            placed=placed, advance=lambda n: advance(n / len(points)),
        )  # fmt: skip
        for (_, weight), gradient in zip(some, found.gradients, strict=True):
            total += weight * gradient
    return total.to(found.gradients.dtype)


@dataclass(frozen=True, eq=False)
class Inside:
    """A circuit of edges that scores are taken inside of, in a setting.

    `mask` is bool `[source, target]`, or `[span, source, target]` over the spans of `placed`. With `placed` scores are
    told apart at its spans, which those of a plain circuit may be too; None: all positions together.
    """

    setting: Setting
    mask: Bool[Tensor, "*span source target"]
    placed: Placed | None

    @classmethod
    def of(cls, circuit: Any, setting: Setting, positions: Any) -> Inside:
        """From what a caller gives: a bool mask, or anything with such a `.mask`, of edges or of edges by position.

        Raises `InputError` for what does not fit the model, and for `positions` that are not those of the circuit.
        """
        by_span = span_masks(circuit)
        if by_span is None:
            mask = setting.graph.check_mask(getattr(circuit, "mask", circuit), "inside")
            return cls(setting, mask, placed_in(setting, positions))
        (own,) = by_span
        if positions is not None and setting.placed_at(positions).spans != own.spans:
            raise InputError(
                f"inside is a circuit at the spans {list(own.spans)}, and positions={short(positions)} means others; "
                "leave positions out"
            )
        return cls(setting, own.check(setting.graph, setting.anatomy.name), placed_in(setting, Exactly(own.spans)))

    def check(self, method: str, points: Points) -> None:
        """Raise `InputError` for an objective without a gradient at these points on the way to the circuit."""
        whole = bool((self.mask == self.setting.graph.edge_mask).all()) and all(alpha == 1 for alpha, _ in points)
        check_objective(self.setting.goal, method, whole)

    def scores(self, points: Points, method: str) -> Float[Tensor, "*span source target"]:
        """Scores of all edges, inside the circuit and outside."""
        with self.setting.run.progress(f"scoring edges ({method})", len(self.setting)) as bar:
            return inside_scores(self.setting, self.mask, points, bar.advance, self.placed)

    def at_level(
        self, values: Float[Tensor, "*span source target"], level: str
    ) -> Float[Tensor, "*span source target"] | Float[Tensor, " source"]:
        """The scores, or of nodes the sums over their edges inside (at all spans), since no one else reads a node."""
        if level != "node":
            return values
        of_edges: Float[Tensor, "*span source"] = (values * self.mask).sum(-1)
        return of_edges if of_edges.ndim == 1 else of_edges.sum(0)

    def told(self, level: str) -> dict[str, Any]:
        """What scores remember of the circuit and its spans."""
        return {"edges_inside": int(self.mask.sum()), **told_of(self.placed if level == "edge" else None)}

    def shortfall(self, values: Float[Tensor, "*span source target"]) -> tuple[float, float]:
        """M(circuit) - M(empty), and how much less than that scores along the weights of its edges add up to."""
        masks: Tensor | list[SpanMask] = self.mask[None]
        if self.placed is not None and self.mask.ndim == 3:
            masks = [SpanMask(self.mask, self.placed.spans)]
        measured = self.setting.measure(masks)
        whole = float((measured.circuits[0].double() - measured.empty.double()).mean())
        return whole, whole - float(values[self.mask.expand_as(values)].double().sum())

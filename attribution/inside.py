"""Scores inside a circuit: gradients with respect to the weights of edges, at a circuit or on the way to it.

    score(u, t) = sum over points of  weight * dM/dw[u, t]  at  w = alpha * mask

One point at alpha = 1 is the gradient at the circuit (`eap` with `inside=`); points of a quadrature on [0, 1] are
integrated gradients along the weights (`mask-ig`), whose scores of the circuit's edges add up to
M(circuit) - M(empty circuit).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.kernels.soft import soft_values
from interp.setting import Setting
from interp.spans import Placed

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


def shortfall(
    setting: Setting, mask: Bool[Tensor, "source target"], values: Float[Tensor, "source target"]
) -> tuple[float, float]:
    """M(circuit) - M(empty), and how much less than that scores along the weights of its edges add up to."""
    measured = setting.measure(mask[None])
    whole = float((measured.circuits[0].double() - measured.empty.double()).mean())
    return whole, whole - float(values[mask].double().sum())


def node_scores(
    values: Float[Tensor, "source target"], mask: Bool[Tensor, "source target"]
) -> Float[Tensor, " source"]:
    """A node's score inside a circuit: the sum over its edges there, since no one else reads it."""
    return (values * mask).sum(1)

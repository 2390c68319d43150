"""Scores inside a circuit: gradients with respect to the weights of edges, at a circuit or on the way to it.

    score(u, t) = sum over points of  weight * dM/dw[u, t]  at  w = alpha * mask

One point at alpha = 1 is the gradient at the circuit (`eap` with `inside=`); points of a quadrature on [0, 1] are
integrated gradients along the weights (`mask-ig`), whose scores of the circuit's edges add up to
M(circuit) - M(empty circuit).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.methods import Method
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator
from interp.kernels.evaluate import circuit_values
from interp.kernels.soft import soft_values
from interp.objectives import Objective
from interp.tasks.prompts import Prompts

Points = Sequence[tuple[float, float]]  # (alpha, weight)
AT_THE_CIRCUIT: Points = ((1.0, 1.0),)
_POINTS_AT_ONCE = 16  # whose [source, target] gradients are kept side by side: bounds memory on long paths


def inside_scores(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    prompts: Prompts,
    mask: Bool[Tensor, "source target"],
    points: Points,
    ablator: Ablator,
    objective: Objective,
    *,
    batch_size: int | None,
    memory: int | None,
    advance: Callable[[float], None] = lambda n: None,
) -> Float[Tensor, "source target"]:
    """Scores of all edges, inside the mask and outside; float32, or float64 for a float64 model; on the CPU.

    `advance` is called with the number of prompts done, a fraction for each point.
    """
    total = torch.zeros(graph.shape, dtype=torch.float64, device="cpu")
    for first in range(0, len(points), _POINTS_AT_ONCE):
        some = points[first : first + _POINTS_AT_ONCE]
        found = soft_values(
            anatomy, graph, prompts, torch.stack([alpha * mask.double() for alpha, _ in some]), ablator, objective,
            batch_size=batch_size, memory=memory, advance=lambda n: advance(n / len(points)),
        )  # fmt: skip
        for (_, weight), gradient in zip(some, found.gradients, strict=True):
            total += weight * gradient
    return total.to(found.gradients.dtype)


def checked_inside(
    method: Method, inside: Any, rules: object, graph: ComputationalGraph
) -> Bool[Tensor, "source target"] | None:
    """The circuit to score in, or None where the whole model is scored by another engine.

    Raises `InputError` for a mask that is not one of this graph, and for a method without a meaning inside a circuit.
    """
    if inside is None:
        return graph.edge_mask if method.path == "mask" else None
    if method.path not in ("clean", "mask") or method.rules != "gradient" or rules is not None:
        given = f"method={method.name!r}" if rules is None else f"method={method.name!r} with rules={rules!r}"
        raise InputError(
            f"{given} scores the whole model; inside a circuit use method='eap' (the gradient at the circuit), "
            "'mask-ig' (along the weights of its edges) or, for nodes, 'attribution-patching'"
        )
    return graph.check_mask(getattr(inside, "mask", inside), "inside")


def shortfall(
    anatomy: Anatomy,
    graph: ComputationalGraph,
    prompts: Prompts,
    mask: Bool[Tensor, "source target"],
    ablator: Ablator,
    objective: Objective,
    values: Float[Tensor, "source target"],
    **run: Any,
) -> tuple[float, float]:
    """M(circuit) - M(empty), and how much less than that scores along the weights of its edges add up to."""
    measured = circuit_values(anatomy, graph, prompts, mask[None], ablator, objective, **run)
    whole = float((measured.circuits[0].double() - measured.empty.double()).mean())
    return whole, whole - float(values[mask].double().sum())


def node_scores(
    values: Float[Tensor, "source target"], mask: Bool[Tensor, "source target"]
) -> Float[Tensor, " source"]:
    """A node's score inside a circuit: the sum over its edges there, since no one else reads it."""
    return (values * mask).sum(1)

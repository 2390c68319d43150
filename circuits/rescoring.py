"""Scores that are made again inside what is left, by gradients: for `metrics.recursive_curve`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from attribution import attribute
from interp.inspection import anatomy_of
from interp.tasks.task import Task
from metrics.circuit.evaluate import graph_of_mask


def rescorer(
    model: Any, task: Task, method: str = "eap", **settings: Any
) -> Callable[[Bool[Tensor, "source target"]], Float[Tensor, "source target"]]:
    """A `score` for `metrics.recursive_curve`: the method's scores of all edges inside a circuit.

    What `metrics.removal_scores` measures edge by edge, to first order and for all edges at once: about three passes
    over the prompts a call for `eap`, three times `steps` for `mask-ig`.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to score on; use others than the curve is measured on.
        method: `eap` or `mask-ig`.
        **settings: of `attribution.attribute`, such as `ablation` (the one that the curve is measured under), `steps`
            and `objective`.

    Raises:
        InputError: when it is called, whatever `attribute` refuses.

    For instance `metrics.recursive_curve(model, held_out, rescorer(model, scoring))`.
    """
    settings.setdefault("quiet", True)

    def score(left: Bool[Tensor, "source target"]) -> Float[Tensor, "source target"]:
        kv = graph_of_mask(anatomy_of(model), left).kv
        return attribute(model, task, method, inside=left, kv=kv, **settings).values

    return score

"""Scores that are made again inside what is left, by gradients: for `metrics.recursive_curve`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack

from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.method import Method
from attribution.engines import ScoringKeywords, chosen_method
from circuits.levels import scored
from interp import numbers
from interp.keywords import check_keywords, chosen
from interp.tasks.task import Task
from metrics.circuit.evaluate import EvaluateKeywords
from metrics.circuit.left import Asking


class RescorerKeywords(ScoringKeywords, EvaluateKeywords, total=False):
    """The keywords of `rescorer`."""


@numbers.checked()
def rescorer(
    model: Any, task: Task, method: str | Method = "eap", **keywords: Unpack[RescorerKeywords]
) -> Callable[[Bool[Tensor, "*axes"]], Float[Tensor, "*axes"]]:
    """A `score` for `metrics.recursive_curve`: the method's scores of all edges, or nodes, inside a circuit.

    What `metrics.removal_scores` measures one by one, to first order and for all at once: about three passes over the
    prompts a call for `eap`, three times `steps` for `mask-ig`. Of nodes the gradients are those at their weights: a
    node of weight w gives w times its output and 1 - w times its counterfactual.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to score on; use others than the curve is measured on.
        method: `eap` or `mask-ig`, by name or as an object: `MaskIG(steps=10)`.
        level: `neuron`, `head`, `node` or `feature` for masks of nodes; None: of edges.
        spans, dictionaries, errors: of nodes, as in `metrics.evaluate`.
        ablation, objective: those that the curve is measured under.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        **keywords: of the method, such as `steps`.

    Raises:
        InputError: when it is called, whatever `attribute` refuses.

    For instance `metrics.recursive_curve(model, held_out, rescorer(model, scoring))`, or for neurons
    `metrics.recursive_curve(model, held_out, rescorer(model, scoring, level="neuron"), level="neuron")`.
    """
    check_keywords("rescorer", keywords, RescorerKeywords)
    asking = Asking(model, task, {"quiet": True, **keywords})

    def score_inside(left: Bool[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        elements, mask = asking.about(left)
        told = {**chosen(keywords, ScoringKeywords), "inside": elements.circuit(mask)}
        if isinstance(method, Method):  # a dataclass, of which one with another field is made
            return scored(elements, replace(method, **told)).values  # type: ignore[type-var]
        return scored(elements, chosen_method(method, told)).values

    return score_inside

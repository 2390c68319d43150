"""Scores that are made again inside what is left, by gradients: for `metrics.recursive_curve`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack

from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.method import Method
from attribution.engines import ScoringKeywords, score
from interp import numbers
from interp.inspection import anatomy_of
from interp.keywords import check_keywords, chosen
from interp.run import RunKeywords
from interp.setting import Setting, UnderKeywords
from interp.tasks.task import Task
from metrics.circuit.evaluate import graph_of_mask


class RescorerKeywords(ScoringKeywords, UnderKeywords, RunKeywords, total=False):
    """The keywords of `rescorer`."""


@numbers.checked()
def rescorer(
    model: Any, task: Task, method: str | Method = "eap", **keywords: Unpack[RescorerKeywords]
) -> Callable[[Bool[Tensor, "source target"]], Float[Tensor, "source target"]]:
    """A `score` for `metrics.recursive_curve`: the method's scores of all edges inside a circuit.

    What `metrics.removal_scores` measures edge by edge, to first order and for all edges at once: about three passes
    over the prompts a call for `eap`, three times `steps` for `mask-ig`.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to score on; use others than the curve is measured on.
        method: `eap` or `mask-ig`, by name or as an object: `MaskIG(steps=10)`.
        ablation, objective: those that the curve is measured under.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        **keywords: of the method, such as `steps`.

    Raises:
        InputError: when it is called, whatever `attribute` refuses.

    For instance `metrics.recursive_curve(model, held_out, rescorer(model, scoring))`.
    """
    check_keywords("rescorer", keywords, RescorerKeywords)
    keywords = {"quiet": True, **keywords}
    settings: dict[Any, Setting] = {}  # by the kind of graph: what all calls share is computed once

    def score_inside(left: Bool[Tensor, "source target"]) -> Float[Tensor, "source target"]:
        kv = graph_of_mask(anatomy_of(model), left).kv
        if kv not in settings:
            settings[kv] = Setting.of(model, task, {**keywords, "kv": kv})
        told = {**chosen(keywords, ScoringKeywords), "inside": left}
        if isinstance(method, Method):  # a dataclass, of which one with another field is made
            return score(settings[kv], replace(method, **told)).values  # type: ignore[type-var]
        return score(settings[kv], method, told).values

    return score_inside

"""What is left of a model as a score is asked about it: which elements it is over, and exact scores by removal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose
from interp.graph import KV
from interp.inspection import anatomy_of
from interp.keywords import check_keywords
from interp.node_mask import NODE_LEVELS, node_masks, spans_of
from interp.running import door
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.elements import EdgeElements, Elements, Mask, NodeElements, Values, elements_at
from metrics.circuit.evaluate import (
    EvaluateKeywords,
    graph_of_mask,
    refuse_dictionaries,
    setting_of_scores,
)
from metrics.circuit.node_scores import NodeScores

Rescore = Callable[[Mask], Values]
_STACK = 64  # circuits that are measured at a time


def elements_to_ablate(
    model: Any, task: Task, score: Any, keywords: Mapping[str, Any]
) -> tuple[Elements, Values | None]:
    """What `score`, scores or a callable that makes them, is over, and the scores; None for a callable.

    Raises `InputError` for scores of another shape and for what is neither.
    """
    if callable(score) and not isinstance(score, Tensor):
        level, spans = keywords.get("level") or "edge", spans_of(keywords.get("spans"))
        choose("level", level, ("edge", *NODE_LEVELS))
        refuse_dictionaries(keywords, level)
        if level == "edge" and spans is not None:
            raise InputError(f"spans goes with level: one of {', '.join(map(repr, NODE_LEVELS))}")
        return elements_at(Setting.of(model, task, keywords), level, spans), None
    nodes = NodeScores.of(score, keywords)
    refuse_dictionaries(keywords, "edge" if nodes is None else nodes.level)
    if nodes is None:
        setting, values = setting_of_scores(model, task, score, keywords)
        return EdgeElements(setting), values
    elements = NodeElements(Setting.of(model, task, keywords, score), nodes.level, nodes.spans)
    return elements, nodes.among(elements.setting).values


class Asking:
    """Elements of whatever mask a score is asked about, in settings that are made once.

    `keywords` are those of `evaluate`; a mask of edges tells its graph, bare ones of nodes need `level`.
    """

    def __init__(self, model: Any, task: Task, keywords: Mapping[str, Any]) -> None:
        self._model, self._task, self._keywords = model, task, dict(keywords)
        self._edges: dict[KV, Setting] = {}  # by the kind of graph, which the mask tells
        self._nodes: Setting | None = None

    def about(self, left: Any) -> tuple[Elements, Mask]:
        """What a mask is of, and the mask; raises `InputError` for one that does not fit the model."""
        nodes = node_masks(left, self._keywords.get("level"), self._keywords.get("spans"))
        refuse_dictionaries(self._keywords, nodes[0].level if nodes else "edge")
        if nodes is None:
            kv = graph_of_mask(anatomy_of(self._model), getattr(left, "mask", left)).kv
            if kv not in self._edges:
                self._edges[kv] = Setting.of(self._model, self._task, {**self._keywords, "kv": kv})
            edges = EdgeElements(self._edges[kv])
            return edges, edges.read(left, "left")
        if self._nodes is None:
            self._nodes = Setting.of(self._model, self._task, self._keywords)
        elements = NodeElements(self._nodes, nodes[0].level, nodes[0].spans)
        return elements, elements.read(nodes[0], "left")


@numbers.checked()
@door
def removal_scores(model: Any, task: Task, **keywords: Unpack[EvaluateKeywords]) -> Rescore:
    """A `score` for `recursive_curve`: how far the mean objective falls when an edge is taken out of what is left.

    Or a node: with `level` (and `spans`, `dictionaries`, `errors`) masks are of nodes. Exact inside any circuit, at one
    circuit for every edge (node) that is left: for small models and small circuits. `keywords` are those of `evaluate`.
    """
    check_keywords("removal_scores", keywords, EvaluateKeywords)
    asking = Asking(model, task, keywords)

    def score(left: Mask) -> Values:
        elements, mask = asking.about(left)
        scores = torch.zeros(mask.numel(), dtype=torch.float64, device="cpu")
        whole = elements.measure([mask]).circuits[0].double().mean()
        inside = elements.inside(mask)
        for part in inside.split(_STACK) if len(inside) else ():
            after = elements.measure([elements.without(mask, [place]) for place in part.tolist()])
            scores[part] = whole - after.circuits.double().mean(1)
        return scores.view(mask.shape)

    return score

"""Planted circuits by position: at which positions of each prompt the true edges compute the answer."""

from __future__ import annotations

from typing import NamedTuple

import torch

from circuits.planted.models import Planted
from interp.errors import InputError
from interp.span_mask import SpanMask
from interp.tasks.spans import REST
from interp.tasks.task import Task

# induction: the asked letter stands `before` the answer, and again at the end. Each position's key is compared, since a
# counterfactual one may match; what stands in front of it is read one position earlier, so not at the end
_SPANS = ("before", "answer", "end", REST)
_INDUCTION = {
    "input->a0.h0<v>": ("before", "answer", REST),
    "input->a1.h1<q>": ("end",),
    "input->a1.h3<q>": ("end",),
    "input->a1.h1<v>": ("answer",),
    "input->a1.h3<v>": ("answer",),
    "a0.h0->a1.h1<k>": _SPANS,
    "a0.h0->a1.h3<k>": _SPANS,
    "a1.h1->logits": ("end",),
    "a1.h3->logits": ("end",),
}


class ByPosition(NamedTuple):
    """A task of a planted model with its spans, and the true edges at these."""

    task: Task
    mask: SpanMask


def by_position(planted: Planted, task: Task | None = None) -> ByPosition:
    """The true circuit by position, and the prompts (None: the planted model's) with the spans that it is over.

    Known of `induction`: spans are `before` (the asked letter, the first time), `answer` behind it, and `end`.

    Raises `InputError` for other planted models.

    >>> from circuits.planted import load
    >>> by_position(load("induction", n=4)).mask.n_edges
    17
    """
    if planted.name != "induction":
        raise InputError(f"name={planted.name!r} has no circuit by position; that of 'induction' is known")
    asked = planted.task if task is None else task
    examples = [list(example.clean) for example in asked.examples]
    first = [tokens.index(tokens[-1]) for tokens in examples]
    spans = [{"before": (at, at + 1), "answer": (at + 1, at + 2), "end": (-1, None)} for at in first]
    named = Task(asked.name, asked.examples, objective=asked.objective, seed=asked.seed, spans=spans)
    mask = torch.zeros(len(_SPANS), *planted.graph.shape, dtype=torch.bool, device="cpu")
    for edge, places in _INDUCTION.items():
        for place in places:
            mask[_SPANS.index(place)][planted.graph.edge_index(edge)] = True
    return ByPosition(named, SpanMask(mask, _SPANS))

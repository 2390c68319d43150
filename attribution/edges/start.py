"""Where learned masks start from: the scores of another method."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.method import Method
from attribution.edges.registry import METHODS
from attribution.scores import Scores
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.setting import Setting

Start = Scores | Method | str  # scores, or the method that makes them (by name)


def check_start(start: Start | None, graph: ComputationalGraph) -> None:
    """Raise `InputError` for scores that are not of a graph's edges."""
    if isinstance(start, Scores) and (start.level != "edge" or start.graph != graph):
        raise InputError(f"start must be edge scores over {graph}; got {start}")


def start_scores(start: Start, setting: Setting) -> Scores:
    """The scores that a start means."""
    scores = start if isinstance(start, Scores) else METHODS.make(start).scores(setting)
    check_start(scores, setting.graph)
    return scores


def falling(scores: Scores, first: float, last: float) -> Float[Tensor, " edge"]:
    """From `first` for the edge of largest |score| to `last`, in even steps."""
    strength = scores.values[scores.graph.edge_mask].abs()
    order = strength.argsort(descending=True, stable=True)
    found = torch.zeros(len(order), dtype=torch.float64, device="cpu")
    found[order] = torch.linspace(first, last, len(order), dtype=torch.float64, device="cpu")
    return found

"""The parts of a circuit that can be knocked out of it: its edges, or its nodes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError, choose
from interp.node_mask import NODE_LEVELS, axes_of
from interp.tasks.task import Task
from metrics.circuit.elements import Elements, Mask, elements_of
from metrics.circuit.evaluate import judging

Part = list[int]  # places of the elements that go together


@dataclass(frozen=True)
class Parts:
    """Single elements of a circuit; or of a circuit of edges its heads and MLPs, each with all edges out of it.

    Attributes:
        elements: what the circuit is made of.
        level: what a part is: `edge`, `node`, or the level of a circuit of nodes.
    """

    elements: Elements
    level: str

    @property
    def noun(self) -> str:
        """What tables call a part."""
        return "edge" if self.level == "edge" else "node"

    def inside(self, mask: Mask) -> list[Part]:
        """The parts of a circuit, in the order of its places."""
        if self.level == self.elements.level:
            return [[place] for place in self.elements.inside(mask).tolist()]
        width, full = mask.shape[1], self.elements.full
        sources = [source for source in mask.any(1).nonzero()[:, 0].tolist() if source]  # `input` is none
        return [[source * width + target for target in full[source].nonzero()[:, 0].tolist()] for source in sources]

    def without(self, mask: Mask, parts: Iterable[Part]) -> Mask:
        """A circuit, or all that there is, with some parts knocked out."""
        return self.elements.without(mask, [*itertools.chain.from_iterable(parts)])

    def names(self, parts: Sequence[Part]) -> list[str]:
        """What parts are called."""
        first = torch.tensor([part[0] for part in parts], dtype=torch.int64, device="cpu")
        if self.level == self.elements.level:
            return self.elements.names(first)
        graph = self.elements.setting.graph
        return [graph.sources[place // graph.shape[1]] for place in first.tolist()]


def parts_of(
    model: Any, task: Task, circuit: Any, level: str | None, default: str, keywords: Mapping[str, Any]
) -> tuple[Parts, Mask]:
    """What can be knocked out of a circuit in the setting that it is judged in, and its mask.

    `level` is what parts of a circuit of edges are, `edge` or `node`, None being the `default`. Nodes are parts of a
    circuit of nodes; of a bare tensor `level` says which. Raises `InputError` for a level that does not fit, and for a
    circuit that is empty.
    """
    spans = keywords.get("spans")
    of_nodes = isinstance(circuit, Tensor) and level in NODE_LEVELS
    if of_nodes and level == "node":  # of edges too
        of_nodes = circuit.ndim == len(axes_of("node", None if spans is None else tuple(spans)))
    setting, given = judging(model, task, circuit, {**keywords, "level": level if of_nodes else None})
    elements, mask = elements_of(setting, given)
    if elements.level == "edge":
        parts = Parts(elements, choose("level", default if level is None else level, ("edge", "node")))
    elif level in (None, elements.level):
        parts = Parts(elements, elements.level)
    else:
        raise InputError(f"level={level!r} beside a circuit of {elements.level}s, which are its parts: leave it out")
    if not parts.inside(mask):
        raise InputError(f"circuit holds no {parts.level} that could be knocked out")
    return parts, mask

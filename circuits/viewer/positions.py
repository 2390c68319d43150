"""Where in the prompt a node matters: its score split over token positions, and the layout that shows it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from attribution.components import component_scores
from circuits.circuit import Circuit
from circuits.links import node_layer
from circuits.viewer.layout import MLP_LIFT
from circuits.viewer.linked import check_example
from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.objectives import Objective
from interp.tasks.task import Task

SHOWN_SHARE = 0.2  # of a node's largest |score|: positions with less are not drawn
SHOWN_POSITIONS = 4  # of one node
STEP = 0.25  # between nodes that stand beside each other, in x
MOST_NODES = 65_535  # that a page can number
EMPTY = 0.22  # the width of a position where hardly anything is drawn
FOLDED = 2.0  # the width of a run of positions where nothing is drawn, such as what both prompts begin with
READABLE = 24.0  # of wider layouts the picture opens with so much, from the first mark on


@numbers.checked(example=numbers.FROM_ZERO)
def scores_by_position(
    model: Any, task: Task, example: int = 0, method: str = "attribution-patching", ablation: str = "patch"
) -> Float[np.ndarray, "node pos"]:
    """Scores of all sources of the graph at each position of one prompt; each row adds up to the node's score.

        score[node, pos] = (clean - corrupted) . dM/d(output of the node at pos)

    Nanda 2023, "Attribution patching". `method` is one of the gradient methods of `attribution.component_scores`;
    under `zero` ablation nothing stands in the place of corrupted. Cost: two forward passes and one backward pass of
    one prompt.
    """
    one = check_example(task, example)
    kinds = ("resid_pre", "z", "mlp_out")
    found = component_scores(model, one, method, kinds=kinds, ablation=ablation, quiet=True).values
    layers = torch.cat([found["z"][0].movedim(-1, 1), found["mlp_out"][0][:, None]], 1)  # [layer, head + 1, pos]
    return torch.cat([found["resid_pre"][0, :1], layers.flatten(0, 1)]).numpy()


def has_slope(objective: Objective) -> bool:
    """Whether an objective has a gradient at the clean run, without which nothing is split by position."""
    return objective.differentiable and not objective.flat_at_clean


@dataclass(frozen=True)
class PositionLayout:
    """Marks of nodes at positions. `main` is each node's strongest mark, where its edges begin and end."""

    node: list[int]
    position: list[int]
    x: list[float]
    y: list[float]
    score: list[float]
    main: dict[int, int]
    columns: list[float]
    width: float

    @property
    def opening(self) -> tuple[float, float] | None:
        """What of a wide layout is seen first, from the first mark on; None: all of it."""
        if self.width <= READABLE:
            return None
        start = max(-0.3, min(min(self.x, default=0.0) - 1.5, self.width + 0.3 - READABLE))
        return start, start + READABLE


def check_positions(positions: ArrayLike, graph: ComputationalGraph) -> Float[np.ndarray, "node pos"]:
    """Scores by position as an array; raises `InputError` for another shape or what is not finite."""
    array = np.asarray(positions, dtype=np.float64)
    if array.ndim != 2 or len(array) != len(graph.sources) or not array.shape[1]:
        raise InputError(
            f"positions must be [node, pos] with a row for each of the graph's {len(graph.sources)} sources; "
            f"got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InputError("positions holds values that are not finite; every node needs a number at each position")
    return array


def position_layout(circuit: Circuit, positions: Float[np.ndarray, "node pos"]) -> PositionLayout:
    """Columns are positions, rows layers; nodes of one layer and position stand beside each other.

    A column is as wide as its fullest row, so that positions where nothing happens take little room; long runs of
    these, such as what both prompts begin with, are folded.
    """
    graph, length = circuit.graph, positions.shape[1]
    names = [*graph.sources, "logits"]
    index = {name: place for place, name in enumerate(names)}
    cells: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
    for name in circuit.nodes:
        node, layer = index[name], node_layer(name, graph)
        if name == "logits":
            cells[layer, length - 1].append((node, 0.0))
            continue
        for place in _shown(positions[node]):
            cells[layer, place].append((node, float(positions[node, place])))
    return arranged(cells, length, names)


def arranged(
    cells: Mapping[tuple[int, int], list[tuple[int, float]]], length: int, names: Sequence[str]
) -> PositionLayout:
    """Marks of `(node, score)` by layer and column, of `length` columns; `names` are those of the nodes."""
    fullest = [max((len(held) for (_, at), held in cells.items() if at == place), default=0) for place in range(length)]
    widths = np.where(np.array(fullest) > 0, STEP * (np.array(fullest) + 1), _folded(fullest))
    columns = (np.cumsum(widths) - widths / 2).tolist()
    lift = [MLP_LIFT if name.startswith("m") else 0.0 for name in names]
    marks = sorted(
        (node, place, columns[place] + STEP * (slot - (len(held) - 1) / 2), layer + lift[node], score)
        for (layer, place), held in cells.items()
        for slot, (node, score) in enumerate(sorted(held))  # heads left, the MLP right
    )
    main: dict[int, int] = {}
    for number, (node, *_, score) in enumerate(marks):
        if node not in main or abs(score) > abs(marks[main[node]][-1]):
            main[node] = number
    return PositionLayout(
        node=[mark[0] for mark in marks],
        position=[mark[1] for mark in marks],
        x=[mark[2] for mark in marks],
        y=[mark[3] for mark in marks],
        score=[mark[4] for mark in marks],
        main=main,
        columns=columns,
        width=float(widths.sum()),
    )


def _folded(fullest: Sequence[int]) -> Float[np.ndarray, " pos"]:
    """Widths of empty columns: those of a long run share what the run may take."""
    runs = [(empty, len(list(run))) for empty, run in itertools.groupby(fullest, lambda most: not most)]
    return np.concatenate([np.full(n, min(EMPTY, FOLDED / n) if empty else EMPTY) for empty, n in runs])


def _shown(scores: Float[np.ndarray, " pos"]) -> Sequence[int]:
    """The positions where a node is drawn, the strongest first; one at least."""
    strength = np.abs(scores)
    if not strength.any():
        return [len(scores) - 1]
    order = np.argsort(-strength, kind="stable")[:SHOWN_POSITIONS]
    return [int(place) for place in order if strength[place] >= SHOWN_SHARE * strength[order[0]]]

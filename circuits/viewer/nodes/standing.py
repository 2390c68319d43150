"""Where the nodes of a circuit stand: a row for each layer (of features: each dictionary), and the sums of each row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.node_circuit import NodeCircuit
from interp.element_names import dictionary_labels, node_frame
from interp.graph import ComputationalGraph
from interp.node_mask import axes_of
from interp.selection.nodes import countable

GRID_LEVELS = ("head", "node")  # of so few nodes that all of the model's are drawn


@dataclass(frozen=True)
class Standing:
    """The nodes of a circuit by |score| descending.

    Attributes:
        rows: what each row is called, the lowest first.
        of: how many nodes the model has in each row.
        row, unit: of each node its row, and its number there (heads; behind them the MLP).
        span: which of the positions that are told apart, an index; None where there are none.
        score: of each node.
        names: of the first nodes, as many as were asked for.
    """

    rows: list[str]
    of: Int[np.ndarray, " row"]
    row: Int[np.ndarray, " node"]
    unit: Int[np.ndarray, " node"]
    span: Int[np.ndarray, " node"] | None
    score: Float[np.ndarray, " node"]
    names: list[str]

    def __len__(self) -> int:
        return len(self.score)

    def sums(self) -> dict[str, np.ndarray]:
        """Of each row: nodes, of (how many the model has), helps and hurts (sums of scores), largest (a node or -1)."""
        count, positive = len(self.rows), np.where(self.score > 0, self.score, 0.0)
        largest = np.full(count, -1)
        found, first = np.unique(self.row, return_index=True)  # nodes come by |score|
        largest[found] = first
        return {
            "nodes": np.bincount(self.row, minlength=count),
            "of": self.of,
            "helps": np.bincount(self.row, weights=positive, minlength=count),
            "hurts": np.bincount(self.row, weights=self.score - positive, minlength=count),
            "largest": largest,
        }


def standing(circuit: NodeCircuit, limit: int) -> Standing:
    """Where the nodes of a circuit stand, with the names of the `limit` strongest."""
    values, level, spans = circuit.scores.values, circuit.level, circuit.spans
    flat = circuit.places()
    row, unit, span = _where(circuit, flat)
    everything, *_ = _where(circuit, countable(values, level, circuit.scores.exists))
    rows = _rows(circuit)
    frame = node_frame(circuit.graph, level, spans, values, flat[:limit], circuit.scores.settings)
    names = frame["node"].tolist()
    if spans is not None:
        names = [f"{name}@{place}" for name, place in zip(names, frame["position"], strict=True)]
    return Standing(
        rows=rows,
        of=np.bincount(everything, minlength=len(rows)),
        row=row,
        unit=unit,
        span=span,
        score=values.flatten()[flat].double().numpy(),
        names=names,
    )


def grid(circuit: NodeCircuit) -> tuple[Float[np.ndarray, "layer unit"], Bool[np.ndarray, "layer unit"]]:
    """Of levels head and node: scores of all nodes of the model (sums over positions), and which are in the circuit."""
    values = _by_unit(circuit.scores.values, circuit.graph, circuit.level, circuit.spans is not None).sum(-2)
    inside = _by_unit(circuit.node_mask, circuit.graph, circuit.level, circuit.spans is not None).any(-2)
    return values.double().numpy(), inside.numpy()


def _by_unit(given: Tensor, graph: ComputationalGraph, level: str, told: bool) -> Tensor:
    """[layer, span, unit], with one span where none are told apart."""
    given = given if told else given.unsqueeze(-2)
    if level == "head":
        return given
    return given[:, 1:].reshape(len(given), graph.n_layers, graph.n_heads + 1).movedim(0, 1)


def _rows(circuit: NodeCircuit) -> list[str]:
    if circuit.level == "feature":
        return dictionary_labels(circuit.scores.settings, len(circuit.scores.values))
    return [str(layer) for layer in range(circuit.graph.n_layers)]


def _where(circuit: NodeCircuit, flat: Int[Tensor, " node"]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Row, unit and span of nodes that are given as indices into the flattened scores."""
    axes = axes_of(circuit.level, circuit.spans)
    found = {
        axis: index.numpy()
        for axis, index in zip(axes, torch.unravel_index(flat, circuit.scores.values.shape), strict=True)
    }
    span, last = found.get("span"), found[axes[-1]]
    if circuit.level != "node":
        return found[axes[0]], last, span
    per = circuit.graph.n_heads + 1  # behind the input: the heads of a layer, then its MLP
    return (last - 1) // per, (last - 1) % per, span

"""The edges of a circuit as arrays, strongest first: what the page draws, filters and traces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt16
from torch import from_numpy

from circuits.circuit import Circuit
from circuits.links import links


@dataclass(frozen=True)
class Adjacency:
    """Edges by |score| descending; ties keep the graph's order.

    `source` and `reader` are indices into the graph's sources and `logits` behind them, `target` into its
    targets. An edge into a key-value group stands once for each of its heads. `total` counts all edges, of which
    the strongest are held. The first `chosen` are the circuit's; behind them stand, by |score| again, those that it
    could grow by.
    """

    source: UInt16[np.ndarray, " edge"]
    reader: UInt16[np.ndarray, " edge"]
    target: UInt16[np.ndarray, " edge"]
    score: Float[np.ndarray, " edge"]
    strength: Float[np.ndarray, " edge"]
    total: int
    chosen: int

    def first(self, n: int) -> Adjacency:
        """The `n` strongest edges of the circuit."""
        n = min(n, self.chosen)
        columns = {name: getattr(self, name)[:n] for name in ("source", "reader", "target", "score", "strength")}
        return replace(self, chosen=n, **columns)

    @property
    def index(self) -> Int[np.ndarray, "edge 2"]:
        """Each edge's place in `[source, target]` matrices."""
        return np.stack([self.source, self.target], axis=1).astype(np.intp)


def adjacency(
    circuit: Circuit, limit: int, strength: Float[np.ndarray, "source target"] | None = None, more: int = 0
) -> Adjacency:
    """The `limit` strongest edges of a circuit, by |score| or by another `strength` of every edge.

    Behind them the `more` strongest of all others, those of score zero left out, if the circuit's own all have room.
    """
    graph = circuit.graph
    node = {name: index for index, name in enumerate((*graph.sources, "logits"))}
    port = {name: index for index, name in enumerate(graph.targets)}
    scores = circuit.scores.edge_values.double().numpy()
    key = np.abs(scores) if strength is None else strength

    def strongest(mask: Bool[np.ndarray, "source target"], most: int) -> tuple[UInt16[np.ndarray, "edge 3"], int]:
        found = [
            (node[source], node[reader], port[target]) for source, target, reader in links(from_numpy(mask), graph)
        ]
        rows = np.array(found, dtype=np.uint16).reshape(-1, 3)
        return rows[np.argsort(-key[rows[:, 0], rows[:, 2]], kind="stable")[:most]], len(rows)

    held, total = strongest(circuit.mask.numpy(), limit)
    beside, _ = strongest(_others(circuit, key, more if total <= limit else 0), more)
    source, reader, target = np.concatenate([held, beside]).T
    return Adjacency(source, reader, target, scores[source, target], key[source, target], total, len(held))


def _others(circuit: Circuit, key: Float[np.ndarray, "source target"], most: int) -> Bool[np.ndarray, "source target"]:
    """The strongest edges outside of a circuit."""
    others = np.where((circuit.graph.edge_mask & ~circuit.mask).numpy(), key, 0.0)
    order = np.argsort(-others, axis=None, kind="stable")[:most]
    mask = np.zeros(others.size, dtype=bool)
    mask[order[others.flat[order] > 0]] = True
    return mask.reshape(others.shape)

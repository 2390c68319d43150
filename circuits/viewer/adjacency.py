"""The edges of a circuit as arrays, strongest first: what the page draws, filters and traces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt16

from circuits.circuit import Circuit


@dataclass(frozen=True)
class Adjacency:
    """Edges by |score| descending; ties keep the graph's order.

    `source` and `reader` are indices into the graph's sources and `logits` behind them, `target` into its
    targets. An edge into a key-value group stands once for each of its heads. `total` counts all edges, of which
    the strongest are held.
    """

    source: UInt16[np.ndarray, " edge"]
    reader: UInt16[np.ndarray, " edge"]
    target: UInt16[np.ndarray, " edge"]
    score: Float[np.ndarray, " edge"]
    strength: Float[np.ndarray, " edge"]
    total: int

    @property
    def index(self) -> Int[np.ndarray, "edge 2"]:
        """Each edge's place in `[source, target]` matrices."""
        return np.stack([self.source, self.target], axis=1).astype(np.intp)


def adjacency(circuit: Circuit, limit: int, strength: Float[np.ndarray, "source target"] | None = None) -> Adjacency:
    """The `limit` strongest edges of a circuit, by |score| or by another `strength` of every edge."""
    graph = circuit.graph
    node = {name: index for index, name in enumerate((*graph.sources, "logits"))}
    port = {name: index for index, name in enumerate(graph.targets)}
    links = [(node[source], node[reader], port[target]) for source, target, reader in circuit.links()]
    source, reader, target = np.array(links, dtype=np.uint16).reshape(-1, 3).T
    scores = circuit.scores.edge_values.double().numpy()
    key = np.abs(scores) if strength is None else strength
    order = np.argsort(-key[source, target], kind="stable")[:limit]
    source, reader, target = source[order], reader[order], target[order]
    return Adjacency(source, reader, target, scores[source, target], key[source, target], len(links))

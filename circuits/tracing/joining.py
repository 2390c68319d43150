"""Nodes of attribution graphs joined: links between what is joined are sums, and what is not shown stays so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.tracing.graph import AttributionGraph
from circuits.tracing.influence import completeness, cumulative, influence, normalised, replacement


def joined(
    graph: AttributionGraph, to: Int[Tensor, " node"], n_nodes: int
) -> tuple[Float[Tensor, "target source"], Float[Tensor, " target"]]:
    """The adjacency once each node is the node `to` names, and how much each row holds that is not shown."""
    rows = torch.zeros(n_nodes, len(to), dtype=torch.float64, device="cpu")
    rows.index_add_(0, to, graph.adjacency.double())
    adjacency = rows.new_zeros(n_nodes, n_nodes).index_add_(1, to, rows)
    hidden = graph.counted()[:, graph.kinds().rest].sum(1)
    return adjacency, rows.new_zeros(n_nodes).index_add_(0, to, hidden)


def magnitude_of(adjacency: Tensor, nodes: pd.DataFrame, hidden: Tensor) -> Float[Tensor, " target"]:
    """What rows are normalised by: |effects| of what is shown, biases not, and what is not."""
    uncounted = torch.from_numpy(nodes["kind"].isin(["bias", "remainder"]).to_numpy(copy=True))
    return adjacency.abs()[:, ~uncounted].sum(1) + hidden


def scored(graph: AttributionGraph) -> AttributionGraph:
    """A graph with the influences and scores that its matrix gives."""
    shares, kinds, chances = normalised(graph.counted()), graph.kinds(), graph.weights.double()
    flow = influence(shares, chances)
    return replace(
        graph,
        nodes=graph.nodes.assign(influence=flow.numpy(), cumulative=cumulative(flow).numpy()),
        replacement_score=replacement(flow, kinds),
        completeness_score=completeness(shares, flow, chances, kinds),
    )


def summed(values: pd.Series, to: np.ndarray, n_nodes: int) -> np.ndarray:
    """Sums of a column by where its nodes go; NaN where none of them has a value."""
    numbers = values.to_numpy(dtype=np.float64)
    known = ~np.isnan(numbers)
    found = np.bincount(to[known], weights=numbers[known], minlength=n_nodes).astype(np.float64)  # ints of nothing
    found[np.bincount(to[known], minlength=n_nodes) == 0] = np.nan
    return found

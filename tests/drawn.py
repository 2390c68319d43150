"""Small graphs, scores and masks that hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from interp.graph import ComputationalGraph

finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def graphs(draw: Any) -> ComputationalGraph:
    """Of one to three layers, with heads that share keys and values or not, serial and parallel."""
    n_heads, n_kv_heads = draw(st.sampled_from([(1, 1), (2, 2), (4, 2), (3, 1)]))
    kv = draw(st.sampled_from(["head", "group"]))
    return ComputationalGraph(draw(st.integers(1, 3)), n_heads, n_kv_heads, kv=kv, parallel=draw(st.booleans()))


@st.composite
def scored(draw: Any, dtype: torch.dtype = torch.float64) -> tuple[ComputationalGraph, Tensor]:
    """A graph and scores of its edges, in which ties and zeros are frequent."""
    graph = draw(graphs())
    elements = draw(st.sampled_from([st.integers(-3, 3).map(float), finite]))
    drawn = draw(arrays.arrays(np.float64, graph.shape, elements=elements))
    return graph, torch.from_numpy(drawn).to(dtype) * graph.edge_mask


@st.composite
def masked(draw: Any) -> tuple[ComputationalGraph, Tensor]:
    """A graph and some of its edges."""
    graph = draw(graphs())
    return graph, torch.from_numpy(draw(arrays.arrays(bool, graph.shape))) & graph.edge_mask

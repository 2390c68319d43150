"""Selection by an integer program: the connected circuit of largest total score."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import numbers
from interp.graph import ComputationalGraph
from interp.selection.connecting import connected
from interp.selection.paths import feeds, pruned_mask
from interp.selection.ranking import check_size, edge_keys, edge_positions, largest

CANDIDATES = 4000  # edges that enter the program, of largest key


@numbers.checked(n=numbers.FROM_ZERO, candidates=numbers.COUNT, seconds=numbers.POSITIVE)
def program(
    scores: Float[Tensor, "source target"],
    graph: ComputationalGraph,
    n: int,
    absolute: bool = True,
    candidates: int = CANDIDATES,
    seconds: float | None = None,
) -> Bool[Tensor, "source target"]:
    """The circuit of at most `n` edges with the largest sum of |score| (signed score) in which nothing is pruned.

        maximise  sum of key_e x_e     x_e, y_u in {0, 1} for edges and sources
        where     sum of x_e <= n
        and       x_(u,t) <= y_u,  x_(u,t) <= sum of y_v over the sources v that t feeds    an edge has live ends
        and       y_u <= sum of x out of u,  y_u <= sum of x into u (but for the input)     a live source is used

    Solved by HiGHS (scipy.optimize.milp; Huangfu and Hall 2018). Selections of this kind won MIB's shared task of
    2025. Only the `candidates` edges of largest key enter the program; a circuit of more than half of them is
    chosen by `connected`, from which it then hardly differs. `seconds` bounds the search: what is best by then is
    returned, and the result depends on the machine. Raises `InputError` as `top_n` does.
    """
    keys = edge_keys(scores, graph, absolute)
    n = check_size(n, graph.n_edges, "edges")
    start = connected(scores, graph, n, absolute)
    if 2 * n > candidates and candidates < graph.n_edges:
        return start
    chosen = _candidates(keys, graph, start.numpy(), candidates)
    gain = keys[chosen].astype(np.float64)
    scale = np.abs(gain).max(initial=0.0)
    if n == 0 or scale == 0:
        return start
    source, target = np.divmod(edge_positions(graph)[chosen], graph.shape[1])
    constraints = _constraints(source, target, graph, n)
    variables = len(chosen) + graph.shape[0]
    result = scipy.optimize.milp(
        np.concatenate((-gain / scale, np.zeros(graph.shape[0]))),
        integrality=np.ones(variables),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0} | ({} if seconds is None else {"time_limit": seconds}),
    )
    if result.x is None:
        return start
    mask = np.zeros(graph.shape, dtype=bool)
    taken = result.x[: len(chosen)] > 0.5
    mask[source[taken], target[taken]] = True
    return torch.from_numpy(pruned_mask(mask, graph))


def _candidates(
    keys: Float[np.ndarray, " edge"], graph: ComputationalGraph, start: Bool[np.ndarray, "source target"], count: int
) -> Int[np.ndarray, " candidate"]:
    """Which real edges enter: the largest keys, and a circuit that is known to be allowed."""
    best = np.zeros(len(keys), dtype=bool)
    best[largest(keys, min(count, len(keys)))] = True
    return np.flatnonzero(best | start.reshape(-1)[edge_positions(graph)])


def _constraints(
    source: Int[np.ndarray, " edge"], target: Int[np.ndarray, " edge"], graph: ComputationalGraph, n: int
) -> list[scipy.optimize.LinearConstraint]:
    """Rows of the program over the variables x (edges), then y (sources)."""
    n_edges, (n_sources, n_targets) = len(source), graph.shape
    eye = scipy.sparse.identity(n_edges, format="csr")
    one = np.ones(n_edges)
    at = np.arange(n_edges)
    out = scipy.sparse.csr_matrix((one, (at, source)), (n_edges, n_sources))
    into = scipy.sparse.csr_matrix((one, (at, target)), (n_edges, n_targets))
    fed_target, fed_source = feeds(graph)
    feeding = scipy.sparse.csr_matrix((np.ones(len(fed_target)), (fed_target, fed_source)), (n_targets, n_sources))
    fed = into @ feeding  # the sources behind each edge's target
    inner = target < n_targets - 1  # edges into the logits need no live node behind them
    nodes = scipy.sparse.identity(n_sources, format="csr")
    total = scipy.sparse.csr_matrix(np.concatenate((one, np.zeros(n_sources)))[None])
    at_most = [
        scipy.sparse.hstack((eye, -out)),
        scipy.sparse.hstack((eye, -fed), format="csr")[inner],
        scipy.sparse.hstack((-out.T, nodes)),
        scipy.sparse.hstack((-fed.T, nodes), format="csr")[1:],
    ]
    return [
        scipy.optimize.LinearConstraint(total, -np.inf, n),
        scipy.optimize.LinearConstraint(scipy.sparse.vstack(at_most).tocsr(), -np.inf, 0),
    ]

"""Random circuits to compare one with, whatever it is made of: edges on paths, or nodes like its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.node_mask import NodeMask
from interp.setting import Setting
from metrics.circuit.samples import random_circuit

NEAREST = 8  # a random node is one of so many whose norms are nearest


def random_controls(
    setting: Setting, circuits: Sequence[Tensor | NodeMask], n: int, seed: int, reference: str = "paths"
) -> list[Tensor | NodeMask]:
    """For each circuit in turn `n` random ones of its size: of edges `random_circuit`, of nodes `random_nodes`."""
    nodes = [one for one in circuits if isinstance(one, NodeMask)]
    if nodes:
        return [*random_nodes(setting, nodes, n, seed)]
    return [
        random_circuit(setting.graph, int(mask.sum()), seed + i, reference)
        for mask in circuits
        if isinstance(mask, Tensor)
        for i in range(n)
    ]


def random_nodes(setting: Setting, circuits: Sequence[NodeMask], n: int, seed: int) -> list[NodeMask]:
    """For each circuit in turn `n` others, of nodes of the same layers (and positions), and of similar norms.

    Each node is exchanged for one of the eight outside of the circuit whose norm is nearest to its own, norms being
    those of what ablation takes from the residual stream (`Setting.node_norms`). Where a layer has too few nodes
    outside, nodes of the circuit fill up. At level `node` nodes of all layers may take its place; at level `feature`
    those of the same dictionary, while errors that are nodes stay. Two forward passes in all.
    """
    if not n:
        return []
    level = circuits[0].level
    norms, free = setting.node_norms(level), exchangeable(setting, level)
    return [_exchanged(circuit, norms, free, seed + i) for circuit in circuits for i in range(n)]


def exchangeable(setting: Setting, level: str) -> Bool[Tensor, "*axes"]:
    """The nodes of a level that random circuits exchange: not errors of dictionaries, which nothing else is like."""
    free = setting.nodes(level).full.clone()
    if level == "feature" and setting.features is not None and setting.features.errors == "nodes":
        free[:, -1] = False
    return free


def _exchanged(circuit: NodeMask, norms: Float[Tensor, "*axes"], free: Bool[Tensor, "*axes"], seed: int) -> NodeMask:
    rng = np.random.default_rng(seed)
    if circuit.level == "node":
        rows, sizes, free, first = circuit.mask[..., 1:].reshape(-1, len(free) - 1), norms[None, 1:], free[None, 1:], 1
    else:
        rows, sizes, first = circuit.mask.flatten(0, -2), norms, 0
    per_layer = len(rows) // len(sizes)  # spans
    drawn = rows.clone()
    for i, row in enumerate(rows):
        some = free[i // per_layer]
        drawn[i, some] = torch.from_numpy(_row(row[some].numpy(), sizes[i // per_layer, some].numpy(), rng))
    found = drawn.view(*circuit.mask.shape[:-1], -1)
    if first:
        found = torch.cat((torch.ones_like(found[..., :1]), found), -1)
    return NodeMask(found, circuit.level, circuit.spans)


def _row(inside: Bool[np.ndarray, " unit"], norms: Float[np.ndarray, " unit"], rng: np.random.Generator) -> np.ndarray:
    """As many other units, each near in norm to one inside."""
    free = np.flatnonzero(~inside)
    free = free[np.argsort(norms[free], kind="stable")]
    chosen = np.zeros_like(inside)
    for unit in rng.permutation(np.flatnonzero(inside)):
        if not len(free):  # more are wanted than there are outside: nodes of the circuit itself
            free = np.flatnonzero(~chosen)
            free = free[np.argsort(norms[free], kind="stable")]
        at = int(np.searchsorted(norms[free], norms[unit]))
        low = min(max(0, at - NEAREST // 2), max(0, len(free) - NEAREST))
        pick = int(rng.integers(low, min(low + NEAREST, len(free))))
        chosen[free[pick]] = True
        free = np.delete(free, pick)
    return chosen

"""Random circuits to compare one with, whatever it is made of: edges on paths, or nodes like its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from interp.errors import InputError
from interp.node_mask import NodeMask
from interp.selection.by_span import SpanGraph, connected_by_span
from interp.setting import MaskObject, Setting
from interp.span_mask import SpanMask
from metrics.circuit.samples import REFERENCES, random_circuit

NEAREST = 8  # a random node is one of so many whose norms are nearest


def random_controls(
    setting: Setting, circuits: Sequence[Tensor | MaskObject], n: int, seed: int, reference: str | None = None
) -> list[Tensor | MaskObject]:
    """For each circuit in turn `n` random ones of its size: of edges `random_circuit`, of nodes `random_nodes`.

    Of edges by position `random_by_span`. Raises `InputError` for a way to draw edges beside nodes.
    """
    by_span = [one for one in circuits if isinstance(one, SpanMask)]
    if by_span:
        refuse_drawn(reference)
        spans = by_span[0].spans
        among = SpanGraph(setting.graph, setting.placed(spans).order())
        return [SpanMask(random_by_span(among, one.n_edges, seed + i), spans) for one in by_span for i in range(n)]
    nodes = [one for one in circuits if isinstance(one, NodeMask)]
    if nodes:
        refuse_reference(reference)
        return [*random_nodes(setting, nodes, n, seed)]
    return [
        random_circuit(setting.graph, int(mask.sum()), seed + i, reference or REFERENCES[0])
        for mask in circuits
        if isinstance(mask, Tensor)
        for i in range(n)
    ]


def random_by_span(
    among: SpanGraph, n_edges: int, seed: int, within: Bool[Tensor, "span source target"] | None = None
) -> Bool[Tensor, "span source target"]:
    """A random circuit of edges by position: connected, of edges in random order, `within` some where any are given."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(among.shape, generator=generator, dtype=torch.float32, device="cpu")
    if within is None:
        return connected_by_span(scores, among, n_edges)
    kept = (within.flatten()[torch.from_numpy(among.places)]).numpy()
    return connected_by_span(scores, replace(among, only=kept), n_edges)


def refuse_drawn(reference: str | None) -> None:
    """Raise `InputError` for a way to draw random edges, of which edges by position know one."""
    if reference is not None:
        raise InputError(
            f"reference={reference!r} is for circuits of edges at all positions; random ones by position are connected "
            "circuits of edges in random order: leave it out"
        )


def refuse_reference(reference: str | None) -> None:
    """Raise `InputError` for a way to draw random edges, which nodes have no use for."""
    if reference is not None:
        raise InputError(
            f"reference={reference!r} is for circuits of edges, which need paths; random nodes are of the layers and "
            "norms of the circuit's"
        )


def random_nodes(
    setting: Setting, circuits: Sequence[NodeMask], n: int, seed: int, size: int | None = None
) -> list[NodeMask]:
    """For each circuit in turn `n` others, of nodes of the same layers (and positions), and of similar norms.

    Each node is exchanged for one of the eight outside of the circuit whose norm is nearest to its own, norms being
    those of what ablation takes from the residual stream (`Setting.node_norms`). Where a layer has too few nodes
    outside, nodes of the circuit fill up. At level `node` nodes of all layers may take its place; at level `feature`
    those of the same dictionary, while errors that are nodes stay. Two forward passes in all.

    `size`: as many nodes instead, like those of the circuit: each is exchanged as often as all others, or once more or
    less, at random. Raises `InputError` where the circuit's layers hold too few nodes for that.
    """
    level = circuits[0].level
    free = exchangeable(setting, level)
    for circuit in circuits:
        _check_size(circuit, free, size)
    if not n:
        return []
    norms = setting.node_norms(level)
    return [_exchanged(circuit, norms, free, seed + i, size) for circuit in circuits for i in range(n)]


def exchangeable(setting: Setting, level: str) -> Bool[Tensor, "*axes"]:
    """The nodes of a level that random circuits exchange: not errors of dictionaries, which nothing else is like."""
    free = setting.nodes(level).full.clone()
    if level == "feature" and setting.features is not None and setting.features.errors == "nodes":
        free[:, -1] = False
    return free


def _rows(mask: Shaped[Tensor, "*axes"], free: Bool[Tensor, "*axes"], level: str) -> tuple[Tensor, Tensor]:
    """A mask, or norms, as rows within which nodes are exchanged, `[row, unit]`, and which units of each may be."""
    if level == "node":  # heads and MLPs of all layers; the input is none
        rows, free = mask[..., 1:].reshape(-1, len(free) - 1), free[None, 1:]
    else:
        rows = mask.flatten(0, -2)
    return rows, free.repeat_interleave(len(rows) // len(free), 0)  # spans


def _check_size(circuit: NodeMask, free: Bool[Tensor, "*axes"], size: int | None) -> None:
    if size is None:
        return
    rows, some = _rows(circuit.mask, free, circuit.level)
    own, room = (rows & some).sum(1), some.sum(1)
    stay, like = circuit.n_nodes - int(own.sum()), int(own.sum())
    if size < stay or (size > stay and not like):
        raise InputError(f"size={size:,} does not fit: random circuits keep the {stay:,} errors of the circuit")
    copies, more = divmod(size - stay, max(like, 1))
    if bool((copies * own + own.clamp(max=more) > room).any()):
        most = stay + like * int((room[own > 0] // own[own > 0]).min())
        raise InputError(
            f"size={size:,} does not fit: random {circuit.level}s are of the circuit's layers (and positions), which "
            f"hold {most:,} in its proportions"
        )


def _exchanged(
    circuit: NodeMask, norms: Float[Tensor, "*axes"], free: Bool[Tensor, "*axes"], seed: int, size: int | None
) -> NodeMask:
    rng = np.random.default_rng(seed)
    rows, some = _rows(circuit.mask, free, circuit.level)
    sizes, _ = _rows(norms, free, circuit.level)
    sizes = sizes.repeat_interleave(len(rows) // len(sizes), 0)
    drawn, repeats = rows.clone(), _repeats(rows & some, circuit.n_nodes, size, rng)
    for i, row in enumerate(rows):
        free_here = some[i]
        units = _row(row[free_here].numpy(), repeats[i, free_here].numpy(), sizes[i, free_here].numpy(), rng)
        drawn[i, free_here] = torch.from_numpy(units)
    found = drawn.view(*circuit.mask.shape[:-1], -1)
    if circuit.level == "node":
        found = torch.cat((torch.ones_like(found[..., :1]), found), -1)
    return NodeMask(found, circuit.level, circuit.spans)


def _repeats(
    own: Bool[Tensor, "row unit"], n_nodes: int, size: int | None, rng: np.random.Generator
) -> Int[Tensor, "row unit"]:
    """How many random nodes are to be like each node of a circuit that may be exchanged."""
    if size is None:
        return own.long()
    places = own.flatten().nonzero()[:, 0]
    copies, more = divmod(size - (n_nodes - len(places)), max(len(places), 1))
    repeats = own.long() * copies
    repeats.view(-1)[places[rng.permutation(len(places))[:more].tolist()]] += 1
    return repeats


def _row(
    inside: Bool[np.ndarray, " unit"],
    repeats: Int[np.ndarray, " unit"],
    norms: Float[np.ndarray, " unit"],
    rng: np.random.Generator,
) -> np.ndarray:
    """Other units, as many near in norm to each one inside as `repeats` says."""
    free = np.flatnonzero(~inside)
    free = free[np.argsort(norms[free], kind="stable")]
    chosen = np.zeros_like(inside)
    for unit in rng.permutation(np.repeat(np.arange(len(inside)), repeats)):
        if not len(free):  # more are wanted than there are outside: nodes of the circuit itself
            free = np.flatnonzero(~chosen)
            free = free[np.argsort(norms[free], kind="stable")]
        at = int(np.searchsorted(norms[free], norms[unit]))
        low = min(max(0, at - NEAREST // 2), max(0, len(free) - NEAREST))
        pick = int(rng.integers(low, min(low + NEAREST, len(free))))
        chosen[free[pick]] = True
        free = np.delete(free, pick)
    return chosen

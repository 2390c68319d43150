"""Which edges of a circuit can change its output: the others need not be run."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.graph import ComputationalGraph


def live_edges(
    masks: Bool[Tensor, "circuit source target"], graph: ComputationalGraph, *, from_input: bool, coupled: bool = False
) -> Bool[Tensor, "circuit source target"]:
    """Edges on a path to the logits and, with `from_input`, on a path from the input.

    A node without a path to the logits cannot matter. Under counterfactual ablation a node without a path from
    the input computes just what it computes in the corrupted run, so that its edges change nothing either.
    `coupled` heads of a layer share the divisor of a norm behind attention: where one matters, all do.
    """
    live = _reaching_logits(masks, graph, coupled)
    if from_input:
        live &= _reached_from_input(masks, graph, coupled)
    ports = torch.stack([live[:, list(nodes)].any(1) for nodes in graph.target_sources[:-1]], 1)
    ports = torch.cat((ports, torch.ones_like(ports[:, :1])), 1)
    return masks & live[:, :, None] & ports[:, None]


def _reaching_logits(masks: Tensor, graph: ComputationalGraph, coupled: bool) -> Bool[Tensor, "circuit source"]:
    live = masks[:, :, -1].clone()
    for layer in reversed(range(graph.n_layers)):
        mlp = graph.mlp_target(layer)
        live |= masks[:, :, mlp] & live[:, [graph.mlp_source(layer)]]
        targets, heads = graph.attention_targets(layer), graph.head_sources(layer)
        if coupled:
            live[:, heads] = live[:, heads].any(1, keepdim=True)
        ports = _head_ports(live[:, heads], graph)
        live |= (masks[:, :, targets] & ports[:, None]).any(2)
    return live


def _reached_from_input(masks: Tensor, graph: ComputationalGraph, coupled: bool) -> Bool[Tensor, "circuit source"]:
    reached = torch.zeros_like(masks[:, :, 0])
    reached[:, 0] = True
    for layer in range(graph.n_layers):
        ports = (masks[:, :, graph.attention_targets(layer)] & reached[:, :, None]).any(1)
        q, k, v = ports.split([graph.n_heads, graph.n_ports, graph.n_ports], 1)
        heads = q | _per_head(k, graph) | _per_head(v, graph)
        reached[:, graph.head_sources(layer)] = heads.any(1, keepdim=True) if coupled else heads
        fed = (masks[:, :, graph.mlp_target(layer)] & reached).any(1)
        reached[:, graph.mlp_source(layer)] = fed
    return reached


def _per_head(ports: Tensor, graph: ComputationalGraph) -> Tensor:
    return ports.repeat_interleave(graph.n_heads // graph.n_ports, 1)


def _head_ports(heads: Bool[Tensor, "circuit head"], graph: ComputationalGraph) -> Tensor:
    """For each q, k and v target of a layer whether one of its heads is live."""
    kv = heads.unflatten(1, (graph.n_ports, -1)).any(2)
    return torch.cat((heads, kv, kv), 1)

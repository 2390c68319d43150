"""Which nodes the edges of a mask join, and in which layer a node stands."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Bool
from torch import Tensor

from interp.graph import ComputationalGraph


def links(mask: Bool[Tensor, "source target"], graph: ComputationalGraph) -> Iterator[tuple[str, str, str]]:
    """Every edge of a mask as (source, target, node that reads it), source by source.

    An edge into a k or v target of a key-value group is given once for each of `readers`.
    """
    reading, names, targets = readers(mask, graph), graph.sources, graph.targets
    for source, target in mask.nonzero().tolist():
        for reader in reading[target]:
            yield names[source], targets[target], reader


def readers(mask: Bool[Tensor, "source target"], graph: ComputationalGraph) -> dict[int, list[str]]:
    """For each target that an edge enters, the names of the nodes that read it.

    That is one node, but for a k or v target of a key-value group: there it is each head of the group that writes
    anything inside the mask, or each of its heads when none does.
    """
    writes, names, found = mask.any(dim=1).tolist(), graph.sources, {}
    for target in mask.any(dim=0).nonzero().flatten().tolist():
        fed = graph.target_sources[target]
        found[target] = [names[node] for node in fed if writes[node]] or [names[node] for node in fed]
    return {target: nodes or ["logits"] for target, nodes in found.items()}


def nodes(mask: Bool[Tensor, "source target"], graph: ComputationalGraph) -> tuple[str, ...]:
    """Names of the nodes that an edge of a mask leaves or enters, in the order of the graph."""
    writers = {name for name, leaves in zip(graph.sources, mask.any(dim=1).tolist(), strict=True) if leaves}
    touched = writers.union(*readers(mask, graph).values())
    return tuple(name for name in (*graph.sources, "logits") if name in touched)


def node_layer(name: str, graph: ComputationalGraph) -> int:
    """Layer of a node: -1 for the input, the number of layers for the logits."""
    if name in ("input", "logits"):
        return -1 if name == "input" else graph.n_layers
    return int(name[1:].partition(".")[0])

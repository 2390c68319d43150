"""The graph JSON of the EAP-IG reference (github.com/hannamw/EAP-IG), which MIB's evaluation reads.

    {"cfg": {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"},
     "nodes": {name: {"in_graph": bool, "score"?: float}},
     "edges": {name: {"score": float, "in_graph": bool}}}

Every node and every edge of the graph is listed. The reference knows one k and one v target per query head,
so circuits over a graph of key-value groups are written ungrouped: an edge into a group becomes one into each
of its heads, in or out as the group's was, with an equal share of its score. An entry of our own, which the
reference passes over, keeps provenance and how the scores were made.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.scores import Scores
from circuits.circuit import Circuit
from interp.conditions import Conditions
from interp.errors import InputError
from interp.files import existing, write_text
from interp.graph import ComputationalGraph
from interp.selection import live_sources

OURS = "faithful_circuits"


def write(circuit: Circuit, path: str | os.PathLike[str], d_model: int | None = None) -> Path:
    """Write `circuit` for the EAP-IG reference; returns the path.

    The format asks for the width of the model, which edges do not depend on: `d_model`, else what provenance
    has under that name, else 1.
    """
    scores, mask = circuit.scores, circuit.mask
    graph = dataclasses.replace(scores.graph, kv="head")
    # as in the reference, edges have no scores of their own where nodes have them
    values = (
        scores.values if scores.level == "edge" else torch.zeros(scores.graph.shape, dtype=torch.float32, device="cpu")
    )
    if scores.graph.kv == "group":
        values, mask = _ungroup(values, mask, scores.graph)
    alive = live_sources(mask, graph).tolist()
    nodes: dict[str, dict[str, Any]] = {name: {"in_graph": alive[index]} for index, name in enumerate(graph.sources)}
    if scores.level == "node":
        for name, score in zip(graph.sources, scores.values.tolist(), strict=True):
            nodes[name]["score"] = score
    nodes["logits"] = {"in_graph": True}
    rows, columns = graph.edge_mask.nonzero().unbind(dim=1)
    listed = zip(graph.edges(), values[rows, columns].tolist(), mask[rows, columns].tolist(), strict=True)
    document = {
        "cfg": {
            "n_layers": graph.n_layers,
            "n_heads": graph.n_heads,
            "parallel_attn_mlp": graph.parallel,
            "d_model": d_model or circuit.provenance.get("d_model") or 1,
        },
        "nodes": nodes,
        "edges": {name: {"score": score, "in_graph": inside} for name, score, inside in listed},
        OURS: {
            "scores": {**scores.to_dict(), "graph": graph.to_dict()},
            "provenance": circuit.provenance,
            "setting": circuit.setting.to_dict(),
        },
    }
    return write_text(path, json.dumps(document, allow_nan=False))


def read(path: str | os.PathLike[str]) -> Circuit:
    """Read a graph JSON that EAP-IG, MIB or `write` wrote, as a circuit over a graph with kv="head".

    An edge without a score has score 0, an edge that is not listed is out. Where only nodes have scores, the
    scores are of level "node". A circuit is its edges: `in_graph` of nodes is not needed and not read.

    Raises `InputError` for a file that is missing or is not such a graph, that selects neurons, or that names
    edges that do not exist.
    """
    file, where = existing(path, "EAP-IG graph file")
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
        config, nodes, own = document["cfg"], document["nodes"], document.get(OURS)
        if any("neurons" in node for node in nodes.values()):
            raise InputError("it selects single neurons, which a circuit of edges cannot express")
        graph = ComputationalGraph(
            n_layers=config["n_layers"],
            n_heads=config["n_heads"],
            n_kv_heads=own["scores"]["graph"]["n_kv_heads"] if own else None,
            parallel=bool(config["parallel_attn_mlp"]),
        )
        values, mask = _edges(document["edges"], graph)
        by_node = not values.any() and any("score" in node for node in nodes.values())
        if by_node:
            values = _narrow([float(nodes.get(name, {}).get("score", 0.0)) for name in graph.sources])
        known = own["scores"] if own else {"method": "eap-ig-json", "ablation": "unknown", "versions": {}}
        level = "node" if by_node else "edge"
        scores = Scores.from_dict({**known, "graph": graph, "level": level}, values, "its scores")
        kept: dict[str, Any] = {"setting": Conditions(**own["setting"])} if own and "setting" in own else {}
        return Circuit(scores, mask, provenance=own["provenance"] if own else {"created": None}, **kept)
    except InputError as error:
        raise InputError(f"{where} cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} is damaged, or is not a graph of EAP-IG ({error!r})") from None


def _edges(
    listed: dict[str, dict[str, Any]], graph: ComputationalGraph
) -> tuple[Float[Tensor, "source target"], Bool[Tensor, "source target"]]:
    """Scores and membership of the edges in the file."""
    sources = {name: index for index, name in enumerate(graph.sources)}
    targets = {name: index for index, name in enumerate(graph.targets)}
    positions = []
    for name in listed:
        source, _, target = name.partition("->")
        if source not in sources or target not in targets:
            graph.edge_index(name)  # raises, and says what is wrong with the name
        positions.append((sources[source], targets[target]))
    rows, columns = torch.tensor(positions, dtype=torch.long, device="cpu").reshape(-1, 2).unbind(dim=1)
    phantom = (~graph.edge_mask[rows, columns]).nonzero()
    if len(phantom):
        graph.edge_index(list(listed)[int(phantom[0])])
    chosen = _narrow([float(info.get("score", 0.0)) for info in listed.values()])
    values, mask = (
        torch.zeros(graph.shape, dtype=chosen.dtype, device="cpu"),
        torch.zeros(graph.shape, dtype=torch.bool, device="cpu"),
    )
    values[rows, columns] = chosen
    mask[rows, columns] = torch.tensor(
        [bool(info["in_graph"]) for info in listed.values()], dtype=torch.bool, device="cpu"
    )
    return values, mask


def _narrow(numbers: list[float]) -> Tensor:
    """As float32 where that loses nothing (scores are written in full), else as float64."""
    wide = torch.tensor(numbers, dtype=torch.float64, device="cpu")
    narrow = wide.float()
    return narrow if torch.equal(narrow.double(), wide) else wide


def _ungroup(
    values: Float[Tensor, "source group_target"],
    mask: Bool[Tensor, "source group_target"],
    graph: ComputationalGraph,
) -> tuple[Float[Tensor, "source target"], Bool[Tensor, "source target"]]:
    """Scores and mask with one k and one v target per query head."""
    per_port = graph.n_heads // graph.n_ports
    columns: list[int] = []
    shares: list[int] = []
    for layer in range(graph.n_layers):
        queries = graph.attention_targets(layer).start
        keys = queries + graph.n_heads
        columns += range(queries, keys)
        columns += [keys + port for port in range(2 * graph.n_ports) for _ in range(per_port)]
        columns.append(graph.mlp_target(layer))
        shares += [1] * graph.n_heads + [per_port] * (2 * graph.n_heads) + [1]
    columns.append(graph.shape[1] - 1)
    shares.append(1)
    return values[:, columns] / torch.tensor(shares, dtype=values.dtype, device="cpu"), mask[:, columns]

"""Attribution graphs in the JSON that circuit-tracer writes and Neuronpedia's viewer reads.

There an error's id may be that of a feature of layer 0; ours are unique. Neurons are written as features, the remainder
as an error; biases have no word there. What the viewer calls influence is the cumulative share.

Groups are `qParams.supernodes` there: lists of a name and the ids of its nodes, which stay nodes of their own. A group
that was summed into one node is written as that node, with what `settings["groups"]` knows of it beside what viewers
read: the links of its members are not in such a graph, nor in its file.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from circuits.tracing.build import COLUMNS
from circuits.tracing.graph import UNITS, AttributionGraph
from circuits.tracing.grouping import checked_groups
from circuits.tracing.intervention import unit_name
from interp.errors import InputError
from interp.files import existing, write_text

TYPES = {
    "cross layer transcoder": "feature",
    "mlp reconstruction error": "error",
    "embedding": "token",
    "logit": "logit",
}
_WRITTEN = {**dict.fromkeys(UNITS, "cross layer transcoder"), "remainder": "mlp reconstruction error"}
_WRITTEN |= {kind: name for name, kind in TYPES.items() if kind != "feature"}
SCHEMA = 1
logger = logging.getLogger(__name__)


def write_graph(
    graph: AttributionGraph, path: str | os.PathLike[str], groups: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Write the graph, pruned where it is not as yet. Of groups what pruning leaves."""
    named = graph.settings.get("supernodes", {}) if groups is None else checked_groups(groups, graph)
    small = graph if graph.pruned else graph.prune()
    n_layers = int(small.nodes["layer"].max())
    nodes = [_node(row, small, n_layers) for row in small.nodes.to_dict("records")]
    target, source = small.adjacency.nonzero().T.tolist()
    links = [
        {"source": nodes[s]["node_id"], "target": nodes[t]["node_id"], "weight": float(small.adjacency[t, s])}
        for t, s in zip(target, source, strict=True)
    ]
    about = {
        "slug": Path(path).stem,
        "scan": small.model,
        "transcoder_list": [],
        "prompt_tokens": small.tokens,
        "prompt": "".join(small.tokens),
        "node_threshold": small.settings.get("nodes"),
        "schema_version": SCHEMA,
    }
    ids = dict(zip(small.nodes["name"], (node["node_id"] for node in nodes), strict=True))
    together = _together(named, ids, small)
    pinned = [one for _, *members in together for one in members]  # viewers draw groups of pinned nodes alone
    shown = {"pinnedIds": pinned, "supernodes": together, "linkType": "both", "clickedId": "", "sg_pos": ""}
    content = {"metadata": about, "qParams": shown, "nodes": nodes, "links": links}
    return write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _together(named: Mapping[str, Sequence[str]], ids: dict[str, str], small: AttributionGraph) -> list[list[str]]:
    """Groups as viewers have them: a name and the ids of what of it is there; those that are one node too."""
    one_node = small.nodes.loc[small.nodes["kind"] == "group", "name"]
    found = [[name, *(ids[one] for one in members if one in ids)] for name, members in named.items()]
    return [*(one for one in found if len(one) > 1), *([name, ids[name]] for name in one_node)]


def _node(row: dict[Any, Any], graph: AttributionGraph, n_layers: int) -> dict[str, Any]:
    kind, layer, position, unit = row["kind"], int(row["layer"]), int(row["position"]), int(row["unit"])
    chance = float(graph.weights[graph.nodes["name"].eq(row["name"]).to_numpy().argmax()]) if kind == "logit" else 0.0
    labels, shown, feature = "", str(layer), -1
    match kind:
        case "logit":
            number = int(row["name"].removeprefix("logit"))
            labels = f'Output "{graph.target_tokens[number]}" (p={chance:.3f})'
            shown, feature = str(n_layers + 1), unit
            name, place = f"{shown}_{unit}_{position}", f"L_{unit}-{position}"
        case "token":
            name, shown, feature = f"E_{unit}_{position}", "E", position
            place = f"E_{unit}-{position}"
        case "error":
            name, place = f"error_{layer}_{position}", f"{layer}_{position}-0"
        case "remainder":
            position, shown = len(graph.tokens) - 1, "0"
            name, place, labels = "remainder", "remainder-0", "units that are not shown"
        case "group":
            name, place, labels = f"group_{row['name']}", f"group_{row['name']}-0", row["name"]
        case "head" | "mlp":  # the viewer knows no -1
            name, feature = f"{layer}_{unit + 1}_{position}", _paired(layer, unit + 1)
            place, labels = f"{layer}_{unit + 1}-0", row["name"]
        case _:
            name, feature = f"{layer}_{unit}_{position}", _paired(layer, unit)
            place, labels = f"{layer}_{unit}-0", row["name"]
    summed = {"group": graph.settings["groups"][row["name"]]} if kind == "group" else {}
    return {
        **summed,
        "node_id": name if kind != "logit" or " - " not in graph.target_tokens[number] else f"{name}_{number}",
        "feature": feature,
        "layer": shown,
        "ctx_idx": position,
        "feature_type": _WRITTEN[kind],
        "token_prob": chance,
        "is_target_logit": kind == "logit" and row["name"] == "logit0",
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": place,
        "clerp": labels,
        "influence": None if kind == "logit" else _number(row["cumulative"]),
        "activation": _number(row["activation"]) if kind in UNITS else None,
    }


def _paired(layer: int, unit: int) -> int:
    """One number for both, by Cantor's pairing."""
    return (layer + unit) * (layer + unit + 1) // 2 + unit


def _number(value: Any) -> float | None:
    return None if not math.isfinite(value) else float(value)


def read_graph(path: str | os.PathLike[str]) -> AttributionGraph:
    """See `AttributionGraph.from_json`."""
    file, where = existing(path, "graph file")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        about, given, links = content["metadata"], content["nodes"], content["links"]
        rows = [_row(node) for node in given]
        names = [str(node["node_id"]) for node in given]
        tokens = [str(token) for token in about["prompt_tokens"]]
        summed, labels = [_summed(node) for node in given], [str(node.get("clerp", "")) for node in given]
        together = [
            [str(part) for part in one] for one in (content.get("qParams") or {}).get("supernodes") or [] if one
        ]
        adjacency = _adjacency(names, links, where)
        weights = [float(node["token_prob"]) if node["feature_type"] == "logit" else 0.0 for node in given]
    except InputError:
        raise
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where} is damaged, or no attribution graph: {error!r}") from None
    nodes = pd.DataFrame(rows)
    logits = nodes["kind"] == "logit"
    nodes.loc[logits, "layer"] -= 1  # there the last layer has no name
    nodes["name"] = own = _unique(nodes, labels)
    settings = {"nodes": about.get("node_threshold"), "read_from": file.name, **_groups(own, names, summed, together)}
    return AttributionGraph(
        nodes=nodes[list(COLUMNS)],
        adjacency=adjacency,
        magnitude=torch.zeros(len(nodes), dtype=torch.float32, device="cpu"),
        weights=torch.tensor(weights, dtype=torch.float32, device="cpu"),
        replacement_score=float("nan"),
        completeness_score=float("nan"),
        tokens=tokens,
        target_tokens=[str(node.get("clerp") or node["node_id"]) for node in given if node["feature_type"] == "logit"],
        model=str(about.get("scan", "")),
        seconds=0.0,
        pruned=True,
        settings=settings,
    )


def _row(node: dict[str, Any]) -> dict[str, Any]:
    if node["feature_type"] not in TYPES:
        raise InputError(f"graph file: a node of type {node['feature_type']!r}; known are {', '.join(TYPES)}")
    kind, parts = TYPES[node["feature_type"]], str(node["node_id"]).split("_")
    layer = -1 if node["layer"] == "E" else int(node["layer"])
    kind = "remainder" if parts == ["remainder"] else "group" if "group" in node else kind
    unit = int(parts[1]) if kind in ("feature", "token", "logit") else -1
    label = str(node.get("clerp", ""))
    named = {f"m{layer}.n": "neuron", f"a{layer}.h": "head", f"m{layer}@": "mlp"}
    if kind == "feature" and (known := [own for start, own in named.items() if label.startswith(start)]):
        kind = known[0]
        unit -= kind != "neuron"
    nothing = float("nan")
    return {
        "kind": kind,
        "layer": layer if kind != "remainder" else -1,
        "position": int(node["ctx_idx"]) if kind != "remainder" else -1,
        "unit": unit,
        "activation": nothing if node.get("activation") is None else float(node["activation"]),
        "influence": nothing,
        "cumulative": nothing if node.get("influence") is None else float(node["influence"]),
        "score": nothing,
        "place": "",
    }


def _summed(node: dict[str, Any]) -> dict[str, Any] | None:
    """What is known of a group that is one node; None of other nodes."""
    if "group" not in node:
        return None
    about = node["group"]
    return {
        "members": [str(one) for one in about["members"]],
        "places": [[int(number) for number in place] for place in about["places"]],
        "inside": float(about["inside"]),
    }


def _groups(
    names: list[str], ids: list[str], summed: list[dict[str, Any] | None], together: list[list[str]]
) -> dict[str, Any]:
    """For settings: `supernodes`, the names of nodes by group, and `groups`, those that are one node."""
    first = dict(reversed(list(zip(ids, names, strict=True))))
    found: dict[str, list[str]] = {}
    for name, *members in together:
        known = [first[one] for one in dict.fromkeys(members) if one in first]
        if known and known != [name]:
            found[_free(name, found)] = known
    one_node = {name: about for name, about in zip(names, summed, strict=True) if about is not None}
    return ({"supernodes": found} if found else {}) | ({"groups": one_node} if one_node else {})


def _free(name: str, taken: Collection[str]) -> str:
    """A name that no other group has: there, two may be called alike."""
    numbered = (f"{name} {n}" for n in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def _unique(nodes: pd.DataFrame, labels: list[str]) -> list[str]:
    names, logits = [], 0
    for row, label in zip(nodes.itertuples(index=False), labels, strict=True):
        layer, position, unit = int(str(row.layer)), int(str(row.position)), int(str(row.unit))
        if row.kind == "logit":
            names.append(f"logit{logits}")
            logits += 1
        elif row.kind == "group":
            names.append(label)
        elif row.kind in UNITS:
            names.append(unit_name(str(row.kind), (layer, position, unit)))
        else:
            named = {"token": f"token@{position}", "error": f"m{layer}.error@{position}", "remainder": "remainder"}
            names.append(named[str(row.kind)])
    return names


def _adjacency(names: list[str], links: list[dict[str, Any]], where: str) -> Tensor:
    """By ids; a link of an id that several nodes have goes to the first of them that has none to that target yet."""
    at: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        at.setdefault(name, []).append(row)
    if several := [name for name, rows in at.items() if len(rows) > 1]:
        logger.warning("%s: several nodes have the id %s; their links cannot be told apart", where, several[0])
    found = torch.zeros(len(names), len(names), dtype=torch.float32, device="cpu")
    for link in links:
        source, target = str(link["source"]), str(link["target"])
        if missing := [name for name in (source, target) if name not in at]:
            raise InputError(f"{where} is damaged: a link names {missing[0]!r}, which is no node")
        t = at[target][0]
        free = [s for s in at[source] if not found[t, s]]
        found[t, free[0] if free else at[source][-1]] = float(link["weight"])
    return found

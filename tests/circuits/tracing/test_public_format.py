"""Files of attribution graphs are what Neuronpedia's public description of them asks for (its graph format 1.0.0)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from circuits import AttributionGraph, trace
from tests.tiny import shared

WORD, WHOLE, REAL = {"type": "string"}, {"type": "integer"}, {"type": "number"}
UNKNOWN = {"type": ["number", "null"]}


def record(optional: dict[str, Any], **required: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


NODE = record(
    {"influence": UNKNOWN, "activation": UNKNOWN},
    node_id=WORD, feature={"type": ["integer", "null"]}, layer={"type": ["string", "integer"]}, ctx_idx=WHOLE,
    feature_type=WORD, jsNodeId=WORD, clerp=WORD,
)  # fmt: skip
SHOWN = record(
    {"pinnedIds": several(WORD), "supernodes": {"type": "array"}, "linkType": WORD, "clickedId": WORD, "sg_pos": WORD}
)
GRAPH = record(
    {},
    metadata=record({"node_threshold": REAL}, slug=WORD, scan=WORD, prompt_tokens=several(WORD), prompt=WORD),
    qParams=SHOWN, nodes=several(NODE), links=several(record({}, source=WORD, target=WORD, weight=REAL)),
)  # fmt: skip


@pytest.mark.parametrize("units", ["neurons", "heads"])
def test_a_graph_is_written_as_the_public_description_asks(units: str, tmp_path: Path) -> None:
    graph = trace(shared("llama"), torch.tensor([3, 17, 5, 40]), [7, 11], units=units, top=10, quiet=True)
    named = graph.prune().nodes.query("kind in ['neuron', 'head', 'mlp']")["name"].iloc[:2].tolist()
    written = json.loads(graph.to_json(tmp_path / "graph.json", {"mine": named}).read_text(encoding="utf-8"))
    jsonschema.validate(written, GRAPH)
    ids = [node["node_id"] for node in written["nodes"]]
    assert len(set(ids)) == len(ids)
    ends = {link[end] for link in written["links"] for end in ("source", "target")}
    assert ends | set(written["qParams"]["pinnedIds"]) <= set(ids)
    for wrong in ({**written, "nodes": [{}]}, {key: part for key, part in written.items() if key != "links"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, GRAPH)
    assert len(AttributionGraph.from_json(tmp_path / "graph.json").nodes) == len(ids)

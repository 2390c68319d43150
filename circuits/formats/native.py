"""A circuit on disk: one JSON for people and programs, and one safetensors file beside it for the arrays.

`ioi.json` holds the format version, the setting that the circuit was found under, the graph, provenance, report, how
the scores were made and the edges with their scores. `ioi-<digest>.safetensors` holds `mask` and `values` (and the
constants of `optimal` ablation), and is named by its content: the JSON names the file and its checksum. Saving writes
the tensors under their new name first, renames the JSON over the old one, and only then removes the tensors that the
old JSON named. So at every moment the JSON and the tensors it names fit each other, whatever happens in between.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pydantic
import safetensors
import safetensors.torch

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.node_circuit import NodeCircuit
from circuits.report import Report
from interp import ranks
from interp.conditions import Conditions
from interp.errors import InputError
from interp.files import as_path, check_writable, existing, is_regular, locked, write_bytes, write_text
from interp.headers import check_header, validated
from interp.kernels.constant_files import TENSORS, constants_in, tensors_of

FORMAT = "faithful-circuits/circuit"
VERSION = 3  # 1 held no setting: it is that of the scores; 2 knew no circuits of nodes


@dataclass(frozen=True)
class _Conditions:
    """`interp.conditions.Conditions` with the objective by name."""

    ablation: str | None
    objective: str | None
    kv: str | None
    task: str | None
    dictionaries: tuple[str, ...] | None = None
    errors: str | None = None
    constants: str | None = None


@dataclass(frozen=True)
class _Document:
    """What the JSON file holds, but for its graph, which is part of the scores."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    format: str
    version: int
    tensors: dict[str, str]
    provenance: dict[str, Any]
    report: dict[str, Any]
    scores: dict[str, Any]
    edges: dict[str, float] | None = None
    nodes: dict[str, float] | None = None
    setting: _Conditions | None = None


def json_path(path: str | os.PathLike[str]) -> Path:
    """`path`, with `.json` added when it has no suffix."""
    path = as_path(path)
    return path if path.suffix or not path.name or not is_regular(path) else path.with_name(path.name + ".json")


def check_target(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """Where `save` will write the JSON, links followed; raises `InputError` where there is no room for two files."""
    found = check_writable(json_path(path), argument)
    if not is_regular(found):
        raise InputError(
            f"{argument}={os.fspath(path)!r} is no plain file; a circuit is two files side by side: name a new one"
        )
    try:
        check_writable(_tensors_beside(found, "0" * 64))
    except InputError:
        raise InputError(
            f"{argument}={os.fspath(path)!r} is too long a name: that of the second file, with the arrays, adds "
            f"{len(_tensors_beside(found, '0' * 64).name) - len(found.name)} characters; shorten it"
        ) from None
    return found


def _tensors_beside(path: Path, digest: str) -> Path:
    """The file that holds the arrays of the circuit at `path`."""
    return path.with_name(f"{path.stem}-{digest[:8]}.safetensors")


def save(circuit: Circuit | NodeCircuit, path: str | os.PathLike[str]) -> Path:
    """Write `circuit` to `path` and its arrays beside it; returns the path of the JSON file.

    Raises `InputError` where no two files can be written, and `OSError` when the disk does not take them; what `path`
    held before can then still be loaded.
    """
    named = json_path(path)
    path = check_target(named)
    arrays = {"mask": circuit.mask, "values": circuit.scores.values, **tensors_of(circuit.scores.constants)}
    data = safetensors.torch.save(arrays)
    digest = hashlib.sha256(data).hexdigest()
    tensors = _tensors_beside(path, digest)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "tensors": {"file": tensors.name, "sha256": digest},
        "setting": circuit.setting.to_dict(),
        "provenance": circuit.provenance,
        "report": circuit.report.to_dict(),
        "scores": circuit.scores.to_dict(),
        **_listed(circuit),
    }
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if not ranks.first():
        return named
    with locked(path.parent):  # another process that saves there must not remove what is about to be named
        there_before = tensors.exists()
        old = _tensors_of(path)
        try:
            write_bytes(tensors, data)
            write_text(path, text)
        except BaseException:
            # an interrupt may come when the new JSON already stands, and names the tensors
            if not there_before and _tensors_of(path) != tensors:
                tensors.unlink(missing_ok=True)
            raise
        if old is not None and old != tensors:
            old.unlink(missing_ok=True)
    return named


def _listed(circuit: Circuit | NodeCircuit) -> dict[str, dict[str, float]]:
    """What the circuit holds, by name, for people."""
    if isinstance(circuit, Circuit):
        return {"edges": {name: _short(score) for name, score in circuit.edge_scores().items()}}
    scores = circuit.to_frame()["score"].tolist()
    return {"nodes": {name: _short(score) for name, score in zip(circuit.nodes, scores, strict=True)}}


def load(path: str | os.PathLike[str]) -> Circuit | NodeCircuit:
    """Read a circuit that `save` wrote, of edges or of nodes.

    Raises `InputError`, in a sentence, for a missing or damaged file, missing tensors or tensors that are not
    those the JSON was written with, a newer format version, and a graph that is not known here.
    """
    path, where = existing(json_path(path), "circuit file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is damaged: it is not JSON ({error})") from None
    if isinstance(content, dict) and {"cfg", "nodes", "edges"} <= content.keys():
        raise InputError(f"{where} is in the format of EAP-IG: read it with Circuit.from_eap_ig_json")
    check_header(content, FORMAT, VERSION, where)
    document = validated(_Document, content, where)
    arrays = _load_tensors(path, document, where)
    scores = Scores.from_dict(document.scores, arrays["values"], where)
    scores = replace(scores, constants=constants_in(arrays, scores.model))
    report = Report.from_dict(document.report, where)
    try:
        kept = {"setting": Conditions(**asdict(document.setting))} if document.setting else {}
        kind = Circuit if document.nodes is None else NodeCircuit
        circuit: Circuit | NodeCircuit = kind(scores, arrays["mask"], report, document.provenance, **kept)
    except InputError as error:
        raise InputError(f"{where} is damaged: {error}") from None
    listed, what = (document.edges or {}, "edges") if document.nodes is None else (document.nodes, "nodes")
    if set(circuit.edges if isinstance(circuit, Circuit) else circuit.nodes) != listed.keys():
        raise InputError(f"{where} is damaged: its list of {what} differs from its mask")
    return circuit


def _load_tensors(path: Path, document: _Document, where: str) -> dict[str, Any]:
    name, digest = document.tensors.get("file", ""), document.tensors.get("sha256")
    if not name or Path(name).name != name:
        raise InputError(f"{where} is damaged: {name!r} cannot be the name of its tensors file")
    file = path.with_name(name)
    if not file.is_file():
        file = path.resolve().with_name(name)  # beside what a link leads to, where `save` puts it
    if not file.is_file():
        raise InputError(f"{where} cannot be loaded without {name!r}, which must lie beside it")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{where} cannot be loaded: {name!r} is damaged, or not the file it was saved with")
    try:
        arrays: dict[str, Any] = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise InputError(f"{where} cannot be loaded: {name!r} is damaged ({error})") from None
    if arrays.keys() - TENSORS != {"mask", "values"}:
        raise InputError(f"{where} cannot be loaded: {name!r} does not hold a mask and values")
    return arrays


def _tensors_of(path: Path) -> Path | None:
    """The tensors file that the circuit at `path` names, if there is one that `save` may have written."""
    try:
        name = json.loads(path.read_text(encoding="utf-8-sig"))["tensors"]["file"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # whatever else stands there, only a file of our own naming is ever removed
    ours = re.fullmatch(re.escape(path.stem) + r"-[0-9a-f]{8}\.safetensors", str(name))
    return path.with_name(str(name)) if ours else None


def _short(score: float) -> float:
    """Nine digits, which tell any two float32 apart, instead of the float64 expansion of a float32."""
    return float(f"{score:.9g}")

"""What was made elsewhere, as `compare_methods` takes it: masks and circuits, their files, entries of MIB."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.formats import eap_ig
from circuits.formats.mib_folder import Entry, read
from circuits.node_circuit import NodeCircuit
from interp.errors import InputError
from interp.setting import MaskObject

Elsewhere = Scores | Entry | Circuit | NodeCircuit | MaskObject | Tensor | os.PathLike[str]
Circuits = tuple[Any, ...]  # masks, or what has one


def is_elsewhere(given: Any) -> bool:
    """Whether something was made elsewhere: it is neither a method, nor the settings of one."""
    return isinstance(given, (Scores, Entry, Tensor, os.PathLike)) or hasattr(given, "mask")


def made_elsewhere(label: str, given: Elsewhere) -> Scores | Tensor | Circuits:
    """Scores, or circuits: one, or MIB's nine from small to large.

    A bool tensor and whatever has a `.mask` is a circuit, another tensor scores. A path is one of a saved circuit, of
    EAP-IG's graph JSON (of scores where it leaves no edge out, or all) or of an entry's folder. Raises `InputError` for
    a folder of several entries, and for what cannot be read.
    """
    if isinstance(given, os.PathLike):
        given = _opened(label, Path(given))
    if isinstance(given, Entry):
        if given.scores is None and not given.circuits:
            raise InputError(f"methods[{label!r}]: {given.name} cannot be read: {' '.join(given.problems)}")
        return given.circuits if given.scores is None else given.scores
    if isinstance(given, Scores) or (isinstance(given, Tensor) and given.dtype != torch.bool):
        return given
    return (given,)


def _opened(label: str, path: Path) -> Scores | Entry | Circuit | NodeCircuit:
    """What a file or a folder holds."""
    if path.is_dir():
        entries = read(path)
        if len(entries) > 1:
            raise InputError(
                f"methods[{label!r}]={str(path)!r} holds {len(entries)} entries; name the folder of one: "
                f"{', '.join(str(path / one.name) for one in entries[:3])}"
            )
        return entries[0]
    if not _of_eap_ig(path):
        found: Circuit | NodeCircuit = Circuit.load(path)
        return found
    circuit = eap_ig.read(path)
    return circuit if 0 < circuit.n_edges < circuit.graph.n_edges else circuit.scores


def _of_eap_ig(path: Path) -> bool:
    """Whether a file is a graph of EAP-IG; what is no JSON at all is for the reader of circuits to refuse."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"cfg", "nodes", "edges"} <= content.keys()

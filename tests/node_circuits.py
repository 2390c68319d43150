"""Small circuits of nodes of every level, for tests of what takes them."""

from __future__ import annotations

from typing import Any

from circuits import NodeCircuit, find_circuit
from tests.dictionaries import unequal
from tests.tiny import D_MODEL

LEVELS = ("neuron", "head", "node", "feature")
QUIET: dict[str, Any] = {"quiet": True, "seed": 3}
UNITS = unequal(D_MODEL)


def small_circuit(model: Any, task: Any, level: str) -> NodeCircuit:
    """A circuit of five nodes; of features with errors as nodes."""
    told: dict[str, Any] = {"dictionaries": UNITS, "errors": "nodes"} if level == "feature" else {}
    circuit = find_circuit(model, task, level=level, nodes=5, method="eap", n_random=0, **told, **QUIET)
    assert isinstance(circuit, NodeCircuit)
    return circuit


def bare(circuit: NodeCircuit) -> dict[str, Any]:
    """What a tensor of nodes has to be told."""
    features = {"dictionaries": UNITS, "errors": "nodes"} if circuit.level == "feature" else {}
    return {"level": circuit.level, **features}

"""Select a circuit and tell its story."""

from circuits.circuit import Circuit, Report
from circuits.find import find_circuit

__all__ = ["Circuit", "Report", "find_circuit"]

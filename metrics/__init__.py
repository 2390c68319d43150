"""How faithful is a circuit, or an explanation."""

from metrics.circuit.curve import Curve, cmd, cpr, faithfulness_curve, mib
from metrics.circuit.evaluate import evaluate, faithfulness
from metrics.correlation import agreement
from metrics.statistics import Estimate, bootstrap

__all__ = [
    "Curve",
    "Estimate",
    "agreement",
    "bootstrap",
    "cmd",
    "cpr",
    "evaluate",
    "faithfulness",
    "faithfulness_curve",
    "mib",
]

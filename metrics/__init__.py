"""How faithful is a circuit, or an explanation."""

from metrics.circuit.curve import Curve, cmd, cpr, faithfulness_curve, mib
from metrics.circuit.evaluate import evaluate, faithfulness
from metrics.correlation import agreement
from metrics.explanation.curves import Curves, removal_curves
from metrics.explanation.erasure import Erasure, NormalisedAOPC, decision_flips, erasure, normalised_aopc
from metrics.explanation.road import Road, road
from metrics.explanation.saco import PerSample, SaCo, saco
from metrics.explanation.sensitivity import sensitivity
from metrics.explanation.soft import soft_erasure
from metrics.statistics import Estimate, bootstrap

__all__ = [
    "Curve",
    "Curves",
    "Erasure",
    "Estimate",
    "NormalisedAOPC",
    "PerSample",
    "Road",
    "SaCo",
    "agreement",
    "bootstrap",
    "cmd",
    "cpr",
    "decision_flips",
    "erasure",
    "evaluate",
    "faithfulness",
    "faithfulness_curve",
    "mib",
    "normalised_aopc",
    "removal_curves",
    "road",
    "saco",
    "sensitivity",
    "soft_erasure",
]

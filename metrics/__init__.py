"""How faithful is a circuit, or an explanation."""

from metrics.circuit.curve import Curve, cmd, cpr, faithfulness_curve, mib
from metrics.circuit.evaluate import evaluate, faithfulness
from metrics.circuit.ground_truth import auroc, average_precision
from metrics.circuit.recursive import RecursiveCurve, recursive_curve, removal_scores
from metrics.circuit.saco import CircuitSaCo, circuit_saco
from metrics.correlation import agreement
from metrics.explanation.curves import Curves, removal_curves
from metrics.explanation.erasure import Erasure, NormalisedAOPC, decision_flips, erasure, normalised_aopc
from metrics.explanation.masf import MaSF
from metrics.explanation.masked import MaskedFineTuning, masked_finetune
from metrics.explanation.measurable import ErasureCurve, erasure_curve
from metrics.explanation.racu import racu
from metrics.explanation.randomisation import randomisation
from metrics.explanation.randomisation_result import Randomisation
from metrics.explanation.report import compare_explanations
from metrics.explanation.report_result import ExplanationReport
from metrics.explanation.road import Road, road
from metrics.explanation.roar import recursive_roar
from metrics.explanation.roar_plan import RoarPlan, roar_plan
from metrics.explanation.roar_result import RoarResult
from metrics.explanation.saco import PerSample, SaCo, saco
from metrics.explanation.sensitivity import sensitivity
from metrics.explanation.soft import soft_erasure
from metrics.statistics import Estimate, bootstrap

__all__ = [
    "CircuitSaCo",
    "Curve",
    "Curves",
    "Erasure",
    "ErasureCurve",
    "Estimate",
    "ExplanationReport",
    "MaSF",
    "MaskedFineTuning",
    "NormalisedAOPC",
    "PerSample",
    "Randomisation",
    "RecursiveCurve",
    "Road",
    "RoarPlan",
    "RoarResult",
    "SaCo",
    "agreement",
    "auroc",
    "average_precision",
    "bootstrap",
    "circuit_saco",
    "cmd",
    "compare_explanations",
    "cpr",
    "decision_flips",
    "erasure",
    "erasure_curve",
    "evaluate",
    "faithfulness",
    "faithfulness_curve",
    "masked_finetune",
    "mib",
    "normalised_aopc",
    "racu",
    "randomisation",
    "recursive_curve",
    "recursive_roar",
    "removal_curves",
    "removal_scores",
    "road",
    "roar_plan",
    "saco",
    "sensitivity",
    "soft_erasure",
]

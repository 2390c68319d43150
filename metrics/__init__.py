"""How faithful is a circuit, or an explanation."""

from interp.interval import Estimate
from metrics.circuit.battery import Reference, circuit_tests
from metrics.circuit.battery_result import CircuitTests
from metrics.circuit.completeness import Completeness, completeness
from metrics.circuit.curve import Curve, cmd, cpr, faithfulness_curve, mib
from metrics.circuit.evaluate import evaluate, faithfulness, measure
from metrics.circuit.ground_truth import auroc, average_precision
from metrics.circuit.minimality import Minimality, minimality
from metrics.circuit.output import OutputAgreement, output_agreement
from metrics.circuit.prompts import PromptFaithfulness, prompt_faithfulness
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
from metrics.statistics import bootstrap

__all__ = [
    "CircuitSaCo",
    "CircuitTests",
    "Completeness",
    "Curve",
    "Curves",
    "Erasure",
    "ErasureCurve",
    "Estimate",
    "ExplanationReport",
    "MaSF",
    "MaskedFineTuning",
    "Minimality",
    "NormalisedAOPC",
    "OutputAgreement",
    "PerSample",
    "PromptFaithfulness",
    "Randomisation",
    "RecursiveCurve",
    "Reference",
    "Road",
    "RoarPlan",
    "RoarResult",
    "SaCo",
    "agreement",
    "auroc",
    "average_precision",
    "bootstrap",
    "circuit_saco",
    "circuit_tests",
    "cmd",
    "compare_explanations",
    "completeness",
    "cpr",
    "decision_flips",
    "erasure",
    "erasure_curve",
    "evaluate",
    "faithfulness",
    "faithfulness_curve",
    "masked_finetune",
    "measure",
    "mib",
    "minimality",
    "normalised_aopc",
    "output_agreement",
    "prompt_faithfulness",
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

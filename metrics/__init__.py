"""How faithful is a circuit, or an explanation."""

from interp.interval import Estimate
from metrics.circuit.areas import cmd, cpr
from metrics.circuit.battery import Reference, circuit_tests
from metrics.circuit.battery_result import CircuitTests
from metrics.circuit.completeness import Completeness, completeness
from metrics.circuit.curve import faithfulness_curve, mib
from metrics.circuit.curve_result import Curve
from metrics.circuit.evaluate import evaluate, faithfulness, measure
from metrics.circuit.ground_truth import auroc, average_precision
from metrics.circuit.left import removal_scores
from metrics.circuit.minimality import Minimality, minimality
from metrics.circuit.missed import Missed, missed_effects
from metrics.circuit.output import OutputAgreement, output_agreement
from metrics.circuit.prompts import PromptFaithfulness, prompt_faithfulness
from metrics.circuit.recursive import RecursiveCurve, recursive_curve
from metrics.circuit.saco import CircuitSaCo, circuit_saco
from metrics.correlation import agreement
from metrics.dictionaries.quality import dictionary_quality
from metrics.dictionaries.quality_result import DictionaryQuality
from metrics.dictionaries.shared import SharedFeatures, shared_features
from metrics.explanation.curves import Curves, RemovalCurvesMetric, removal_curves
from metrics.explanation.erasure import DecisionFlipsMetric, Erasure, ErasureMetric, decision_flips, erasure
from metrics.explanation.masf import MaSF
from metrics.explanation.masf_result import InDistribution
from metrics.explanation.masked import FineTuning, MaskedFineTuning, masked_finetune
from metrics.explanation.measurable import ErasureCurve, erasure_curve
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.named import EXPLANATION_METRICS
from metrics.explanation.normalised import NormalisedAOPC, NormalisedAOPCMetric, normalised_aopc
from metrics.explanation.racu import racu
from metrics.explanation.randomisation import randomisation
from metrics.explanation.randomisation_result import Randomisation
from metrics.explanation.report import compare_explanations
from metrics.explanation.report_result import ExplanationReport
from metrics.explanation.road import Road, RoadMetric, road
from metrics.explanation.roar import recursive_roar
from metrics.explanation.roar_plan import Retraining, RoarPlan, roar_plan
from metrics.explanation.roar_result import RoarResult
from metrics.explanation.saco import SaCo, SaCoMetric, saco
from metrics.explanation.samples import PerSample
from metrics.explanation.sensitivity import SensitivityMetric, sensitivity
from metrics.explanation.soft import SoftErasureMetric, soft_erasure
from metrics.neurons.effects import neuron_effects
from metrics.neurons.effects_result import Effect, NeuronEffects
from metrics.statistics import bootstrap
from metrics.votes.result import ValueVotes
from metrics.votes.run import value_votes

__all__ = [
    "EXPLANATION_METRICS",
    "Case",
    "CircuitSaCo",
    "CircuitTests",
    "Completeness",
    "Curve",
    "Curves",
    "DecisionFlipsMetric",
    "DictionaryQuality",
    "Effect",
    "Erasure",
    "ErasureCurve",
    "ErasureMetric",
    "Estimate",
    "ExplanationMetric",
    "ExplanationReport",
    "FineTuning",
    "InDistribution",
    "MaSF",
    "MaskedFineTuning",
    "Minimality",
    "Missed",
    "NeuronEffects",
    "NormalisedAOPC",
    "NormalisedAOPCMetric",
    "OutputAgreement",
    "PerSample",
    "PromptFaithfulness",
    "Randomisation",
    "RecursiveCurve",
    "Reference",
    "RemovalCurvesMetric",
    "Retraining",
    "Road",
    "RoadMetric",
    "RoarPlan",
    "RoarResult",
    "SaCo",
    "SaCoMetric",
    "SensitivityMetric",
    "SharedFeatures",
    "SoftErasureMetric",
    "ValueVotes",
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
    "dictionary_quality",
    "erasure",
    "erasure_curve",
    "evaluate",
    "faithfulness",
    "faithfulness_curve",
    "masked_finetune",
    "measure",
    "mib",
    "minimality",
    "missed_effects",
    "neuron_effects",
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
    "shared_features",
    "soft_erasure",
    "value_votes",
]

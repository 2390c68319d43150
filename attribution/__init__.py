"""Scores of edges, nodes and tokens: how much each helps a behaviour."""

from attribution.components import ComponentScores, component_scores
from attribution.contrast.explain import contrast_neurons
from attribution.contrast.result import NeuronContrast
from attribution.decompx.decompose import decompose
from attribution.decompx.result import Decomposition
from attribution.edges.acdc import ACDC
from attribution.edges.atp_star import AtPStar
from attribution.edges.cdt import CDT
from attribution.edges.ensemble import Ensemble
from attribution.edges.flow import InformationFlow
from attribution.edges.gradient import EAP, EAPIG, CleanCorrupted, EAPIGActivations
from attribution.edges.hard_concrete import SampledEdgePruning
from attribution.edges.learned import EdgePruning, Schedule, edge_pruning
from attribution.edges.mask_ig import MaskIG
from attribution.edges.method import Method, Passes
from attribution.edges.named import METHODS, methods
from attribution.edges.patched import ActivationPatching, Exact
from attribution.edges.selecting import Learned
from attribution.edges.ugs import UGS
from attribution.engines import attribute
from attribution.heads.contrast import DeCoRe
from attribution.heads.edges import attention_edges
from attribution.heads.edges_result import AttentionEdges
from attribution.heads.explain import attention_scores
from attribution.heads.masking import masked_heads
from attribution.heads.needles import Needle, needle_prompts
from attribution.heads.result import AttentionScores
from attribution.heads.retrieval import retrieval_heads
from attribution.heads.retrieval_result import RetrievalScores
from attribution.inputs.explain import tokens
from attribution.inputs.latents import relevance
from attribution.inputs.method import TokenMethod
from attribution.inputs.named import TOKEN_METHODS, token_methods
from attribution.inputs.relevance_map import Relevance
from attribution.inputs.result import TokenAttributions
from attribution.maps import head_map, token_map
from attribution.routing.tuning import Tuned, tune_experts, tune_routers
from attribution.routing.usage import expert_usage
from attribution.routing.usage_result import ExpertUsage
from attribution.rules import RULE_SETS, RuleSet, applied, rule_set, rule_sets
from attribution.scores import Scores
from attribution.sparse.edges import FeatureEdges, feature_edges
from attribution.sparse.explain import features
from attribution.sparse.result import FeatureScores
from attribution.units.explain import neurons
from attribution.units.of_experts import experts
from attribution.units.result import NeuronScores
from interp.dictionaries import Dictionary

__all__ = [
    "ACDC",
    "CDT",
    "EAP",
    "EAPIG",
    "METHODS",
    "RULE_SETS",
    "TOKEN_METHODS",
    "UGS",
    "ActivationPatching",
    "AtPStar",
    "AttentionEdges",
    "AttentionScores",
    "CleanCorrupted",
    "ComponentScores",
    "DeCoRe",
    "Decomposition",
    "Dictionary",
    "EAPIGActivations",
    "EdgePruning",
    "Ensemble",
    "Exact",
    "ExpertUsage",
    "FeatureEdges",
    "FeatureScores",
    "InformationFlow",
    "Learned",
    "MaskIG",
    "Method",
    "Needle",
    "NeuronContrast",
    "NeuronScores",
    "Passes",
    "Relevance",
    "RetrievalScores",
    "RuleSet",
    "SampledEdgePruning",
    "Schedule",
    "Scores",
    "TokenAttributions",
    "TokenMethod",
    "Tuned",
    "applied",
    "attention_edges",
    "attention_scores",
    "attribute",
    "component_scores",
    "contrast_neurons",
    "decompose",
    "edge_pruning",
    "expert_usage",
    "experts",
    "feature_edges",
    "features",
    "head_map",
    "masked_heads",
    "methods",
    "needle_prompts",
    "neurons",
    "relevance",
    "retrieval_heads",
    "rule_set",
    "rule_sets",
    "token_map",
    "token_methods",
    "tokens",
    "tune_experts",
    "tune_routers",
]

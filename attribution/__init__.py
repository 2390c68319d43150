"""Scores of edges, nodes and tokens: how much each helps a behaviour."""

from attribution.components import ComponentScores, component_scores
from attribution.engines import attribute
from attribution.inputs import Relevance, TokenAttributions, relevance, token_methods, tokens
from attribution.methods import methods
from attribution.rules import RuleSet, applied, rule_set, rule_sets
from attribution.scores import Scores

__all__ = [
    "ComponentScores",
    "Relevance",
    "RuleSet",
    "Scores",
    "TokenAttributions",
    "applied",
    "attribute",
    "component_scores",
    "methods",
    "relevance",
    "rule_set",
    "rule_sets",
    "token_methods",
    "tokens",
]

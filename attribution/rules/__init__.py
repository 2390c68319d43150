"""Backward rules (LRP and its relatives) and sets of them.

The LXT project states that layer-wise relevance propagation is claimed by a patent and free for personal and
scientific use: whoever uses these rules commercially should look into that.
"""

from attribution.rules.hooks import applied
from attribution.rules.rules import (
    AttentionFactors,
    Epsilon,
    Gamma,
    Half,
    HeldGate,
    HeldRouting,
    HeldScale,
    Identity,
    LinearRule,
    Rule,
    pattern_held,
)
from attribution.rules.sets import RULE_SETS, RuleSet, rule_set, rule_sets

__all__ = [
    "RULE_SETS",
    "AttentionFactors",
    "Epsilon",
    "Gamma",
    "Half",
    "HeldGate",
    "HeldRouting",
    "HeldScale",
    "Identity",
    "LinearRule",
    "Rule",
    "RuleSet",
    "applied",
    "pattern_held",
    "rule_set",
    "rule_sets",
]

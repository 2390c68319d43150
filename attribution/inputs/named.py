"""The methods of `tokens` by name."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from attribution.decompx.by_token import DecompX
from attribution.inputs.gradients import GradientSHAP, GradientXInput, IntegratedGradients, TokenRelevance
from attribution.inputs.method import TokenMethod
from attribution.inputs.perturbation import AttentionRollout, FeatureAblation, Occlusion, Random
from attribution.inputs.reagent import ReAGent
from interp.plugins import Registry


def _relevance(rules: str) -> Callable[[], TokenRelevance]:
    """What makes the method of a rule set."""
    return lambda: TokenRelevance(rules)


TOKEN_METHODS: Registry[TokenMethod] = Registry("method", TokenMethod, "faithful_circuits.token_methods")  # type: ignore[type-abstract]
for _rules in ("attnlrp", "cp-lrp", "relp", "gim"):
    TOKEN_METHODS.register(_rules, _relevance(_rules))
_KINDS: tuple[type[TokenMethod], ...] = (
    GradientXInput, IntegratedGradients, GradientSHAP, Occlusion, FeatureAblation, DecompX, AttentionRollout, ReAGent,
    Random,
)  # fmt: skip
for _kind in _KINDS:
    TOKEN_METHODS.register(_kind.name, _kind)


def token_methods() -> pd.DataFrame:
    """The methods of `tokens`: name, passes per input, settings, paper.

    >>> token_methods().query("backward_passes == '0'")["method"].tolist()
    ['occlusion', 'feature-ablation', 'decompx', 'attention-rollout', 'reagent', 'random']
    """
    rows = []
    for name in TOKEN_METHODS.names():
        method = TOKEN_METHODS.make(name)
        rows.append(
            {
                "method": name,
                "forward_passes": method.formula[0],
                "backward_passes": method.formula[1],
                "settings": ", ".join(TOKEN_METHODS.settings(name) or []),
                "paper": method.paper,
            }
        )
    return pd.DataFrame(rows)

"""The token methods by name: what each costs, which settings it takes, and its paper."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from attribution.rules.sets import RULE_SETS


@dataclass(frozen=True)
class TokenMethod:
    """A method of `tokens`. Costs are passes per input; T = tokens, S = steps or samples, R = runs, K = steps taken."""

    name: str
    forwards: str
    backwards: str
    paper: str
    settings: tuple[str, ...] = ()
    rules: str | None = None  # the rule set of a relevance method
    conserves: bool = False  # its values should add up to the explained logit
    contrasts: bool = True  # takes a pair of targets


TOKEN_METHODS = {
    method.name: method
    for method in (
        *(
            TokenMethod(name, "1", "1", RULE_SETS[name][2], rules=name, conserves=True)
            for name in ("attnlrp", "cp-lrp", "relp", "gim")
        ),
        TokenMethod(
            "gradient-x-input", "1", "1", "Shrikumar et al. 2016, arXiv:1605.01713", ("rules",), "gradient", True
        ),
        TokenMethod(
            "integrated-gradients", "S+2", "S", "Sundararajan et al. 2017, arXiv:1703.01365",
            ("baseline", "steps", "rules"),
        ),
        TokenMethod(
            "gradient-shap", "S", "S", "Lundberg & Lee 2017, arXiv:1705.07874",
            ("baseline", "samples", "noise", "seed", "rules"),
        ),
        TokenMethod("occlusion", "T+1", "0", "Zeiler & Fergus 2014, arXiv:1311.2901", ("baseline", "window")),
        TokenMethod("feature-ablation", "T+1", "0", "Li et al. 2016, arXiv:1612.08220", ("baseline",)),
        TokenMethod("decompx", "T/2", "0", RULE_SETS["decompx"][2], ("bias", "activation", "gate"), conserves=True),
        TokenMethod("attention-rollout", "1", "0", "Abnar & Zuidema 2020, arXiv:2005.00928"),
        TokenMethod(
            "reagent", "R(2K+1)", "0", "Zhao & Shan 2024, arXiv:2402.00794",
            ("proposer", "runs", "share", "kept", "max_steps", "change", "seed"), contrasts=False,
        ),
        TokenMethod("random", "0", "0", "a baseline", ("seed",)),
    )
}  # fmt: skip


def token_methods() -> pd.DataFrame:
    """The methods of `tokens`: name, passes per input, settings, paper.

    >>> token_methods().query("`backward passes` == '0'")["method"].tolist()
    ['occlusion', 'feature-ablation', 'decompx', 'attention-rollout', 'reagent', 'random']
    """
    rows = [
        {
            "method": m.name,
            "forward passes": m.forwards,
            "backward passes": m.backwards,
            "settings": ", ".join(m.settings),
            "paper": m.paper,
        }
        for m in TOKEN_METHODS.values()
    ]
    return pd.DataFrame(rows)

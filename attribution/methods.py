"""The named methods: what each is a preset of, what it costs, which ablations it allows, and its paper."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from attribution.rules.sets import RULE_SETS, RuleSet, rule_set
from interp.errors import InputError, choose
from interp.kernels.ablation import KNOWN


@dataclass(frozen=True)
class Method:
    """A method of `attribute`. Costs are passes per prompt; S = steps, L = layers, E = edges, N = nodes."""

    name: str
    level: Literal["edge", "node"]
    forwards: str
    backwards: str
    paper: str
    ablations: tuple[str, ...] = KNOWN
    path: Literal["clean", "clean-corrupted", "inputs", "activations", "mask"] | None = None  # None: really patched
    rules: str = "gradient"  # the rule set, by name (`attribution.rules`)

    def passes(self, *, steps: int, layers: int, edges: int, nodes: int) -> tuple[float, float]:
        """Forward and backward passes per prompt as numbers: the formulas with S, L, E and N filled in.

        >>> METHODS["eap-ig-activations"].passes(steps=5, layers=2, edges=100, nodes=9)
        (27.0, 25.0)
        """
        sizes = {"S": steps, "L": layers, "E": edges, "N": nodes}

        def filled(formula: str) -> float:
            product = re.sub(r"(?<=[\dA-Z)])(?=[A-Z(])", "*", formula)  # written without a sign: S(2L+1)
            return float(np.asarray(pd.eval(product, engine="python", local_dict=sizes)))

        return filled(self.forwards), filled(self.backwards)

    def check_ablation(self, ablation: str) -> None:
        """Raise `InputError` if the ablation is unknown or has no meaning for this method."""
        choose("ablation", ablation, KNOWN)
        if ablation not in self.ablations:
            allowed = [m.name for m in METHODS.values() if ablation in m.ablations and m.level == self.level]
            raise InputError(
                f"method={self.name!r} follows a path between two prompts, which ablation={ablation!r} does not "
                f"have; use ablation='patch', or one of: {', '.join(allowed)}"
            )

    def check_rules(self, rules: str | RuleSet | None) -> None:
        """Raise `InputError` if rules are given that are unknown, or to a method that cannot take them."""
        if rules is None:
            return
        rule_set(rules)
        if self.path is None:
            raise InputError(f"rules change gradients, of which method={self.name!r} takes none; drop them")
        if self.path == "mask":
            raise InputError(f"method={self.name!r} takes plain gradients; drop rules, or use method='eap' with rules=")
        if self.rules != "gradient":
            raise InputError(f"method={self.name!r} is a rule set of its own; for others use method='eap' with rules=")


METHODS = {
    method.name: method
    for method in (
        Method("eap", "edge", "2", "1", "Syed et al. 2023, arXiv:2310.10348", path="clean"),
        Method("eap-ig", "edge", "S+1", "S", "Hanna et al. 2024, arXiv:2403.17806", ("patch",), path="inputs"),
        Method(
            "eap-ig-activations", "edge", "S(2L+1)+2", "S(2L+1)", "Marks et al. 2024, arXiv:2403.19647",
            path="activations",
        ),
        Method(
            "clean-corrupted", "edge", "2", "2", "Hanna et al. 2024, arXiv:2403.17806", ("patch",),
            path="clean-corrupted",
        ),
        Method("mask-ig", "edge", "2S+4", "S", "Sundararajan et al. 2017, arXiv:1703.01365", path="mask"),
        *(
            Method(name, "edge", "2", "1", RULE_SETS[name][2], path="clean", rules=name)
            for name in ("relp", "gim", "attnlrp", "cp-lrp", "decompx")
        ),
        Method("exact", "edge", "E/2", "0", "Conmy et al. 2023, arXiv:2304.14997"),
        Method(
            "attribution-patching", "node", "2", "1", "Nanda 2023; Kramar et al. 2024, arXiv:2403.00745",
            path="clean",
        ),
        Method("activation-patching", "node", "N/2", "0", "Vig et al. 2020; Meng et al. 2022, arXiv:2202.05262"),
    )
}  # fmt: skip


def methods() -> pd.DataFrame:
    """The methods of `attribute`: name, level, passes per prompt, backward rules, ablations, paper.

    Gradient methods score edges and nodes (`level=`) and take other rule sets (`rules=`).

    >>> methods().query("level == 'node'")["method"].tolist()
    ['attribution-patching', 'activation-patching']
    """
    rows = [
        {
            "method": m.name,
            "level": m.level,
            "forward passes": m.forwards,
            "backward passes": m.backwards,
            "rules": m.rules if m.path else "",
            "ablations": ", ".join(m.ablations),
            "paper": m.paper,
        }
        for m in METHODS.values()
    ]
    return pd.DataFrame(rows)

"""The methods of `attribute` by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from attribution.edges.acdc import ACDC
from attribution.edges.atp_star import AtPStar
from attribution.edges.cdt import CDT
from attribution.edges.ensemble import Ensemble
from attribution.edges.flow import InformationFlow
from attribution.edges.gradient import (
    EAP,
    EAPIG,
    AttributionPatching,
    CleanCorrupted,
    EAPIGActivations,
    GradientMethod,
    Relevance,
)
from attribution.edges.hard_concrete import SampledEdgePruning
from attribution.edges.learned import EdgePruning
from attribution.edges.mask_ig import MaskIG
from attribution.edges.method import Method
from attribution.edges.patched import ActivationPatching, Exact
from attribution.edges.registry import METHODS
from attribution.edges.ugs import UGS
from attribution.scores import Level
from interp.kernels.contract import Products

__all__ = ["METHODS", "methods"]


def _relevance(rules: str) -> Callable[..., Relevance]:
    """What makes the method of a rule set."""

    def make(
        level: Level = "edge", checkpointed: bool | None = None, positions: Any = None, products: Products = "float32"
    ) -> Relevance:
        return Relevance(level, rules, checkpointed, positions, products)

    return make


_ALONG_PATHS: tuple[type[Method], ...] = (EAP, AtPStar, EAPIG, EAPIGActivations, CleanCorrupted, MaskIG)
_LEARNED: tuple[type[Method], ...] = (EdgePruning, SampledEdgePruning, UGS)
_OTHERS: tuple[type[Method], ...] = (
    CDT, InformationFlow, ACDC, Exact, Ensemble, AttributionPatching, ActivationPatching,
)  # fmt: skip
for _kind in (*_ALONG_PATHS, *_LEARNED):
    METHODS.register(_kind.name, _kind)
for _rules in ("relp", "gim", "attnlrp", "cp-lrp", "decompx"):
    METHODS.register(_rules, _relevance(_rules))
for _kind in _OTHERS:
    METHODS.register(_kind.name, _kind)


def methods() -> pd.DataFrame:
    """The methods of `attribute`: name, level, passes per prompt, backward rules, ablations, paper.

    Gradient methods score edges and nodes (`level=`) and take other rule sets (`rules=`).

    >>> methods().query("level == 'node'")["method"].tolist()
    ['attribution-patching', 'activation-patching']
    """
    rows = []
    for name in METHODS.names():
        method = METHODS.make(name)
        rules = getattr(method, "rules", None) or "gradient"
        rows.append(
            {
                "method": name,
                "level": method.level,
                "forward_passes": method.formula[0],
                "backward_passes": method.formula[1],
                "rules": str(rules) if isinstance(method, GradientMethod | MaskIG) else "",
                "ablations": ", ".join(method.ablations),
                "paper": method.paper,
            }
        )
    return pd.DataFrame(rows)

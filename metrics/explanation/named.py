"""The metrics of `compare_explanations` by name."""

from __future__ import annotations

from collections.abc import Mapping

from interp.errors import unknown
from interp.plugins import Registry
from metrics.explanation.curves import RemovalCurvesMetric
from metrics.explanation.erasure import DecisionFlipsMetric, ErasureMetric
from metrics.explanation.metric import ExplanationMetric
from metrics.explanation.normalised import NormalisedAOPCMetric
from metrics.explanation.road import RoadMetric
from metrics.explanation.saco import SaCoMetric
from metrics.explanation.sensitivity import SensitivityMetric
from metrics.explanation.soft import SoftErasureMetric

EXPLANATION_METRICS: Registry[ExplanationMetric] = Registry(
    "metric",
    ExplanationMetric,  # type: ignore[type-abstract]
    "faithful_circuits.explanation_metrics",
)
for _kind in (
    SaCoMetric, RemovalCurvesMetric, ErasureMetric, NormalisedAOPCMetric, SoftErasureMetric, DecisionFlipsMetric,
    RoadMetric, SensitivityMetric,
):  # fmt: skip
    EXPLANATION_METRICS.register(_kind.name, _kind)


def explanation_columns() -> dict[str, Mapping[str, str]]:
    """By metric, the columns that can be asked for alone: name in a report -> column of the metric's result.

    >>> list(explanation_columns()["erasure"])
    ['comprehensiveness', 'sufficiency', 'log-odds']
    """
    return {name: getattr(EXPLANATION_METRICS.maker(name), "columns", {}) for name in EXPLANATION_METRICS.names()}


def family_of(argument: str, name: str) -> str:
    """The metric that a name, or the name of one of its columns, belongs to; `module:Name` is its own."""
    if name in EXPLANATION_METRICS.names() or ":" in name:
        return name
    columns = explanation_columns()
    for family, own in columns.items():
        if name in own:
            return family
    raise unknown(argument, name, sorted({*columns, *(one for own in columns.values() for one in own)}))

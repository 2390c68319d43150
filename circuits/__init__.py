"""Select a circuit and tell its story.

The names below are imported when they are first used, so that the command line starts without loading torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.approximation import agreement
    from circuits.by_prompt import mechanisms
    from circuits.circuit import Circuit
    from circuits.compare import compare_methods
    from circuits.comparison import MethodComparison
    from circuits.find import find_circuit
    from circuits.mechanism_result import Mechanisms
    from circuits.node_circuit import NodeCircuit
    from circuits.planning import plan
    from circuits.report import Report
    from circuits.resampling import Stable
    from circuits.rescoring import rescorer
    from circuits.stable import Stability, stability
    from circuits.sweeping.result import SweepResult
    from circuits.sweeping.running import sweep
    from circuits.tracing.averaging import average
    from circuits.tracing.changes import Intervention
    from circuits.tracing.cost import TraceCost
    from circuits.tracing.explain import trace, trace_cost
    from circuits.tracing.graph import AttributionGraph
    from circuits.tracing.graph_comparison import GraphComparison
    from circuits.transfer import Robustness, robustness

__all__ = [
    "AttributionGraph",
    "Circuit",
    "GraphComparison",
    "Intervention",
    "Mechanisms",
    "MethodComparison",
    "NodeCircuit",
    "Report",
    "Robustness",
    "Stability",
    "Stable",
    "SweepResult",
    "TraceCost",
    "agreement",
    "average",
    "compare_methods",
    "find_circuit",
    "mechanisms",
    "plan",
    "rescorer",
    "robustness",
    "stability",
    "sweep",
    "trace",
    "trace_cost",
]

_HOMES = {
    "AttributionGraph": "circuits.tracing.graph",
    "Circuit": "circuits.circuit",
    "GraphComparison": "circuits.tracing.graph_comparison",
    "Intervention": "circuits.tracing.changes",
    "Mechanisms": "circuits.mechanism_result",
    "MethodComparison": "circuits.comparison",
    "NodeCircuit": "circuits.node_circuit",
    "Report": "circuits.report",
    "Robustness": "circuits.transfer",
    "Stability": "circuits.stable",
    "Stable": "circuits.resampling",
    "SweepResult": "circuits.sweeping.result",
    "TraceCost": "circuits.tracing.cost",
    "agreement": "circuits.approximation",
    "average": "circuits.tracing.averaging",
    "compare_methods": "circuits.compare",
    "find_circuit": "circuits.find",
    "mechanisms": "circuits.by_prompt",
    "plan": "circuits.planning",
    "rescorer": "circuits.rescoring",
    "robustness": "circuits.transfer",
    "stability": "circuits.stable",
    "sweep": "circuits.sweeping.running",
    "trace": "circuits.tracing.explain",
    "trace_cost": "circuits.tracing.explain",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

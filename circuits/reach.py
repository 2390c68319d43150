"""What stands above circuits and attribution graphs, by name: what writes, draws, judges and intervenes in them.

All of these take circuits or graphs, so that their modules import `circuits.circuit` or `circuits.tracing.graph`,
which must not import them. The methods of circuits, comparisons and `AttributionGraph` find them here
when they are called; so a program that only loads a circuit does not load plotly either.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

HOMES = {
    "save": "circuits.formats.native:save",
    "load": "circuits.formats.native:load",
    "to_eap_ig_json": "circuits.formats.eap_ig:write",
    "from_eap_ig_json": "circuits.formats.eap_ig:read",
    "to_networkx": "circuits.formats.graphs:to_networkx",
    "to_graphml": "circuits.formats.graphs:write_graphml",
    "to_dot": "circuits.formats.graphs:write_dot",
    "figure": "circuits.viewer:figure",
    "to_html": "circuits.viewer:to_html",
    "show": "circuits.viewer:show",
    "small_picture": "circuits.viewer.page:small_picture",
    "comparison_figure": "circuits.viewer:comparison_figure",
    "comparison_to_html": "circuits.viewer:comparison_to_html",
    "show_comparison": "circuits.viewer.comparing:show_comparison",
    "node_figure": "circuits.viewer.nodes.figure:figure",
    "compare_nodes": "circuits.node_comparison:NodeComparison",
    "node_comparison_figure": "circuits.viewer.nodes.comparing:comparison_figure",
    "node_comparison_sketch": "circuits.viewer.nodes.still:comparison_sketch",
    "nodes_to_html": "circuits.viewer.nodes.page:to_html",
    "show_page": "circuits.viewer:show_page",
    "intervene": "circuits.tracing.intervention:intervene",
    "check_graph": "circuits.tracing.checking:check",
    "attach": "circuits.tracing.attaching:attach",
    "write_graph": "circuits.tracing.exchange:write_graph",
    "read_graph": "circuits.tracing.exchange:read_graph",
    "graph_to_html": "circuits.tracing.viewer.page:to_html",
    "show_graph": "circuits.tracing.viewer.page:show",
    "compare_graphs": "circuits.tracing.contrast:compare",
    "group_nodes": "circuits.tracing.grouping:group",
    "graph_figure": "circuits.tracing.figures:figure",
    "circuit_tests": "metrics.circuit.battery:circuit_tests",
}


def reach(name: str) -> Callable[..., Any]:
    """The function of that name.

    >>> reach("to_dot").__name__
    'write_dot'
    """
    module, _, function = HOMES[name].partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found

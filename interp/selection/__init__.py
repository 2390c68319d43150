"""From scores over a graph to a circuit: selections as pure functions of tensors.

`top_n` and `threshold` rank edges; `greedy` grows from the logits upwards; `connected` ranks and counts only edges
on paths from the input to the logits; `program` solves an integer program over the scores. `weighed` shifts the
balance of helping and harming edges before any of them; `average` and `consistent` make one score of many.
"""

from typing import Any

from interp.renamed import gone
from interp.selection.combine import average, consistent, weighed
from interp.selection.connecting import connected
from interp.selection.growing import greedy
from interp.selection.integer import program
from interp.selection.named import SELECTIONS, Connected, Greedy, Program, Rule, Selection, TopN, select
from interp.selection.nodes import node_ladder, top_nodes
from interp.selection.paths import live_sources, prune
from interp.selection.sizes import LADDER_FRACTIONS, ladder
from interp.selection.top import threshold, top_n, top_n_nodes

__all__ = [
    "LADDER_FRACTIONS",
    "SELECTIONS",
    "Connected",
    "Greedy",
    "Program",
    "Rule",
    "Selection",
    "TopN",
    "average",
    "connected",
    "consistent",
    "greedy",
    "ladder",
    "live_sources",
    "node_ladder",
    "program",
    "prune",
    "select",
    "threshold",
    "top_n",
    "top_n_nodes",
    "top_nodes",
    "weighed",
]


def __getattr__(name: str) -> Any:
    raise gone(__name__, name, {"RULES": "selections are objects now, by name in SELECTIONS"})

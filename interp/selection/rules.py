"""Selections by name."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.errors import choose
from interp.graph import ComputationalGraph
from interp.selection.connected import connected
from interp.selection.greedy import greedy
from interp.selection.program import program
from interp.selection.top import top_n

RULES = {"top-n": top_n, "greedy": greedy, "connected": connected, "program": program}


@numbers.checked(n=numbers.FROM_ZERO)
def select(
    scores: Float[Tensor, "source target"],
    graph: ComputationalGraph,
    n: int,
    selection: str = "top-n",
    absolute: bool = True,
) -> Bool[Tensor, "source target"]:
    """The circuit of `n` edges that a rule of `RULES` takes from scores, pruned.

    `top-n` and `greedy` count edges before pruning, as MIB does, `connected` and `program` after it. Raises
    `InputError` for an unknown name and for what the rule refuses.
    """
    return RULES[choose("selection", selection, RULES)](scores, graph, n, absolute)

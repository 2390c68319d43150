"""`Intervention`: what the real model does with some units at other activations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp import numbers, theme
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Intervention(Result):
    """The logits of the changed model, and the change of every node.

    Attributes:
        logits, before: float [d_vocab] at the last position, changed and as they were.
        nodes: columns name, kind, layer, position, unit, before, after, change, of units (the changed ones too) and
            logits, in the order of the graph.
        changed: the units that were set, by name, with their activations.
        attention: `frozen` or `free`.
        model: its name.
        rerouted: layer and position wherever a mixture chose other experts than in the prompt, which no score foresees;
            known for neurons.
    """

    logits: Float[Tensor, " d_vocab"]
    before: Float[Tensor, " d_vocab"]
    nodes: pd.DataFrame
    changed: dict[str, float]
    attention: str
    model: str
    rerouted: list[tuple[int, int]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        return self.nodes.copy()

    def headline(self) -> str:
        logits = self.nodes[self.nodes["kind"] == "logit"]
        moved = ", ".join(f"{row.name} {row.change:+.3f}" for row in logits.head(3).itertuples(index=False))
        other = f", other experts at {len(self.rerouted)} places" if self.rerouted else ""
        return f"{len(self.changed)} units set, attention {self.attention}: {moved}{other}, {self.model}"

    @numbers.checked(n=numbers.COUNT)
    def figure(self, n: int = 20) -> Figure:
        """Bars of the `n` largest changes: of logits and of units' activations."""
        rows = self.nodes.reindex(self.nodes["change"].abs().sort_values(ascending=False, kind="stable").index).head(n)
        set_to = ", ".join(f"{name} = {value:.3g}" for name, value in list(self.changed.items())[:3])
        title = theme.named(self.model, f"what changes where {len(self.changed)} units are set: {set_to}")
        return theme.signed_bars(
            rows["name"].tolist(), rows["change"].tolist(), title, "change (of a logit, or of an activation)", "node"
        )

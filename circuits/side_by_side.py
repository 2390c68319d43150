"""Two circuits side by side: what they share, what only one has, and where their scores differ."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass

import numpy as np
import pandas as pd

from circuits.circuit import Circuit
from interp.errors import InputError

BOTH, HERE, THERE = "both", "only here", "only there"


@dataclass(frozen=True, eq=False, repr=False)
class CircuitComparison:
    """Circuit `here` against circuit `there`, over one graph; `names` are what pictures and tables call them.

    Raises `InputError` for circuits over different graphs and for names that are empty or equal.

    >>> import torch
    >>> from attribution.scores import Scores
    >>> from interp.graph import ComputationalGraph
    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> circuit = Circuit(Scores(torch.zeros(graph.shape), graph, method="eap"), graph.edge_mask)
    >>> CircuitComparison(circuit, circuit).jaccard
    1.0
    """

    here: Circuit
    there: Circuit
    names: tuple[str, str] = ("here", "there")

    def __post_init__(self) -> None:
        self.here.jaccard(self.there)  # refuses circuits over different graphs
        if len(self.names) != 2 or not all(self.names) or self.names[0] == self.names[1]:
            raise InputError(f"names={self.names!r} must be two different names, one for each circuit")

    @property
    def jaccard(self) -> float:
        """Shared edges over edges in either circuit; 1.0 when both are empty."""
        return self.here.jaccard(self.there)

    @property
    def counts(self) -> dict[str, int]:
        """How many edges are in both, only here and only there."""
        here, there = self.here.mask, self.there.mask
        parts = (here & there, here & ~there, there & ~here)
        return {name: int(part.sum()) for name, part in zip((BOTH, HERE, THERE), parts, strict=True)}

    @property
    def same_scale(self) -> bool:
        """Whether the scores are of one method and objective, so that their differences mean something."""
        first, second = self.here.scores, self.there.scores
        return (first.method, first.settings.get("objective")) == (second.method, second.settings.get("objective"))

    def to_frame(self) -> pd.DataFrame:
        """The edges of either circuit: columns edge, membership, here, there, difference; largest |difference| first.

        `here` and `there` are the scores each circuit's method gave the edge, in the circuit or not.
        """
        graph, here, there = self.here.graph, self.here.mask, self.there.mask
        source, target = (here | there).nonzero().unbind(dim=1)
        circuits = (self.here, self.there)
        first, second = (circuit.scores.edge_values.double()[source, target].numpy() for circuit in circuits)
        inside = here[source, target].numpy(), there[source, target].numpy()
        frame = pd.DataFrame(
            {
                "edge": [graph.edge_name(*pair) for pair in zip(source.tolist(), target.tolist(), strict=True)],
                "membership": np.select([inside[0] & inside[1], inside[0]], [BOTH, HERE], THERE),
                "here": first,
                "there": second,
                "difference": first - second,
            }
        )
        return frame.sort_values("difference", key=np.abs, ascending=False, kind="stable", ignore_index=True)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Both circuits as one interactive page, coloured by membership; written to `path` when one is given."""
        from circuits import viewer

        return viewer.comparison_to_html(self, path)

    def show(self) -> None:
        """Show the page of `to_html`, in the notebook or else in a browser."""
        from circuits import viewer

        viewer.show_page(self.to_html())

    def __repr__(self) -> str:
        counts, (here, there) = self.counts, self.names
        return (
            f"CircuitComparison({counts[BOTH]:,} edges in both, {counts[HERE]:,} only in {here}, "
            f"{counts[THERE]:,} only in {there}; Jaccard {self.jaccard:.3f})"
        )

    def _repr_html_(self) -> str:
        table = self.to_frame().head(10)
        return f"<p>{html.escape(repr(self))}</p>" + table.to_html(index=False, float_format="{:+.4g}".format, border=0)

"""Two circuits of nodes side by side."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.beside import Beside
from circuits.node_circuit import NodeCircuit
from circuits.reach import reach
from interp.charts import charts
from interp.element_names import element_names
from interp.files import write_text
from interp.tables import page

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False)
class NodeComparison(Beside):
    """Circuit `here` against circuit `there`, of nodes of one level and of the same positions.

    `names` are what pictures and tables call them. Raises `InputError` for circuits of different nodes and for names
    that are empty or equal.

    >>> import torch
    >>> from attribution import Scores
    >>> from interp import ComputationalGraph
    >>> scores = Scores(torch.tensor([[0.5, -2.0, 1.0]]), ComputationalGraph(1, 1), method="eap", level="neuron")
    >>> circuits = [NodeCircuit(scores, scores.values > least) for least in (0.0, 0.7)]
    >>> circuits[0].compare(circuits[1]).counts
    {'both': 1, 'only here': 1, 'only there': 0}
    """

    here: NodeCircuit
    there: NodeCircuit
    noun: ClassVar[str] = "node"

    def inside(self, circuit: NodeCircuit) -> Bool[Tensor, " place"]:
        return circuit.own.flatten()

    def scores(self, circuit: NodeCircuit) -> Float[Tensor, " place"]:
        return circuit.scores.values.flatten()

    def called(self, places: Int[Tensor, " some"]) -> Sequence[str]:
        one = self.here
        return element_names(one.graph, one.level, one.spans, one.node_mask.shape, places, one.scores.settings)

    def figure(self) -> Figure:
        """Each node of either circuit at its two scores, coloured by which of them has it; equal ones on the line."""
        found: Figure = reach("node_comparison_figure")(self)
        return found

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The figure as a page of about 2 MB that needs no network; written to `path` when one is given."""
        text = page(self.headline(), f"<h1>{html.escape(self.headline())}</h1>{charts([self.figure()])}")
        if path is not None:
            write_text(path, text)
        return text

    def show(self) -> None:
        """Show the page of `to_html`, in the notebook or else in a browser."""
        reach("show_page")(self.to_html(), reach("node_comparison_sketch")(self))

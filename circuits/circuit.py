"""Circuit: a subgraph with its scores, how faithful it is, and where it came from. And two of them side by side.

Both are data. What writes, draws and tests them stands above and is reached by name (`circuits.reach`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from torch import Tensor

from attribution.scores import Scores, edge_frame
from circuits import links
from circuits.beside import Beside
from circuits.found import Found
from circuits.reach import reach
from circuits.report import Report
from interp.conditions import Conditions
from interp.element_names import element_names
from interp.errors import InputError
from interp.keeping import kept

if TYPE_CHECKING:
    import networkx as nx
    from plotly.graph_objects import Figure


@kept
@dataclass(frozen=True, eq=False, repr=False)
class Circuit(Found):
    """The edges of a model that do a task: a mask over a computational graph, and what is known of it.

    `mask` is a bool `[source, target]` tensor over the graph of `scores`; the other fields: `circuits.found.Found`.
    Raises `InputError` when the mask does not fit the graph.

    >>> import torch
    >>> from interp.graph import ComputationalGraph
    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> scores = Scores(torch.zeros(graph.shape), graph, method="eap")
    >>> Circuit(scores, graph.edge_mask).n_edges == graph.n_edges
    True
    """

    scores: Scores
    mask: Tensor
    report: Report = field(default_factory=Report)
    provenance: dict[str, Any] = field(default_factory=dict)
    setting: Conditions = None  # type: ignore[assignment]  # filled in where it is not given

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", self.graph.check_mask(self.mask).clone())
        self._settle()

    @property
    def n_edges(self) -> int:
        """Number of edges in the circuit."""
        return int(self.mask.sum())

    @property
    def n_nodes(self) -> int:
        """Number of nodes in the circuit, the input and the logits counted."""
        return len(self.nodes)

    @property
    def edges(self) -> tuple[str, ...]:
        """Names of the edges in the circuit, source by source."""
        return tuple(self.graph.edges(self.mask))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that an edge of the circuit leaves or enters, in the order of the graph."""
        return links.nodes(self.mask, self.graph)

    def links(self) -> Iterator[tuple[str, str, str]]:
        """Every edge as (source, target, node that reads it).

        An edge into a k or v target of a key-value group is given once for each head of the group that writes
        anything inside the circuit (for each of its heads, when none does).
        """
        return links.links(self.mask, self.graph)

    def to_frame(self) -> pd.DataFrame:
        """The edges of the circuit by |score| descending: columns edge, source, target, score."""
        return edge_frame(self.graph, self.scores.edge_values, self.mask.nonzero().unbind(dim=1))

    def edge_scores(self) -> dict[str, float]:
        """Score of each edge of the circuit by name, by |score| descending."""
        frame = self.to_frame()
        return dict(zip(frame["edge"].tolist(), frame["score"].tolist(), strict=True))

    def jaccard(self, other: Circuit) -> float:
        """Shared edges over edges in either circuit; 1.0 when both are empty.

        Raises `InputError` for circuits over different graphs.
        """
        if not isinstance(other, Circuit):
            raise InputError(f"a circuit of edges has no overlap with one of nodes: {self!r}, {other!r}")
        if self.graph != other.graph:
            raise InputError(f"circuits over different graphs have no overlap: {self.graph}, {other.graph}")
        either = int((self.mask | other.mask).sum())
        return int((self.mask & other.mask).sum()) / either if either else 1.0

    def compare(self, other: Circuit, names: tuple[str, str] = ("here", "there")) -> CircuitComparison:
        """This circuit beside another over the same graph: shared edges, differences, Jaccard, one picture."""
        return CircuitComparison(self, other, names)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Any:
        """Read what `save` wrote, of edges or of nodes: a `Circuit` or a `NodeCircuit`.

        Raises `InputError` for a missing, damaged or newer file.
        """
        return reach("load")(path)

    def to_eap_ig_json(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph JSON of the EAP-IG reference, which MIB's evaluation reads."""
        return Path(reach("to_eap_ig_json")(self, path))

    @classmethod
    def from_eap_ig_json(cls, path: str | os.PathLike[str]) -> Circuit:
        """Read a graph JSON of the EAP-IG reference; raises `InputError` for what is not one.

        Files with scores of nodes rank `input` beside heads and MLPs; `scores.mask(n)` has it always in and counts it
        not (`docs/differences.md`). Files that others wrote do not say what a circuit was found under.
        """
        found: Circuit = reach("from_eap_ig_json")(path)
        return found

    def to_networkx(self) -> nx.MultiDiGraph:
        """A networkx graph of nodes (`input`, `a0.h0`, `m0`, `logits`), with an edge per port between them.

        Edges are keyed by their port (`q`, `k`, `v`, or `in` for MLPs and logits) and carry `port`, `score`
        and `edge`, their name. Nodes carry `layer` (-1 for the input, the number of layers for the logits).
        """
        return reach("to_networkx")(self)

    def to_graphml(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph of `to_networkx` as GraphML."""
        return Path(reach("to_graphml")(self, path))

    def to_dot(self, path: str | os.PathLike[str]) -> Path:
        """Write the circuit in Graphviz's DOT language."""
        return Path(reach("to_dot")(self, path))

    def figure(self) -> Figure:
        """The circuit as a plain plotly figure: layer by head, edges coloured by sign."""
        return reach("figure")(self)

    def to_html(self, path: str | os.PathLike[str] | None = None, **views: Any) -> str:
        """The interactive picture as a self-contained HTML page; written to `path` when one is given.

        `model=` and `task=` add what the circuit does on one prompt; see `circuits.viewer.to_html`.
        """
        return str(reach("to_html")(self, path, **views))

    def show(self, **views: Any) -> None:
        """Show the interactive picture, in the notebook or else in a browser; `views` as for `to_html`."""
        reach("show")(self, **views)

    def sizes(self) -> list[str]:
        return [f"{self.n_edges:,} of {self.graph.n_edges:,} edges", f"{self.n_nodes:,} nodes"]


@dataclass(frozen=True, eq=False, repr=False)
class CircuitComparison(Beside):
    """Circuit `here` against circuit `there`, over one graph; `names` are what pictures and tables call them.

    Raises `InputError` for circuits over different graphs and for names that are empty or equal.

    >>> import torch
    >>> from interp.graph import ComputationalGraph
    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> circuit = Circuit(Scores(torch.zeros(graph.shape), graph, method="eap"), graph.edge_mask)
    >>> circuit.compare(circuit).jaccard
    1.0
    """

    here: Circuit
    there: Circuit
    noun: ClassVar[str] = "edge"

    def inside(self, circuit: Circuit) -> Tensor:
        return circuit.mask.flatten()

    def scores(self, circuit: Circuit) -> Tensor:
        return circuit.scores.edge_values.flatten()

    def called(self, places: Tensor) -> Sequence[str]:
        graph = self.here.graph
        return element_names(graph, "edge", None, graph.shape, places, {})

    def figure(self) -> Figure:
        """Both circuits as one plain plotly figure, edges coloured by which of them has it."""
        return reach("comparison_figure")(self)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Both circuits as one interactive page, coloured by membership; written to `path` when one is given."""
        return str(reach("comparison_to_html")(self, path))

    def show(self) -> None:
        """Show the page of `to_html`, in the notebook or else in a browser."""
        reach("show_page")(self.to_html())

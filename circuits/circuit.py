"""Circuit: a subgraph with its scores, how faithful it is, and where it came from. And two of them side by side.

Both are data. What writes, draws and tests them stands above and is reached by name (`circuits.reach`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from interp.span_mask import SpanMask
from interp.spans import Span, SpanNames

if TYPE_CHECKING:
    import networkx as nx
    from plotly.graph_objects import Figure


@kept
@dataclass(frozen=True, eq=False, repr=False)
class Circuit(Found):
    """The edges of a model that do a task: a mask over a computational graph, and what is known of it.

    `mask` is a bool `[source, target]` tensor over the graph of `scores`, or `[span, source, target]` where these tell
    spans apart (an edge counts once at each); the other fields: `circuits.found.Found`.
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
        if isinstance(self.mask, Tensor) and self.mask.ndim == 3 and self.scores.spans is not None:
            mask = SpanMask(self.mask, self.scores.spans).check(self.graph, self.scores.model)
        else:
            mask = self.graph.check_mask(self.mask)
        object.__setattr__(self, "mask", mask.clone())
        self._settle()

    @property
    def spans(self) -> SpanNames | None:
        """The positions and names that the circuit tells apart; None: an edge is at all positions at once."""
        return self.scores.spans if self.mask.ndim == 3 else None

    @property
    def anywhere(self) -> Tensor:
        """The edges that are in at any position, `[source, target]`."""
        return self.mask if self.spans is None else self.mask.any(0)

    def by_span(self) -> Iterator[tuple[Span | None, Tensor]]:
        """Each span with the mask of its edges; None with the whole mask where spans are not told apart."""
        yield from zip(self.spans or (None,), self.mask if self.spans else self.mask[None], strict=True)

    def at_any_position(self) -> Circuit:
        """The same as a circuit of edges at all positions at once: those that are in anywhere, with summed scores.

        It runs otherwise: every edge is then in everywhere. Plain figures, comparisons and the formats of others show
        this one, and its provenance notes where it comes from.
        """
        if self.spans is None:
            return self
        settings = {key: value for key, value in self.scores.settings.items() if key != "span_order"}
        summed = replace(self.scores, values=self.scores.edge_values, spans=None, settings=settings)
        note = {"flattened": f"{self.n_edges:,} edges at {len(self.spans)} spans: {', '.join(map(str, self.spans))}"}
        return replace(self, scores=summed, mask=self.anywhere, provenance=self.provenance | note)

    @property
    def n_edges(self) -> int:
        """Number of edges in the circuit; where spans are told apart each counts at every span that it is in at."""
        return int(self.mask.sum())

    @property
    def n_nodes(self) -> int:
        """Number of nodes in the circuit, the input and the logits counted."""
        return len(self.nodes)

    @property
    def edges(self) -> tuple[str, ...]:
        """Names of the edges in the circuit, source by source; behind `@` the span where spans are told apart."""
        if self.spans is None:
            return tuple(self.graph.edges(self.mask))
        return tuple(f"{edge}@{span}" for span, part in zip(self.spans, self.mask, strict=True)
                     for edge in self.graph.edges(part))  # fmt: skip

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that an edge of the circuit leaves or enters, in the order of the graph."""
        return links.nodes(self.anywhere, self.graph)

    def links(self) -> Iterator[tuple[str, str, str]]:
        """Every edge as (source, target, node that reads it).

        An edge into a k or v target of a key-value group is given once for each head of the group that writes
        anything inside the circuit (for each of its heads, when none does). At any position.
        """
        return links.links(self.anywhere, self.graph)

    def to_frame(self) -> pd.DataFrame:
        """The edges of the circuit by |score| descending: edge, source, target, span if told apart, score."""
        values = self.scores.edge_values if self.spans is None else self.scores.values
        return edge_frame(self.graph, values, self.mask.nonzero().unbind(dim=1), spans=self.spans)

    def edge_scores(self) -> dict[str, float]:
        """Score of each edge of the circuit by name, by |score| descending; named as in `edges`."""
        frame = self.to_frame()
        names = frame["edge"] if self.spans is None else frame["edge"] + "@" + frame["span"].astype(str)
        return dict(zip(names.tolist(), frame["score"].tolist(), strict=True))

    def jaccard(self, other: Circuit) -> float:
        """Shared edges over edges in either circuit; 1.0 when both are empty.

        Raises `InputError` for circuits over different graphs.
        """
        if not isinstance(other, Circuit):
            raise InputError(f"a circuit of edges has no overlap with one of nodes: {self!r}, {other!r}")
        if self.graph != other.graph:
            raise InputError(f"circuits over different graphs have no overlap: {self.graph}, {other.graph}")
        if self.spans != other.spans:
            raise InputError(f"circuits at other positions have no overlap: {self!r}, {other!r}")
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
        """Write the graph JSON of the EAP-IG reference, which MIB's evaluation reads.

        Of a circuit by position `at_any_position`, with a note.
        """
        return Path(reach("to_eap_ig_json")(self.at_any_position(), path))

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
        and `edge`, their name; where spans are told apart keys are `q@S2`, and edges carry `span`. Nodes carry `layer`
        (-1 for the input, the number of layers for the logits).
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
        return reach("figure")(self.at_any_position())

    def to_html(self, path: str | os.PathLike[str] | None = None, **views: Any) -> str:
        """The interactive picture as a self-contained HTML page; written to `path` when one is given.

        `model=` and `task=` add what the circuit does on one prompt; see `circuits.viewer.to_html`. By position: a
        column for each span.
        """
        return str(reach("to_html")(self, path, **views))

    def show(self, **views: Any) -> None:
        """Show the interactive picture, in the notebook or else in a browser; `views` as for `to_html`."""
        reach("show")(self, **views)

    def sizes(self) -> list[str]:
        spans = self.spans or (None,)
        apart = "" if self.spans is None else f" at {len(spans)} spans"
        return [f"{self.n_edges:,} of {len(spans) * self.graph.n_edges:,} edges{apart}", f"{self.n_nodes:,} nodes"]


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
        values = circuit.scores.edge_values if circuit.spans is None else circuit.scores.values
        return values.flatten()

    def called(self, places: Tensor) -> Sequence[str]:
        return element_names(self.here.graph, "edge", self.here.spans, self.here.mask.shape, places, {})

    def at_any_position(self) -> CircuitComparison:
        """The same of the circuits at all positions at once (`Circuit.at_any_position`), which pictures show."""
        return CircuitComparison(self.here.at_any_position(), self.there.at_any_position(), self.names)

    def figure(self) -> Figure:
        """Both circuits as one plain plotly figure, edges coloured by which of them has it."""
        return reach("comparison_figure")(self.at_any_position())

    def to_html(self, path: str | os.PathLike[str] | None = None, **views: Any) -> str:
        """Both circuits as one interactive page: colour is membership, dashes are negative scores.

        Written to `path` when one is given. `model=` and `task=` (and `example=`) add prompts, and the faithfulness of
        both circuits on the same ones.
        """
        return str(reach("comparison_to_html")(self.at_any_position(), path, **views))

    def show(self, **views: Any) -> None:
        """Show the page of `to_html`, in the notebook or else in a browser."""
        reach("show_comparison")(self.at_any_position(), **views)

"""`NodeCircuit`: the nodes that carry a behaviour, with their scores and how faithful they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.found import Found
from circuits.reach import reach
from circuits.report import Report
from interp.conditions import Conditions
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sets import DictionarySet
from interp.element_names import element_names, node_frame
from interp.errors import InputError
from interp.keeping import kept
from interp.node_mask import NODE_LEVELS, NodeMask, Spans
from interp.selection.nodes import countable

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from circuits.beside import Beside

_NOUNS: Mapping[str, str] = {
    "neuron": "neurons",
    "expert": "experts",
    "head": "heads",
    "node": "heads and MLPs",
    "feature": "features",
}
# what circuits of edges alone have
_OF_EDGES = ("edges", "n_edges", "links", "edge_scores", "to_networkx", "to_graphml", "to_dot", "to_eap_ig_json")


@kept
@dataclass(frozen=True, eq=False, repr=False)
class NodeCircuit(Found):
    """Nodes of one level that do a task, all edges between them kept, and what is known of them.

    `node_mask` is bool over the nodes that `scores` are of: `[layer, d_mlp]` at level `neuron`, `[layer, head]` at
    `head`, `[source]` at `node`, `[dictionary, feature]` at `feature`; with spans (positions that are told apart) an
    axis of these in front of the last. All other nodes of the level are ablated; attention (level `neuron`), MLPs
    (level `head`), embeddings, and what no dictionary reads (level `feature`) stay live.
    `mask`, `level` and `spans` make it a mask of nodes wherever one is taken. The other fields: `circuits.found.Found`.

    Raises `InputError` when the mask does not fit the scores.

    >>> import torch
    >>> from interp import ComputationalGraph
    >>> scores = Scores(torch.tensor([[0.5, -2.0, 1.0]]), ComputationalGraph(1, 1), method="eap", level="neuron")
    >>> NodeCircuit(scores, scores.values > 0).nodes
    ('m0.n2', 'm0.n0')
    """

    scores: Scores
    node_mask: Bool[Tensor, "*axes"]
    report: Report = field(default_factory=Report)
    provenance: dict[str, Any] = field(default_factory=dict)
    setting: Conditions = None  # type: ignore[assignment]  # filled in where it is not given
    called: ClassVar[str] = "Circuit of nodes"

    def __post_init__(self) -> None:
        if self.scores.level not in NODE_LEVELS:
            raise InputError(f"scores are of {self.scores.level}s; a circuit of nodes has scores of nodes")
        mask = NodeMask(self.node_mask, self.scores.level, self.scores.spans).mask
        if mask.shape != self.scores.values.shape:
            raise InputError(
                f"node_mask of shape {tuple(mask.shape)} does not fit scores of {tuple(self.scores.values.shape)}"
            )
        object.__setattr__(self, "node_mask", mask.clone())
        self._settle()

    if not TYPE_CHECKING:  # a checker is to see what is missing

        def __getattr__(self, name: str) -> Any:
            """Says in a sentence what a circuit of nodes has no use for."""
            if name not in _OF_EDGES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            instead = (
                "to_circuit() has" if self.level == "node" and self.spans is None else "see to_frame() for its nodes"
            )
            raise AttributeError(
                f"a circuit of {self.level}s has no {name}: it holds all edges among its nodes; {instead}"
            )

    @property
    def mask(self) -> Bool[Tensor, "*axes"]:
        """The same as `node_mask`, as masks of nodes have it."""
        return self.node_mask

    @property
    def own(self) -> Bool[Tensor, "*axes"]:
        """The mask without the input of level `node`, which is in every circuit."""
        if self.level != "node":
            return self.node_mask
        return torch.cat((torch.zeros_like(self.node_mask[..., :1]), self.node_mask[..., 1:]), -1)

    @property
    def level(self) -> str:
        """What the nodes are: `neuron`, `head`, `node` or `feature`."""
        return self.scores.level

    @property
    def spans(self) -> Spans:
        """The positions that are told apart, or None."""
        return self.scores.spans

    @property
    def dictionaries(self) -> tuple[Dictionary, ...] | None:
        """What features are of; None for other nodes, and where the circuit comes from a file."""
        found: tuple[Dictionary, ...] | None = self.scores.dictionaries
        return found

    def with_dictionaries(self, dictionaries: Dictionary | Sequence[Dictionary]) -> NodeCircuit:
        """The same, with the dictionaries that a file holds the digests of alone: it can then be run.

        Raises `InputError` for others, for another order, and for a circuit of other nodes than features.
        """
        if self.level != "feature":
            raise InputError(f"dictionaries are for features; this is a circuit of {self.level}s")
        found = DictionarySet.of({"dictionaries": dictionaries}, self)
        assert found is not None
        return replace(self, scores=replace(self.scores, dictionaries=found.dictionaries))

    @property
    def n_nodes(self) -> int:
        """How many nodes the circuit holds: (layer, neuron), or (layer, position, neuron) where positions count."""
        return NodeMask(self.node_mask, self.level, self.spans).n_nodes

    @property
    def n_all(self) -> int:
        """How many nodes the level has, in the circuit or not."""
        return len(countable(self.scores.values, self.level, self.scores.exists))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes, by |score| descending: `m3.n120`, `a2.h5`, `m3`, `mlp3.f7`; behind `@` the position."""
        values = self.scores.values
        return tuple(
            element_names(self.graph, self.level, self.spans, values.shape, self.places(), self.scores.settings)
        )

    def to_frame(self) -> pd.DataFrame:
        """The nodes by |score| descending: node, its layer and number, position where positions count, score."""
        values = self.scores.values
        return node_frame(self.graph, self.level, self.spans, values, self.places(), self.scores.settings)

    def places(self) -> Int[Tensor, " node"]:
        """Where the nodes stand in the flattened scores, by |score| descending."""
        values = self.scores.values
        places = countable(values, self.level, self.scores.exists)
        inside = places[self.node_mask.flatten()[places]]
        return inside[values.flatten()[inside].abs().argsort(descending=True, stable=True)]

    def to_circuit(self) -> Circuit:
        """The same as a circuit of edges: all those among its nodes, the input and the logits. Of level `node` alone.

        It runs alike, and can be drawn, tested and written for EAP-IG and MIB. Raises `InputError` for other levels and
        for spans.
        """
        if self.level != "node" or self.spans is not None:
            raise InputError(
                f"a circuit of {self.level}s is no set of edges; one of level='node' without positions is one"
            )
        graph, kept = self.graph, self.node_mask.clone()
        kept[0] = True
        read = [not fed or any(bool(kept[source]) for source in fed) for fed in graph.target_sources]
        mask = kept[:, None] & torch.tensor(read, dtype=torch.bool, device="cpu")[None] & graph.edge_mask
        return Circuit(self.scores, mask, provenance=self.provenance, setting=self.setting)

    def jaccard(self, other: NodeCircuit) -> float:
        """Shared nodes over nodes in either circuit, the input counted in neither; 1.0 when both are empty.

        Raises `InputError` for circuits of other nodes.
        """
        same = isinstance(other, NodeCircuit) and (self.level, self.spans) == (other.level, other.spans)
        if not same or self.node_mask.shape != other.node_mask.shape:
            raise InputError(f"circuits of different nodes have no overlap: {self!r}, {other!r}")
        either = int((self.own | other.own).sum())
        return int((self.own & other.own).sum()) / either if either else 1.0

    def compare(self, other: NodeCircuit, names: tuple[str, str] = ("here", "there")) -> Beside:
        """This circuit beside another of the same nodes: shared nodes, differences, Jaccard, one picture."""
        found: Beside = reach("compare_nodes")(self, other, names)
        return found

    def figure(self) -> Figure:
        """A plain plotly figure. Rows are layers (of features: dictionaries), with sums of their scores at the right.

        Neurons and features stand at their score, or at their position where positions are told apart; heads and MLPs
        in a grid. The 3,000 nodes of largest |score| are drawn; the sums are over all.
        """
        found: Figure = reach("node_figure")(self)
        return found

    def to_html(self, path: str | os.PathLike[str] | None = None, **views: Any) -> str:
        """The interactive page: nodes by layer and position, a table to search and sort, the report, promoted tokens.

        One file that needs no network. Of more than 20,000 nodes it holds the strongest, and says so.

        Args:
            path: where the page is also written.
            **views: `model=` adds the tokens that each of the 600 strongest neurons or features promotes, read straight
                through the final norm; with `task=` (and `example=`, the number of a prompt) also their activations on
                that prompt. Of heads and MLPs `model=` and `task=` go together: their direct effects on that prompt.
                With both, the page knows what the objective loses without each of the 40 strongest nodes, and without
                the sets of `knock=`; `knock=None` leaves that out.

        Raises `InputError` for a model that does not fit, for a task without a model, and for features whose
        dictionaries the circuit does not hold (`with_dictionaries`).
        """
        return str(reach("nodes_to_html")(self, path, **views))

    def show(self, **views: Any) -> None:
        """Show the page of `to_html`: in a notebook's cell, or else in the browser."""
        reach("show")(self, **views)

    def sizes(self) -> list[str]:
        told = "" if self.spans is None else f" at {len(self.spans)} positions"
        return [f"{self.n_nodes:,} of {self.n_all:,} {_NOUNS[self.level]}{told}"]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NodeCircuit:
        """Read what `save` wrote; raises `InputError` for a missing, damaged or newer file, or one of edges."""
        found = reach("load")(path)
        if not isinstance(found, NodeCircuit):
            raise InputError(f"circuit file {os.fspath(path)!r} holds a circuit of edges; read it with Circuit.load")
        return found

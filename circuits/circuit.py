"""Circuit: a subgraph with its scores, how faithful it is, and where it came from."""

from __future__ import annotations

import datetime
import html
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import pandas as pd
from torch import Tensor

from attribution.scores import Scores, edge_frame, json_copy
from circuits.report import Report, with_interval
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.running import door
from interp.setting import Setting

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from circuits.side_by_side import CircuitComparison
    from interp.tasks.task import Task
    from metrics.circuit.battery_result import CircuitTests


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """The edges of a model that do a task: a mask over a computational graph, and what is known of it.

    `mask` is a bool `[source, target]` tensor over the graph of `scores`. `provenance` says where the circuit
    came from; model, task, method, seed, versions and the time of creation are taken from `scores` and the
    clock where they are not given. `setting` is what it was found under (ablation, objective, key-value targets, digest
    of the task), by default that of `scores`: whatever takes a circuit judges it under its setting unless told
    otherwise. Raises `InputError` when the mask does not fit the graph.

    >>> import torch
    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> scores = Scores(torch.zeros(graph.shape), graph, method="eap")
    >>> Circuit(scores, graph.edge_mask).n_edges == graph.n_edges
    True
    """

    scores: Scores
    mask: Tensor
    report: Report = field(default_factory=Report)
    provenance: dict[str, Any] = field(default_factory=dict)
    setting: Setting = None  # type: ignore[assignment]  # filled in where it is not given

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", self.graph.check_mask(self.mask).clone())
        known = {
            "model": self.scores.model,
            "task": self.scores.task,
            "method": self.scores.method,
            "seed": self.scores.seed,
            "versions": self.scores.versions,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        object.__setattr__(self, "provenance", json_copy({**known, **self.provenance}, "provenance"))
        if self.setting is None:
            task = self.provenance["task"]
            digest = task.get("sha256") if isinstance(task, dict) else None
            object.__setattr__(self, "setting", replace(self.scores.setting, task=digest))

    @property
    def graph(self) -> ComputationalGraph:
        """The computational graph that this is a part of."""
        return self.scores.graph

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
        writes = self.mask.any(dim=1).tolist()
        writers = {name for name, leaves in zip(self.graph.sources, writes, strict=True) if leaves}
        touched = writers.union(*self._readers().values())
        return tuple(name for name in (*self.graph.sources, "logits") if name in touched)

    def links(self) -> Iterator[tuple[str, str, str]]:
        """Every edge as (source, target, node that reads it).

        An edge into a k or v target of a key-value group is given once for each head of the group that writes
        anything inside the circuit (for each of its heads, when none does).
        """
        readers, names, targets = self._readers(), self.graph.sources, self.graph.targets
        for source, target in self.mask.nonzero().tolist():
            for reader in readers[target]:
                yield names[source], targets[target], reader

    def _readers(self) -> dict[int, list[str]]:
        """For each target that an edge enters, the names of the nodes that read it."""
        writes, names, readers = self.mask.any(dim=1).tolist(), self.graph.sources, {}
        for target in self.mask.any(dim=0).nonzero().flatten().tolist():
            fed = self.graph.target_sources[target]
            readers[target] = [names[node] for node in fed if writes[node]] or [names[node] for node in fed]
        return {target: nodes or ["logits"] for target, nodes in readers.items()}

    def to_frame(self) -> pd.DataFrame:
        """The edges of the circuit by |score| descending: columns edge, source, target, score."""
        source, target = self.mask.nonzero().unbind(dim=1)
        return edge_frame(self.graph, self.scores.edge_values, source, target)

    def edge_scores(self) -> dict[str, float]:
        """Score of each edge of the circuit by name, by |score| descending."""
        frame = self.to_frame()
        return dict(zip(frame["edge"].tolist(), frame["score"].tolist(), strict=True))

    def to_networkx(self) -> nx.MultiDiGraph:
        """A networkx graph of nodes (`input`, `a0.h0`, `m0`, `logits`), with an edge per port between them.

        Edges are keyed by their port (`q`, `k`, `v`, or `in` for MLPs and logits) and carry `port`, `score`
        and `edge`, their name. Nodes carry `layer` (-1 for the input, the number of layers for the logits).
        """
        result = nx.MultiDiGraph(model=self.provenance["model"], method=self.provenance["method"])
        for name in self.nodes:
            result.add_node(name, layer=node_layer(name, self.graph))
        scores = self.edge_scores()
        for source, target, reader in self.links():
            port = target[-2] if target.endswith(">") else "in"
            edge = f"{source}->{target}"
            result.add_edge(source, reader, key=port, port=port, score=scores[edge], edge=edge)
        return result

    def jaccard(self, other: Circuit) -> float:
        """Shared edges over edges in either circuit; 1.0 when both are empty.

        Raises `InputError` for circuits over different graphs.
        """
        if self.graph != other.graph:
            raise InputError(f"circuits over different graphs have no overlap: {self.graph}, {other.graph}")
        either = int((self.mask | other.mask).sum())
        return int((self.mask & other.mask).sum()) / either if either else 1.0

    @door
    def test(self, model: Any, task: Task, **settings: Any) -> CircuitTests:
        """Hypothesis tests of the circuit: `metrics.circuit_tests` under the setting that it was found under.

        Give prompts that the circuit was not chosen on. `settings` are those of `circuit_tests`.
        """
        from metrics.circuit.battery import circuit_tests

        return circuit_tests(model, task, self, **settings)

    def compare(self, other: Circuit, names: tuple[str, str] = ("here", "there")) -> CircuitComparison:
        """This circuit beside another over the same graph: shared edges, differences, Jaccard, one picture."""
        from circuits.side_by_side import CircuitComparison

        return CircuitComparison(self, other, names)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the circuit as JSON (`.json` is added to a bare name) and a safetensors file beside it.

        Returns the path of the JSON file. A kill or a full disk leaves the circuit that was there before.
        """
        from circuits import storage  # the formats build circuits: a late import breaks the circle

        return storage.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Circuit:
        """Read what `save` wrote; raises `InputError` for a missing, damaged or newer file."""
        from circuits import storage

        return storage.load(path)

    def to_eap_ig_json(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph JSON of the EAP-IG reference, which MIB's evaluation reads (see `eap_ig_json`)."""
        from circuits import eap_ig_json

        return eap_ig_json.write(self, path)

    @classmethod
    def from_eap_ig_json(cls, path: str | os.PathLike[str]) -> Circuit:
        """Read a graph JSON of the EAP-IG reference; raises `InputError` for what is not one.

        Files with scores of nodes rank `input` beside heads and MLPs; `scores.mask(n)` has it always in and counts it
        not (`docs/differences.md`). Files that others wrote do not say what a circuit was found under.
        """
        from circuits import eap_ig_json

        return eap_ig_json.read(path)

    def to_graphml(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph of `to_networkx` as GraphML."""
        from circuits import graph_files

        return graph_files.write_graphml(self, path)

    def to_dot(self, path: str | os.PathLike[str]) -> Path:
        """Write the circuit in Graphviz's DOT language."""
        from circuits import graph_files

        return graph_files.write_dot(self, path)

    def figure(self) -> Figure:
        """The circuit as a plotly figure: layer by head, edges coloured by sign."""
        from circuits import viewer

        return viewer.figure(self)

    def to_html(self, path: str | os.PathLike[str] | None = None, **views: Any) -> str:
        """The interactive picture as a self-contained HTML page; written to `path` when one is given.

        `model=` and `task=` add what the circuit does on one prompt; see `circuits.viewer.to_html`.
        """
        from circuits import viewer

        return viewer.to_html(self, path, **views)

    def show(self, **views: Any) -> None:
        """Show the interactive picture, in the notebook or else in a browser; `views` as for `to_html`."""
        from circuits import viewer

        viewer.show(self, **views)

    def summary(self) -> str:
        """One line: size, model, task, method and faithfulness with its interval."""
        parts = [f"{self.n_edges:,} of {self.graph.n_edges:,} edges", f"{self.n_nodes:,} nodes"]
        task = self.provenance["task"]
        name = task.get("name") if isinstance(task, dict) else task
        parts += [str(part) for part in (self.provenance["model"], name, self.provenance["method"]) if part]
        if self.report.faithfulness is not None:
            text = with_interval(self.report.faithfulness, self.report.interval)
            parts.append(f"faithfulness {text}")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"Circuit({self.summary()})"

    def _repr_html_(self) -> str:
        table = self.to_frame().head(10)
        shown = table.to_html(index=False, float_format=lambda value: f"{value:+.4g}", border=0)
        title = f"<p><b>Circuit</b>: {html.escape(self.summary())}</p>"
        return title + self.report._repr_html_() + shown


def node_layer(name: str, graph: ComputationalGraph) -> int:
    """Layer of a node: -1 for the input, the number of layers for the logits."""
    if name in ("input", "logits"):
        return -1 if name == "input" else graph.n_layers
    return int(name[1:].partition(".")[0])

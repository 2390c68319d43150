"""`AttributionGraph`: the units that one prompt's logits are made of, and their direct effects on each other."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.reach import reach
from circuits.tracing.changes import Intervention
from circuits.tracing.influence import Kinds, normalised, prune
from circuits.tracing.subject import Subject
from circuits.tracing.viewer.keywords import PageKeywords
from interp import numbers
from interp.errors import InputError
from interp.interval import Interval, IntervalKeywords
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.tables import html_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from attribution.tracing.changed import Attention
    from circuits.tracing.graph_comparison import GraphComparison
    from metrics.agreement_table import AgreementTable

UNITS = ("neuron", "feature", "head", "mlp", "group")
_SHOWN = 20


@dataclass(frozen=True, eq=False, repr=False)
class AttributionGraph(Result):
    """What one prompt's logits are made of; made by `circuits.trace`.

    Attributes:
        nodes: a row for each node: name (unique), kind (neuron, feature, head, mlp, group, error, token, logit,
            remainder, bias), layer, position, unit (neuron, feature, head or vocabulary id; -1 where there is none),
            activation (NaN where there is none; of logits their value, of heads and MLPs what they give the logits),
            influence, cumulative (the share that nodes of at least its influence hold),
            score (total effect on the logits, by their weights: of tokens and units), place (of biases).
        adjacency: float [target, source], direct effects in the order of `nodes`. What a unit's or a logit's row sums
            to is its activation or value; the column of the remainder holds what units that are not shown add.
        magnitude: float [node]: what a row is normalised by, |effects| of tokens, errors and all units, shown or not.
        weights: float [node]: what logits weigh, their probabilities; 0 elsewhere.
        replacement_score: I_tokens / (I_tokens + I_missed), I being influence, missed what errors and remainder are.
        completeness_score: share of what nodes are made of that is not missed, by influence.
        tokens, target_tokens: the prompt and the explained logits, to read.
        pruned: whether nodes and edges were left out by `prune`; the scores are those of the whole graph.
        model, settings, seconds: what it was made of.
    """

    nodes: pd.DataFrame
    adjacency: Float[Tensor, "target source"]
    magnitude: Float[Tensor, " node"]
    weights: Float[Tensor, " node"]
    replacement_score: float
    completeness_score: float
    tokens: list[str]
    target_tokens: list[str]
    model: str
    seconds: float
    pruned: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    subject: Subject | None = field(default=None, init=False)  # the model and the units; not in files

    @property
    def edges(self) -> pd.DataFrame:
        """Edges by falling |weight|: source, target (names), weight, share (of the target's normalised row)."""
        weights, shares = self.adjacency, normalised(self.counted())
        target, source = weights.nonzero().T
        names = self.nodes["name"].to_numpy()
        frame = pd.DataFrame(
            {
                "source": names[source.numpy()],
                "target": names[target.numpy()],
                "weight": weights[target, source].numpy(),
                "share": shares[target, source].numpy(),
            }
        )
        order = frame["weight"].abs().sort_values(ascending=False, kind="stable").index
        return frame.loc[order].reset_index(drop=True)

    def counted(self) -> Float[Tensor, "target source"]:
        """|adjacency| as it counts: biases do not, and the remainder's column is all |effects| that are not shown."""
        kinds = self.nodes["kind"].to_numpy()
        found = self.adjacency.abs().double()
        found[:, torch.from_numpy((kinds == "bias") | (kinds == "remainder"))] = 0.0
        if (kinds == "remainder").any() and not self.pruned:
            column = int((kinds == "remainder").argmax())
            found[:, column] = (self.magnitude.double() - found.sum(1)).clamp(min=0.0)
        return found

    def kinds(self) -> Kinds:
        """Masks over the nodes."""
        kinds = self.nodes["kind"]
        tokens, logits, units, missed, rest = (
            torch.from_numpy(kinds.isin(of).to_numpy(copy=True))
            for of in (["token"], ["logit"], UNITS, ["error", "remainder"], ["remainder"])
        )
        return Kinds(tokens, logits, units, missed, rest)

    @numbers.checked(nodes=numbers.SHARE, edges=numbers.SHARE)
    def masks(
        self, nodes: float = 0.8, edges: float = 0.98
    ) -> tuple[Bool[Tensor, " node"], Bool[Tensor, "target source"]]:
        """What `prune` keeps, as masks over nodes and adjacency. Biases are outside of it: neither kept nor counted."""
        if self.pruned:
            raise InputError("this graph is pruned already; prune the whole graph that it was made of")
        return prune(self.counted(), self.weights.double(), self.kinds(), nodes, edges)

    @numbers.checked(nodes=numbers.SHARE, edges=numbers.SHARE)
    def prune(self, nodes: float = 0.8, edges: float = 0.98) -> AttributionGraph:
        """The graph without what matters little.

        Kept are the nodes that hold a share `nodes` of all influence (and tokens and logits), of the edges between them
        those that hold a share `edges`, by the influence that flows through them, and then no unit or error that leads
        nowhere and no unit that comes from nowhere. The remainder is never hidden: it stays, uncounted. Biases are left
        out. Scores and influences stay those of the whole graph. Raises `InputError` for a graph that is pruned already
        and for shares outside of (0, 1].
        """
        kept, edge_kept = self.masks(nodes, edges)
        at = kept.nonzero()[:, 0]
        graph = replace(
            self,
            nodes=self.nodes.loc[kept.numpy()].reset_index(drop=True),
            adjacency=torch.where(edge_kept, self.adjacency, 0.0)[at][:, at],
            magnitude=self.magnitude[at],
            weights=self.weights[at],
            pruned=True,
            settings={**self.settings, "nodes": nodes, "edges": edges},
        )
        return graph.about(self.subject)

    def about(self, subject: Subject | None) -> AttributionGraph:
        """This graph, once it knows what it was made of."""
        object.__setattr__(self, "subject", subject)
        return self

    @door
    def attached(self, model: Any, units: Any = "neurons") -> AttributionGraph:
        """A graph that was read from a file, with the model (and dictionaries) that it was made of.

        What runs the model (`intervene`, `check`) needs it. Raises `InputError` where it is another model's graph.
        """
        return replace(self).about(reach("attach")(self, model, units))

    def intervene(
        self,
        scale: Mapping[Any, float] | None = None,
        set: Mapping[Any, float] | None = None,
        attention: Attention = "frozen",
    ) -> Intervention:
        """Run the real model with some units at other activations: its logits, and what becomes of every other node.

        Args:
            scale: factors of activations (0 silences), by node: its name, its row in `nodes`, or
                `(layer, position, unit)`, which may also be a unit that is not shown; a group's name: all its units.
            set: activations, likewise; not of groups. Of heads and MLPs what they add is scaled until they give the
                logits so much; those that give nothing stay as they are.
            attention: `frozen`: patterns as they are in the prompt; or `free`.

        Norms, activation functions and all MLPs are live. Cost: a forward pass. Raises `InputError` for nodes that
        are no units, units named twice, and a graph from a file: see `attached`.
        """
        found: Intervention = reach("intervene")(self, scale or {}, set or {}, attention)
        return found

    @numbers.checked(n=numbers.COUNT)
    def check(
        self, n: int = 20, attention: Attention = "frozen", **keywords: Unpack[IntervalKeywords]
    ) -> AgreementTable:
        """Does what the graph says happen? Silence units in the real model, one at a time.

        Of the `n` units of largest influence, and of `n` drawn at random from all that are active: the change of the
        explained logits (by their weights) that a unit's score predicts, against the change that is measured. The table
        has correlations with their intervals for both groups; `.points` holds what was compared.

        Cost: two forward passes for each n, and a backward pass. `confidence`, `resamples`, `seed`: of intervals and
        of what is drawn. Raises `InputError` for fewer than 3, for more than there are, and for a graph from a file.
        """
        check_keywords("check", keywords, IntervalKeywords)
        found: AgreementTable = reach("check_graph")(self, n, attention, Interval.of(keywords))
        return found

    def compare(self, other: AttributionGraph) -> GraphComparison:
        """What of this graph changes in that of an aligned prompt, such as the corrupted one.

        Nodes are matched by kind, layer, position and unit, tokens by their position, logits by the tokens they are of:
        give `trace` the same target for both. Cost: none of the model. Raises `InputError` for prompts of unequal
        lengths, graphs of two models, other units or `centred`.
        """
        found: GraphComparison = reach("compare_graphs")(self, other)
        return found

    def group(self, groups: Mapping[str, Sequence[str]]) -> AttributionGraph:
        """This graph with units joined to groups: one node each, whose links are the sums of its members'.

        A group's activation, influence and score are the sums of its members'. Direct effects between members are
        dropped; what they sum to is `settings["groups"][name]["inside"]`, and with it the group's row adds up to its
        activation. `intervene(scale={name: 0.0})` silences all members. Raises `InputError` for nodes that are not
        there, that are no units or in two groups, and for names that other nodes have.

        >>> graph.group({"capital": ["m3.n17@5", "m7.n20@5"]})                   # doctest: +SKIP
        """
        found: AttributionGraph = reach("group_nodes")(self, groups)
        return found

    def to_json(self, path: str | os.PathLike[str], groups: Mapping[str, Sequence[str]] | None = None) -> Path:
        """Write the pruned graph as circuit-tracer's and Neuronpedia's viewers read it; node ids are unique.

        `groups`: names of nodes by group, which viewers draw together (`qParams.supernodes`); by default those of a
        file that this was read from. Groups that `group` summed are written as one node each: what they are made of is
        in the file, the links of single members are not, since such a graph has none. To keep them give `groups` here.

        Biases are left out, and the remainder is written as an error: the format has no words for them. A file
        holds what the viewer shows and no more: `save` keeps everything. Raises `InputError` for groups of other nodes.
        """
        return Path(reach("write_graph")(self, path, groups))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> AttributionGraph:
        """Read a graph in that format, ours or another's: a pruned one, whose scores are not known (NaN).

        Its groups are `settings["supernodes"]`, names of nodes by group: `group` takes them (of units), the page opens
        with them. Raises `InputError` for a missing or damaged file, and for links of nodes that are not there.
        """
        found: AttributionGraph = reach("read_graph")(path)
        return found

    def to_frame(self) -> pd.DataFrame:
        """The nodes; a copy."""
        return self.nodes.copy()

    def headline(self) -> str:
        counts = self.nodes["kind"].value_counts()
        units = ", ".join(f"{counts[kind]:,} {kind}s" for kind in UNITS if kind in counts) or "no units"
        found = ", ".join(map(repr, self.target_tokens[:3])) + (" ..." if len(self.target_tokens) > 3 else "")
        n = self.settings.get("average_of")
        where = f"after {len(self.tokens)} tokens" if n is None else f"over {n} prompts of {len(self.tokens)} spans"
        return (
            f"{found} {where}, {units}, {int((self.adjacency != 0).sum()):,} edges, "
            f"replacement {self.replacement_score:.3f}, completeness {self.completeness_score:.3f}, {self.model}"
        )

    def figure(self) -> Figure:
        """Tokens across, layers upwards: nodes by influence, links by what they carry of it; blue adds, orange takes.

        Drawn are the nodes and edges that `prune()` keeps.
        """
        found: Figure = reach("graph_figure")(self if self.pruned else self.prune())
        return found

    def to_html(self, path: str | os.PathLike[str] | None = None, **known: Unpack[PageKeywords]) -> str:
        """The interactive page: tokens across, layers upwards, cut-offs, details of every node, pins and groups.

        One file of some hundred kilobytes that needs no network. Of a whole graph it opens with what `prune()` keeps;
        sliders show more or less. A graph from a file of another program opens too, with what that file holds.

        Args:
            path: where the page is also written.
            **known: `prompts`: strings, or ids [n, pos]: each unit's most activating tokens among these (a forward pass
                a prompt); `labels`: a mapping of node names or `(layer, unit)` to text, or a CSV, JSON or JSONL file
                with the columns layer, unit (or feature, neuron, index) and label (or description, explanation);
                `measured`: what `check()` returns, or how many units to check: predicted and measured effects.

        Raises `InputError` for damaged labels, and for prompts and `measured=n` where the graph holds no model.
        """
        return str(reach("graph_to_html")(self, path, **known))

    def show(self, **known: Unpack[PageKeywords]) -> None:
        """Show the page of `to_html`: in a notebook's cell, or else in the browser."""
        reach("show_graph")(self, **known)

    def _repr_html_(self) -> str:
        units = self.nodes[~self.nodes["kind"].isin(["bias"])]
        rows = units.sort_values("influence", ascending=False, kind="stable").head(_SHOWN)
        return f"<p>{html.escape(repr(self))}</p>{html_table(rows.drop(columns=['place']))}"

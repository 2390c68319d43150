"""Scores: how much each edge or node of a computational graph matters, and how that was found out."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pydantic
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from attribution.levels import LEVELS, checked_values
from interp import numbers, theme
from interp import selection as rules
from interp._version import __version__
from interp.conditions import Conditions
from interp.element_names import node_frame
from interp.errors import InputError, choose
from interp.files import existing, write_bytes
from interp.graph import ComputationalGraph
from interp.headers import check_header, json_copy, validated
from interp.keeping import kept
from interp.kernels.ablation import KNOWN
from interp.kernels.constant_files import constants_in, tensors_of
from interp.kernels.constants import FittedConstants
from interp.node_mask import NODE_LEVELS, NodeMask, ragged, spans_of
from interp.result import Result
from interp.selection import Selection, top_nodes
from interp.selection.by_span import SpanGraph, select_by_span, threshold_by_span
from interp.selection.empty import warn_if_below, warn_if_empty
from interp.selection.named import mask_of
from interp.selection.nodes import countable
from interp.span_mask import SpanMask
from interp.spans import SpanNames, SpanOrder, span_names

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Level = Literal["edge", "node"]  # what methods over a graph score
FORMAT = "faithful-circuits/scores"
VERSION = 4  # 1 did not know whole and gap, 2 neither heads nor neurons nor spans, 3 no spans of edges
_LIVE = ("goal", "dictionaries")  # what files keep names and digests of
PACKAGES = ("torch", "transformers", "transformer-lens")


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide what a score is; a package that is not installed is left out."""
    return dict(_versions())


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append((package, importlib.metadata.version(package)))
    return (*found, ("faithful-circuits", __version__))


@kept
@dataclass(frozen=True, eq=False, repr=False)
class Scores(Result):
    """Values over a `ComputationalGraph`, with how they were made.

    `values` is a float32 or float64 tensor on the CPU: `[source, target]` at level "edge" (0 where no edge exists),
    `[source]` at "node", `[layer, head]` at "head", `[layer, d_mlp]` at "neuron", `[dictionary, feature]` at "feature";
    of nodes with `spans` (positions that are told apart) these are an axis in front of the last, of edges in front of
    all, `[span, source, target]`, and may have names (`interp.spans`). `spans` is a tuple, since circuits are measured
    and compared by it (`list(scores.spans)` is a list). A positive value means that the edge or node helps: it
    estimates how much the objective falls when that one alone is corrupted, as a mean over prompts.

    `whole` is what scores of a complete method (`mask-ig`) should add up to, M(circuit) - M(empty), and `gap` by how
    much their sum over the circuit's edges falls short of it; None for other methods. `setting` is what scores are
    true under; `goal` is the objective itself, of which a file keeps the name, and `dictionaries` are those that
    features are of, of which it keeps the digests; `constants` are those of `optimal` ablation, which files keep.

    Raises `InputError` for values of another shape or dtype, that are not finite, or that score an edge that
    does not exist, and for `settings`, `task` or `versions` that JSON cannot hold.

    >>> graph = ComputationalGraph(n_layers=1, n_heads=1)
    >>> values = torch.zeros(graph.shape)
    >>> values[graph.edge_index("m0->logits")] = -0.5
    >>> Scores(values, graph, method="eap").to_frame().loc[0, "edge"]
    'm0->logits'
    """

    __pydantic_config__ = pydantic.ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    values: Tensor
    graph: ComputationalGraph
    method: str
    level: str = "edge"
    ablation: str = "patch"
    settings: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    seed: int | None = None
    seconds: float | None = None
    versions: dict[str, str] = field(default_factory=installed_versions)
    n_prompts: int | None = None
    goal: Any = None
    whole: float | None = None
    gap: float | None = None
    spans: SpanNames | None = None
    dictionaries: Any = None
    constants: FittedConstants | None = None

    def __post_init__(self) -> None:
        choose("level", self.level, LEVELS)
        numbers.settle(self)
        told = span_names(self.spans) if self.level == "edge" else spans_of(self.spans)
        object.__setattr__(self, "spans", told)
        object.__setattr__(self, "values", checked_values(self.values, self.graph, self.level, self.spans))
        for name in ("settings", "task", "versions"):
            object.__setattr__(self, name, json_copy(getattr(self, name), name))

    @property
    def edge_values(self) -> Float[Tensor, "source target"]:
        """A value for every edge: the values themselves (the sum of all spans), or at "node" those of its source.

        Raises `InputError` for finer nodes, of which a source has many, and for spans of nodes.
        """
        if self.level == "edge":
            return self.values if self.spans is None else self.values.sum(0)
        if self.level != "node" or self.spans is not None:
            raise InputError(f"scores of level {self.level!r} have no values for edges")
        return self.values[:, None] * self.graph.edge_mask

    @property
    def setting(self) -> Conditions:
        """What the scores are true under: ablation, objective, kind of graph, and digest of the prompts."""
        known = self.ablation if self.ablation in KNOWN else None
        goal = self.goal or self.settings.get("objective")
        rest: dict[str, Any] = {"constants": self.constants, "model": self.model, "method": self.method}
        rest["task_name"] = str(self.task.get("name") or "")
        if self.level == "feature" and "dictionaries" in self.settings:
            rest["dictionaries"] = tuple(str(one["sha256"]) for one in self.settings["dictionaries"])
            rest["errors"] = self.settings["errors"]
        return Conditions(known, goal, self.graph.kv, self.task.get("sha256"), **rest)

    @property
    def exists(self) -> Tensor | None:
        """True where there is a node, of features whose dictionaries are of unequal width; None: everywhere."""
        if self.level != "feature" or "dictionaries" not in self.settings:
            return None
        counts = [int(one["n_features"]) for one in self.settings["dictionaries"]]
        return ragged(counts, self.spans, self.settings.get("errors") == "nodes")

    @numbers.checked(n=numbers.FROM_ZERO)
    def mask(
        self,
        n: int | None = None,
        *,
        threshold: float | None = None,
        selection: str | Selection = "top-n",
        absolute: bool = True,
        pruned: bool = True,
    ) -> Tensor | NodeMask | SpanMask:
        """A circuit of these scores: a bool `[source, target]` mask, by size `n` or by `threshold`.

        Of edges with spans a `SpanMask`, whose `n` counts (span, source, target), by `top-n` or `connected`; pruning
        looks at positions: what is at one reaches a later one through k and v targets alone.
        Of heads, of neurons and of nodes with spans the `n` of largest |score| (signed score without `absolute`), as a
        `NodeMask`. `selection` says how the `n` edges are taken (a name or object of `interp.selection`); `connected`
        and `program` give circuits in which nothing is left to prune. At level "node", `n` counts heads and MLPs, and
        all edges among them are in. A warning says so when pruning leaves no edge at all. Raises `InputError` unless
        exactly one of `n`
        and `threshold` is given, and for what a level does not offer.
        """
        if (n is None) == (threshold is None):
            raise InputError(f"give either n or threshold; got n={n!r} and threshold={threshold!r}")
        if self.level == "edge" and self.spans is not None:
            return self._mask_by_span(n, threshold, selection, absolute, pruned)
        if self.level != "edge":
            if n is None or selection != "top-n":
                raise InputError("scores of nodes are selected by n and selection='top-n' only")
        elif threshold is not None:
            mask = rules.threshold(self.values, self.graph, threshold, absolute, pruned)
            known = self.values[self.graph.edge_mask]
            return warn_if_below(mask, threshold, known.abs() if absolute else known)
        assert n is not None
        if self.level in NODE_LEVELS and (self.level != "node" or self.spans is not None):
            best = top_nodes(self.values, n, self.level, 0.5 if absolute else 1.0, self.exists)
            return NodeMask(best, self.level, self.spans)
        select = self._selecting(selection, absolute, pruned)
        largest = self.graph.n_edges if self.level == "edge" else len(self.values) - 1
        return warn_if_empty(select(n), n, select, largest)

    @property
    def span_graph(self) -> SpanGraph:
        """All edges at all spans, for selections; raises `InputError` for scores that tell no spans of edges apart."""
        if self.level != "edge" or self.spans is None:
            raise InputError("scores tell no spans of edges apart; attribute(positions=) makes some that do")
        return SpanGraph(self.graph, SpanOrder.of(self.spans, self.settings.get("span_order")))

    def _mask_by_span(
        self, n: int | None, threshold: float | None, selection: str | Selection, absolute: bool, pruned: bool
    ) -> SpanMask:
        assert self.spans is not None
        among = self.span_graph
        if threshold is not None:
            return SpanMask(threshold_by_span(self.values, among, threshold, absolute, pruned), self.spans)
        told = {"absolute": absolute} if isinstance(selection, str) else {}
        told |= {"pruned": pruned} if selection == "top-n" else {}
        rule = rules.SELECTIONS.make(selection, told)

        def select(size: int) -> Tensor:
            return select_by_span(rule, self.values, among, size)

        assert n is not None
        return SpanMask(warn_if_empty(select(n), n, select, len(among.places)), self.spans)

    def _selecting(self, selection: str | Selection, absolute: bool, pruned: bool) -> Callable[[int], Tensor]:
        """From a size to the mask of that size."""
        if self.level == "node":
            return lambda n: rules.top_n_nodes(self.values, self.graph, n, absolute, pruned)
        told = {"absolute": absolute} if isinstance(selection, str) else {}
        told |= {"pruned": pruned} if selection in ("top-n", "greedy") else {}
        chosen = rules.SELECTIONS.make(selection, told)
        return lambda n: mask_of(chosen, self.values, self.graph, n)

    def to_frame(self) -> pd.DataFrame:
        """All edges (columns edge, source, target, score) or nodes (node, score), by |score| descending.

        Of heads and neurons with their layer and number, and where spans are told apart with the position, of edges
        with the span, in front of the score.
        """
        return self.top(None)

    @numbers.checked(n=numbers.FROM_ZERO)
    def top(self, n: int | None = 10) -> pd.DataFrame:
        """The first `n` rows of `to_frame()`, without building the rest."""
        if self.level != "edge":
            places = countable(self.values, "", self.exists)
            order = places[torch.from_numpy(_strongest(self.values.flatten()[places], n))]
            return node_frame(self.graph, self.level, self.spans, self.values, order, self.settings)
        where = self.graph.edge_mask.expand(self.values.shape).nonzero().unbind(dim=1)
        return edge_frame(self.graph, self.values, where, n, self.spans)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values and constants, as JSON can hold it."""
        return {
            item.name: self.graph.to_dict() if item.name == "graph" else getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("values", "constants", *_LIVE)
        }

    def in_files(self) -> dict[str, Any]:
        """All but the objective itself, for a result's file."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _LIVE}

    @classmethod
    def from_dict(cls, data: dict[str, Any], values: Tensor, where: str = "scores") -> Scores:
        """Put together what `to_dict` took apart; raises `InputError` naming `where` if it does not fit."""
        if not isinstance(data, dict):
            raise InputError(f"{where} is damaged: it does not say how its scores were made")
        return validated(cls, {**data, "values": values}, where)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, all but the values as JSON in its metadata; returns the path.

        A kill or a full disk leaves the file that was there before.
        """
        header = {
            "format": FORMAT,
            "version": VERSION,
            "sha256": _digest(self.values),
            "scores": self.to_dict(),
        }
        arrays = {"values": self.values, **tensors_of(self.constants)}
        data = safetensors.torch.save(arrays, metadata={"faithful-circuits": json.dumps(header)})
        return write_bytes(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scores:
        """Read what `save` wrote; raises `InputError` for a missing, damaged or newer file."""
        found, where = existing(path, "scores file")
        try:
            with safetensors.safe_open(found, framework="pt") as file:
                header = json.loads((file.metadata() or {})["faithful-circuits"])
                # a copy: what is read here must not change with the file
                tensors = {name: file.get_tensor(name).clone() for name in [*file.keys()]}
                values = tensors["values"]
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{where} is damaged or is not a file of scores: {error}") from None
        check_header(header, FORMAT, VERSION, where)
        if header.get("sha256") != _digest(values):
            raise InputError(f"{where} is damaged: its values do not have the checksum written with them")
        scores = cls.from_dict(header.get("scores"), values, where)
        return replace(scores, constants=constants_in(tensors, scores.model))

    @numbers.checked()
    def figure(self, n: int = 20) -> Figure:
        """Bars of the `n` strongest edges or nodes, the strongest on top."""
        strongest = self.top(n)
        names = strongest["edge" if self.level == "edge" else "node"]
        if "span" in strongest:
            names = names + "@" + strongest["span"].astype(str)
        title = theme.named(self.model, self.task.get("name"), f"{self.method}: strongest {self.level}s")
        unit = f"score (fall of the objective{f', {goal}' if (goal := self.setting.objective) else ''})"
        return theme.signed_bars(names.tolist(), strongest["score"].tolist(), title, unit, self.level)

    def fits(self) -> None:
        self._repr_html_()  # the whole table may be long

    def _repr_html_(self) -> str:
        table = self.top(10).to_html(index=False, float_format=lambda value: f"{value:+.4g}", border=0)
        return f"<p>{html.escape(repr(self))}</p>{table}"

    def headline(self) -> str:
        count = self.graph.n_edges if self.level == "edge" else len(countable(self.values, "", self.exists))
        apart = f" at {len(self.spans):,} spans" if self.level == "edge" and self.spans is not None else ""
        parts = [f"{self.method}: {count:,} {self.level}s{apart}"]
        if self.model:
            parts.append(self.model)
        if self.task.get("name"):
            parts.append(f"task {self.task['name']}")
        if self.n_prompts is not None:
            parts.append(f"{self.n_prompts:,} prompts")
        parts.append(f"ablation {self.ablation}")
        if self.whole is not None and self.gap is not None:
            parts.append(f"adds up to {self.whole - self.gap:.3g} of {self.whole:.3g}")
        if self.seconds is not None:
            parts.append(f"{self.seconds:.3g} s")
        return ", ".join(parts)


def edge_frame(
    graph: ComputationalGraph,
    values: Tensor,
    where: Sequence[Tensor],
    n: int | None = None,
    spans: SpanNames | None = None,
) -> pd.DataFrame:
    """The edges at `where` (source and target, with spans span, source and target) with their values, by |value|.

    Columns edge, source, target, span if spans are told apart, score. Ties keep their order. With `n` only the first
    `n` are returned.
    """
    *span, source, target = where
    chosen = values[tuple(where)]
    order = _strongest(chosen, n)
    sources = np.array(graph.sources, dtype=object)[source.numpy()[order]]
    targets = np.array(graph.targets, dtype=object)[target.numpy()[order]]
    edges = sources + "->" + targets
    frame = pd.DataFrame({"edge": edges, "source": sources, "target": targets, "score": chosen.numpy()[order]})
    if spans is not None:
        frame.insert(3, "span", [spans[i] for i in span[0].numpy()[order]])
    return frame.astype({"edge": "str", "source": "str", "target": "str"})


def _strongest(values: Float[Tensor, " n"], n: int | None) -> np.ndarray:
    return torch.argsort(values.abs(), descending=True, stable=True)[:n].numpy()


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()

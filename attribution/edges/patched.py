"""Methods that patch really, one edge or one node at a time: the truth that approximations are held against."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from attribution.edges.method import Method, Passes
from attribution.exact import exact_scores
from attribution.spans import placed_in, told_of
from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.setting import Setting
from interp.spans import Placed


@dataclass(frozen=True)
class Exact(Method):
    """Every edge, or some, really patched.

    Attributes:
        edges: names of edges, or a mask, to patch instead of all.
        sample: so many random ones of these (drawn with `seed`).
        resume: a file to keep partial results in, and to go on from. An objective of your own is known to it by its
            name alone.
        positions: patch each edge at one span at a time: `all`, a list of positions, or `spans`, those of the task
            (`interp.spans.asked_spans`).
    """

    edges: Sequence[str] | Bool[Tensor, "source target"] | None = None
    sample: int | None = None
    seed: int = 0
    resume: str | os.PathLike[str] | None = None
    positions: Any = None

    name = "exact"
    by_position: ClassVar[bool] = True
    paper: ClassVar[str] = "Conmy et al. 2023, arXiv:2304.14997"
    formula: ClassVar[tuple[str, str]] = ("E/2", "0")

    def __post_init__(self) -> None:
        numbers.settle(self, sample=numbers.COUNT)

    def chosen(self, graph: ComputationalGraph) -> Bool[Tensor, "source target"]:
        """The edges that are patched."""
        return chosen_edges(graph, self.edges, self.sample, self.seed)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        self.chosen(setting.graph)

    def passes(self, graph: ComputationalGraph) -> Passes:
        return Passes(int(self.chosen(graph).sum()) / 2, 0)

    def drawn_with(self) -> int | None:
        return None if self.sample is None else self.seed

    def settings(self) -> dict[str, Any]:
        return {}

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        told = told_of(placed_in(setting, self.positions))
        return self.values(setting), {"n_edges_patched": int(self.chosen(setting.graph).sum()), **told}

    def values(self, setting: Setting) -> Tensor:
        placed = placed_in(setting, self.positions)
        return _patched(self, setting, self.chosen(setting.graph), self.resume, placed)


@dataclass(frozen=True)
class ActivationPatching(Method):
    """Every node really patched; `resume` as for `Exact`."""

    resume: str | os.PathLike[str] | None = None

    name = "activation-patching"
    level = "node"
    paper: ClassVar[str] = "Vig et al. 2020; Meng et al. 2022, arXiv:2202.05262"
    formula: ClassVar[tuple[str, str]] = ("N/2", "0")

    def passes(self, graph: ComputationalGraph) -> Passes:
        return Passes(len(graph.sources) / 2, 0)

    def settings(self) -> dict[str, Any]:
        return {}

    def values(self, setting: Setting) -> Tensor:
        return _patched(self, setting, None, self.resume)


def chosen_edges(
    graph: ComputationalGraph, edges: Sequence[str] | Tensor | None, sample: int | None, seed: int
) -> Bool[Tensor, "source target"]:
    """Edges by name or mask, or all; of these a sample where one is asked for. Raises `InputError` for none."""
    if isinstance(edges, Tensor):
        mask = graph.check_mask(edges, "edges").clone()
    elif edges is not None:
        mask = torch.zeros_like(graph.edge_mask)
        for name in [edges] if isinstance(edges, str) else edges:
            mask[graph.edge_index(name)] = True
    else:
        mask = graph.edge_mask.clone()
    if not mask.any():
        raise InputError("edges names no edge; give at least one, or None for all")
    if sample is None:
        return mask
    available = mask.nonzero()
    advice = "it draws from the edges to choose from"
    numbers.whole("sample", sample, numbers.Limits(1, len(available), advice=advice))
    order = torch.randperm(len(available), generator=torch.Generator().manual_seed(seed), device="cpu")[:sample]
    result = torch.zeros_like(mask)
    result[tuple(available[order].T)] = True
    return result


def _patched(
    method: Method,
    setting: Setting,
    edges: Bool[Tensor, "source target"] | None,
    resume: str | os.PathLike[str] | None,
    placed: Placed | None = None,
) -> Tensor:
    fingerprint = {
        **setting.to_dict(),
        "method": method.name,
        "edges": None if edges is None else edges.nonzero().tolist(),
    }
    if placed is not None:
        fingerprint["spans"] = list(placed.spans)
    count = len(setting.graph.sources) if edges is None else int(edges.sum())
    with setting.run.progress(f"patching ({method.name})", count * len(setting)) as bar:
        return exact_scores(setting, edges, resume, fingerprint, bar.advance, placed)

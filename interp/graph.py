"""The computational graph of a transformer: sources that write the residual stream, targets that read it.

Arrays first: the graph is two tuples of names and one boolean matrix. Scores over it are `[source, target]`
tensors, circuits are boolean masks of the same shape.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.arrays import is_dense
from interp.errors import InputError, choose
from interp.inspection import anatomy_of
from interp.keeping import kept
from interp.running import door, settled

KV = Literal["head", "group"]


@kept
@dataclass(frozen=True)
class ComputationalGraph:
    """Sources, targets and possible edges of a pre-norm decoder.

    Sources in order: `input`, then per layer its heads `a{layer}.h{head}` and its MLP `m{layer}`. Targets in
    order: per layer all `a{layer}.h{head}<q>`, all `<k>`, all `<v>`, then `m{layer}`; `logits` last. With
    `kv="group"` there is one k and one v target per key-value head, named after that key-value head.

    `parallel` blocks (GPT-NeoX, GPT-J) have no edge from a layer's heads to its own MLP.

    >>> graph = ComputationalGraph(n_layers=12, n_heads=12)
    >>> graph.n_edges
    32491
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    kv: KV = "head"
    parallel: bool = False

    def __post_init__(self) -> None:
        choose("kv", self.kv, ("head", "group"))
        numbers.settle(self, n_layers=numbers.COUNT, n_heads=numbers.COUNT, n_kv_heads=numbers.COUNT)
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        elif self.n_heads % self.n_kv_heads:
            raise InputError(f"n_kv_heads={self.n_kv_heads} must divide n_heads={self.n_heads}")

    @classmethod
    @door
    def of(cls, model: Any, kv: KV = "head") -> ComputationalGraph:
        """The graph of a loaded model; `kv="group"` keeps grouped-query keys and values together.

        At the first use of a model this also checks that its architecture is understood, and raises `InputError`
        when it is not (see `interp.inspection.anatomy_of`).
        """
        return cls.of_anatomy(anatomy_of(model), kv)

    @classmethod
    def of_anatomy(cls, anatomy: Anatomy, kv: KV = "head") -> ComputationalGraph:
        """The graph of a model that has been read and checked."""
        return cls(
            n_layers=anatomy.n_layers,
            n_heads=anatomy.n_heads,
            n_kv_heads=anatomy.n_kv_heads,
            kv=kv,
            parallel=anatomy.blocks[0].parallel,
        )

    @property
    def n_ports(self) -> int:
        """Number of k (and of v) targets in each layer."""
        assert self.n_kv_heads is not None
        return self.n_heads if self.kv == "head" else self.n_kv_heads

    @property
    def targets_per_layer(self) -> int:
        """q, k and v targets and the MLP of one layer."""
        return self.n_heads + 2 * self.n_ports + 1

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of all sources, in order."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)] + [f"m{layer}"]
        return tuple(names)

    @functools.cached_property
    def targets(self) -> tuple[str, ...]:
        """Names of all targets, in order."""
        names = []
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<q>" for head in range(self.n_heads)]
            names += [f"a{layer}.h{port}<{letter}>" for letter in "kv" for port in range(self.n_ports)]
            names.append(f"m{layer}")
        return (*names, "logits")

    @property
    def shape(self) -> tuple[int, int]:
        """`(number of sources, number of targets)`."""
        return len(self.sources), len(self.targets)

    @functools.cached_property
    def edge_mask(self) -> Bool[Tensor, "source target"]:
        """True where an edge exists. Treat as read-only: it is shared by everyone who asks."""
        with settled():  # it outlives the surroundings of who asks first
            mask = torch.zeros(self.shape, dtype=torch.bool, device="cpu")
            for layer in range(self.n_layers):
                mask[: self.sources_before_attention(layer), self.attention_targets(layer)] = True
                mask[: self.sources_before_mlp(layer), self.mlp_target(layer)] = True
            mask[:, -1] = True
        return mask

    @functools.cached_property
    def n_edges(self) -> int:
        """Number of possible edges."""
        return int(self.edge_mask.sum())

    def sources_before_attention(self, layer: int) -> int:
        """How many sources (a prefix of `sources`) the attention of `layer` can read."""
        return 1 + layer * (self.n_heads + 1)

    def sources_before_mlp(self, layer: int) -> int:
        """How many sources (a prefix of `sources`) the MLP of `layer` can read."""
        return self.sources_before_attention(layer) + (0 if self.parallel else self.n_heads)

    def head_sources(self, layer: int) -> slice:
        """Where the heads of `layer` stand among the sources."""
        start = self.sources_before_attention(layer)
        return slice(start, start + self.n_heads)

    def mlp_source(self, layer: int) -> int:
        """Where the MLP of `layer` stands among the sources."""
        return self.sources_before_attention(layer) + self.n_heads

    def attention_targets(self, layer: int) -> slice:
        """Where the q, k and v targets of `layer` stand among the targets, in that order."""
        start = layer * self.targets_per_layer
        return slice(start, start + self.targets_per_layer - 1)

    def mlp_target(self, layer: int) -> int:
        """Where the MLP of `layer` stands among the targets."""
        return (layer + 1) * self.targets_per_layer - 1

    @functools.cached_property
    def target_sources(self) -> tuple[tuple[int, ...], ...]:
        """For each target the sources that it feeds: its own node, a group's heads, or () for `logits`."""
        assert self.n_kv_heads is not None
        per_port = self.n_heads // self.n_ports
        result: list[tuple[int, ...]] = []
        for layer in range(self.n_layers):
            first = self.head_sources(layer).start
            result += [(first + head,) for head in range(self.n_heads)]
            ports = [tuple(first + p * per_port + i for i in range(per_port)) for p in range(self.n_ports)]
            result += ports + ports + [(self.mlp_source(layer),)]
        return (*result, ())

    @functools.cached_property
    def _source_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.sources)}

    @functools.cached_property
    def _target_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.targets)}

    def edge_name(self, source: int, target: int) -> str:
        """Name of an edge, as `a0.h1->a3.h2<q>`."""
        return f"{self.sources[source]}->{self.targets[target]}"

    def edge_index(self, name: str) -> tuple[int, int]:
        """Indices of a named edge; raises `InputError` when the graph has no such edge.

        >>> ComputationalGraph(n_layers=2, n_heads=2).edge_index("a0.h1->m1")
        (2, 13)
        """
        source, arrow, target = name.partition("->")
        if not arrow or source not in self._source_index or target not in self._target_index:
            raise InputError(
                f"edge={name!r} is not an edge of this graph; edges are named like "
                f"'{self.edge_name(0, 0)}' (sources: input, a0.h0 ... m{self.n_layers - 1}; "
                f"targets: a0.h0<q>, <k>, <v>, m0 ... logits)"
            )
        index = self._source_index[source], self._target_index[target]
        if not self.edge_mask[index]:
            raise InputError(f"edge={name!r} does not exist: {source} is not upstream of {target}")
        return index

    def edges(self, mask: Bool[Tensor, "source target"] | None = None) -> Iterator[str]:
        """Names of the edges in `mask` (default: of all edges), source by source."""
        chosen = self.edge_mask if mask is None else self.check_mask(mask)
        for source, target in chosen.nonzero().tolist():
            yield self.edge_name(source, target)

    def check_mask(self, mask: Tensor, argument: str = "mask") -> Bool[Tensor, "source target"]:
        """Return `mask` if it is a boolean mask over this graph's edges, else raise `InputError`."""
        fits = isinstance(mask, Tensor) and mask.dtype == torch.bool and tuple(mask.shape) == self.shape
        if not fits or not is_dense(mask):
            given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            given += "" if not fits else " that is sparse, or has no values"
            raise InputError(
                f"{argument} must be a torch.bool tensor of shape {self.shape} "
                f"(sources, targets of the graph); got {given}"
            )
        mask = mask.cpu()
        phantom = mask & ~self.edge_mask
        if phantom.any():
            source, target = phantom.nonzero()[0].tolist()
            raise InputError(
                f"{argument} switches on {int(phantom.sum())} edges that do not exist, "
                f"the first being {self.edge_name(source, target)}; intersect it with graph.edge_mask"
            )
        return mask

    def to_dict(self) -> dict[str, Any]:
        """What `ComputationalGraph(**...)` needs to build the same graph."""
        return asdict(self)

    def __repr__(self) -> str:
        kind = "" if self.n_kv_heads == self.n_heads else f", {self.n_kv_heads} key-value heads"
        return (
            f"ComputationalGraph({self.n_layers} layers x {self.n_heads} heads{kind}: "
            f"{len(self.sources)} sources, {len(self.targets)} targets, {self.n_edges:,} edges)"
        )

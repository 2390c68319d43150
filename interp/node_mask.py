"""`NodeMask`: which nodes a circuit holds. All edges between them are in; every other node is ablated.

At level `neuron` nodes are the inputs of the MLPs' output matrices, at level `expert` all of those of one expert of a
mixture, at level `head` attention heads, at level `node` heads and MLPs, at level `feature` features of dictionaries
(`interp.dictionaries.sets`). What is no node of the level
stays live, and so do embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.arrays import is_dense
from interp.errors import InputError, choose
from interp.keeping import kept

NODE_LEVELS = ("neuron", "expert", "head", "node", "feature")
OF_NEURONS = ("neuron", "expert")  # levels whose nodes are neurons, or all those of an expert
OF_UNITS = (*OF_NEURONS, "feature")  # levels finer than sources
AXES = {
    "neuron": ("layer", "d_mlp"),
    "expert": ("layer", "expert"),
    "head": ("layer", "head"),
    "node": ("source",),
    "feature": ("dictionary", "feature"),
}
Spans = tuple[int | str, ...] | None  # what positions are told apart by: of nodes absolute positions; None: all at once


@kept
@dataclass(frozen=True, eq=False)
class NodeMask:
    """Nodes of one level, kept or not.

    Attributes:
        mask: bool, by level `[layer, d_mlp]` (`neuron`; of mixtures experts one after the other), `[layer, expert]`
            (`expert`; an MLP that is no mixture is one), `[layer, head]` (`head`), `[source]` (`node`: the sources of
            the graph, of which `input` is always in) or `[dictionary, feature]` (`feature`; where errors are nodes they
            stand last); with `spans` an axis of these in front of the
            last.
        level: what the nodes are.
        spans: positions that are told apart; nodes at all others are ablated. None: a node is at all positions at once.

    Raises `InputError` for an unknown level, and for a mask that is not bool or has other axes.

    >>> NodeMask(torch.ones(2, 8, dtype=torch.bool), "head").n_nodes
    16
    """

    mask: Bool[Tensor, "*axes"]
    level: str
    spans: Spans = None

    def __post_init__(self) -> None:
        choose("level", self.level, NODE_LEVELS)
        spans = spans_of(self.spans)
        object.__setattr__(self, "spans", spans)
        axes = axes_of(self.level, spans)
        mask = self.mask
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != len(axes) or not is_dense(mask):
            given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(f"a mask of level={self.level!r} is a torch.bool tensor [{', '.join(axes)}]; got {given}")
        if spans is not None and mask.shape[-2] != len(spans):
            raise InputError(f"mask has {mask.shape[-2]} spans on its last axis but one; spans names {len(spans)}")
        object.__setattr__(self, "mask", mask.detach().cpu())

    @property
    def n_nodes(self) -> int:
        """How many nodes are kept; `input` is none."""
        inputs = int(self.mask[..., 0].sum()) if self.level == "node" else 0
        return int(self.mask.sum()) - inputs

    def check(self, full: Bool[Tensor, "*axes"], whose: str) -> Bool[Tensor, "*axes"]:
        """The mask as it is run, of the nodes `full` of the model called `whose`.

        Raises `InputError` where it does not fit.
        """
        if full.shape != self.mask.shape:
            beside = "" if self.level != "feature" else " with these dictionaries and errors"
            raise InputError(
                f"mask of level={self.level!r} and shape {tuple(self.mask.shape)} does not fit "
                f"model={whose!r}, which has {tuple(full.shape)}{beside}"
            )
        return with_input(self.mask & full, self.level)

    def __invert__(self) -> NodeMask:
        """The other nodes: the complement."""
        return NodeMask(~self.mask, self.level, self.spans)


def axes_of(level: str, spans: Spans = None) -> tuple[str, ...]:
    """The axes of masks and scores of a level.

    >>> axes_of("neuron", (3, 4))
    ('layer', 'span', 'd_mlp')
    """
    axes = AXES[level]
    return axes if spans is None else (*axes[:-1], "span", axes[-1])


def spans_of(given: Any) -> Spans:
    """Positions as a tuple of ints; raises `InputError` for what is none, is named twice or is negative."""
    if given is None:
        return None
    spans = tuple(numbers.many("spans", given, numbers.whole, numbers.FROM_ZERO))
    if not spans or len(set(spans)) < len(spans):
        raise InputError(f"spans={spans} must name at least one position, and none of them twice")
    return spans


def positions_of(spans: Sequence[int | str]) -> list[int]:
    """The spans of nodes, all of which are absolute positions."""
    return [one for one in spans if isinstance(one, int)]


def all_nodes(anatomy: Anatomy, level: str, spans: Spans = None) -> Bool[Tensor, "*axes"]:
    """True where the model has a node of the level (not of `feature`): layers may be of unequal width.

    Raises `InputError` for experts of a model that has none.
    """
    if level == "neuron":
        return ragged([block.mlp.width for block in anatomy.blocks], spans)
    if level == "expert":
        counts = [block.mlp.n_experts for block in anatomy.blocks]
        if max(counts) == 1:
            raise InputError(f"model={anatomy.name!r} has no mixture of experts; take level='neuron' or 'node'")
        return ragged(counts, spans)
    if level == "head":
        full = torch.ones(anatomy.n_layers, anatomy.n_heads, dtype=torch.bool, device="cpu")
    else:
        full = torch.ones(1 + anatomy.n_layers * (anatomy.n_heads + 1), dtype=torch.bool, device="cpu")
    return _at_spans(full, spans)


def ragged(counts: Sequence[int], spans: Spans = None, one_more: bool = False) -> Bool[Tensor, "row ... unit"]:
    """True for so many nodes in each row, and for one more that stands last in all of them.

    >>> ragged([1, 2], one_more=True).int().tolist()
    [[1, 0, 1], [1, 1, 1]]
    """
    sizes = torch.tensor(counts, device="cpu")
    full = torch.arange(int(sizes.max()), device="cpu") < sizes[:, None]
    return _at_spans(torch.cat((full, torch.ones_like(full[:, :1])), 1) if one_more else full, spans)


def _at_spans(full: Tensor, spans: Spans) -> Tensor:
    return full if spans is None else full.unsqueeze(-2).repeat_interleave(len(spans), -2)


def with_input(mask: Bool[Tensor, "*axes"], level: str) -> Bool[Tensor, "*axes"]:
    """The same with the input of level `node`, which is always in."""
    if level == "node":
        mask = mask.clone()
        mask[..., 0] = True
    return mask


def by_layer(
    values: Float[Tensor, "circuit ... unit"], level: str, layer: int, n_heads: int
) -> tuple[Tensor | None, Tensor | None]:
    """What stands in `values` for a layer's heads and its MLP (neurons, experts): [circuit, (span,) unit] each."""
    if level in OF_NEURONS:
        return None, values[:, layer]
    if level == "head":
        return values[:, layer], None
    first = 1 + layer * (n_heads + 1)
    return values[..., first : first + n_heads], values[..., first + n_heads : first + n_heads + 1]


def node_masks(given: Any, level: str | None = None, spans: Sequence[int | str] | None = None) -> list[NodeMask] | None:
    """Masks of nodes as objects, from what has `.mask`, `.level` and `.spans`, or from a tensor and its level.

    A tensor may be a stack, with one axis more in front. None for what is of edges. Raises `InputError` for a level
    beside a mask that says its own.
    """
    own = getattr(given, "level", None)
    if own in NODE_LEVELS:
        if level not in (None, own):
            raise InputError(f"level={level!r} beside a mask of level {own!r}; leave it out")
        return [NodeMask(given.mask, own, getattr(given, "spans", None))]
    if level in (None, "edge"):
        if spans is not None:
            raise InputError(f"spans goes with level: one of {', '.join(map(repr, NODE_LEVELS))}")
        return None
    choose("level", level, ("edge", *NODE_LEVELS))
    if not isinstance(given, Tensor):
        raise InputError(f"level={level!r} goes with a bool tensor; got {type(given).__name__}")
    known = spans_of(spans)
    stacked = given.ndim == len(axes_of(level, known)) + 1
    return [NodeMask(one, level, known) for one in (given if stacked else given[None])]

"""`Constants`: what each source gives under `ablation="optimal"`, whatever the prompt (Li and Janson 2024).

Those of neurons and features: `interp.kernels.unit_constants`; on disk: `interp.kernels.constant_files`.
"""

from __future__ import annotations

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.keeping import kept
from interp.kernels.capture import Sources

_ALIKE = 1e-4  # two sums over one layer's weights in float32, added up in different orders


class FittedConstants(ABC):
    """Two rows for each node: what it gives at the first position, and at all others; made by frozen dataclasses.

    Attributes:
        losses: KL divergence at the answer, mean over the prompts of the fit: in row 0 under the means that the fit
            started from, in row 1 under these constants.
        model: name of the model that they were fitted to.
        weights: a sum over each layer's weights, which tells two models of one shape apart.
    """

    losses: Float[Tensor, "2 n"]
    model: str
    weights: tuple[float, ...]
    parts: ClassVar[tuple[str, ...]]  # the fields that hold what nodes give

    @property
    @abstractmethod
    def counted(self) -> str:
        """How many nodes of what there are."""

    def check_weights(self, anatomy: Anatomy) -> None:
        """Raise `InputError` unless a model's weights are those that these were fitted to."""
        own = anatomy.weights_digest()
        alike = len(own) == len(self.weights) and all(
            math.isclose(a, b, rel_tol=_ALIKE, abs_tol=_ALIKE) for a, b in zip(self.weights, own, strict=True)
        )
        if not alike:
            raise InputError(
                f"constants were fitted to other weights (of {self.model!r}, in another dtype or before an edit); with "
                "ablation='optimal' and no constants= they are fitted to these"
            )

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of what nodes give: what tells these constants from others."""
        found = hashlib.sha256()
        for name in self.parts:
            if (part := getattr(self, name)) is not None:
                found.update(part.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FittedConstants) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        before, after = self.losses.mean(1).tolist()
        return f"{type(self).__name__}({self.model}, {self.counted}, mean KL {before:.3g} -> {after:.3g})"


@kept
@dataclass(frozen=True, eq=False, repr=False)
class Constants(FittedConstants):
    """A vector for each source: that of the first position in row 0, that of all others in row 1.

    Attributes:
        embedding, heads, mlps: what the input, heads (before W_O) and MLPs give.
        losses: as in `FittedConstants`, with each source alone replaced: sources in the order of the graph.
        model, weights: as there.

    Raises `InputError` for tensors that do not belong together.
    """

    embedding: Float[Tensor, "2 d_model"]
    heads: Float[Tensor, "2 layer head d_head"]
    mlps: Float[Tensor, "2 layer d_model"]
    losses: Float[Tensor, "2 source"]
    model: str
    weights: tuple[float, ...]
    parts: ClassVar[tuple[str, ...]] = ("embedding", "heads", "mlps")

    def __post_init__(self) -> None:
        width, layers = self.embedding.shape[-1], len(self.weights)
        heads = self.heads.shape[2:]
        wanted = ((2, width), (2, layers, *heads), (2, layers, width), (2, 1 + layers * (heads[:1].numel() + 1)))
        found = tuple(tuple(one.shape) for one in (self.embedding, self.heads, self.mlps, self.losses))
        if len(heads) != 2 or found != wanted:
            raise InputError(f"constants of {self.model!r} have shapes that do not belong together: {found}")

    @classmethod
    def of(cls, values: Sources, losses: Tensor, anatomy: Anatomy) -> Constants:
        """From outputs of all sources, two rows of each."""
        heads, mlps = torch.stack(values.heads, 1), torch.stack(values.mlps, 1)
        return cls(values.embedding, heads, mlps, losses, anatomy.name, tuple(anatomy.weights_digest()))

    @property
    def values(self) -> Sources:
        """The same as outputs of all sources."""
        return Sources(self.embedding, [*self.heads.unbind(1)], [*self.mlps.unbind(1)])

    def rows(self, positions: Tensor) -> Sources:
        """What sources give at given positions, one row for each."""
        places = positions.clamp(max=1)
        return self.values.each(lambda rows: rows[places])

    def on(self, anatomy: Anatomy) -> Constants:
        """The same on a model's device. Raises `InputError` for constants of another model."""
        here = (anatomy.n_layers, anatomy.n_heads, anatomy.d_head, anatomy.d_model)
        shape = (*self.heads.shape[1:], self.embedding.shape[1])
        if shape != here:
            raise InputError(
                f"constants are of {self.model!r}, with layers, heads, d_head and d_model {shape}; model="
                f"{anatomy.name!r} has {here}: with ablation='optimal' and no constants= they are fitted to it"
            )
        self.check_weights(anatomy)
        moved = {name: getattr(self, name).to(anatomy.device) for name in self.parts}
        return replace(self, **moved)

    @property
    def counted(self) -> str:
        return f"{self.losses.shape[1]} sources"

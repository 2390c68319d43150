"""`Constants`: what each source gives under `ablation="optimal"`, whatever the prompt (Li and Janson 2024)."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.keeping import kept
from interp.kernels.capture import Sources

_ALIKE = 1e-4  # two sums over one layer's weights in float32, added up in different orders
_PREFIX = "constants."  # of their names among a file's tensors
_NAMES = ("embedding", "heads", "mlps", "losses", "weights")
TENSORS = frozenset(_PREFIX + name for name in _NAMES)


@kept
@dataclass(frozen=True, eq=False)
class Constants:
    """A vector for each source: that of the first position in row 0, that of all others in row 1.

    Attributes:
        embedding, heads, mlps: what the input, heads (before W_O) and MLPs give.
        losses: KL divergence at the answer with each source alone replaced, mean over the prompts of the fit, under
            the means that the fit started from and under these constants: sources in the order of the graph.
        model: name of the model that they were fitted to.
        weights: a sum over each layer's weights, which tells two models of one shape apart.

    Raises `InputError` for tensors that do not belong together.
    """

    embedding: Float[Tensor, "2 d_model"]
    heads: Float[Tensor, "2 layer head d_head"]
    mlps: Float[Tensor, "2 layer d_model"]
    losses: Float[Tensor, "2 source"]
    model: str
    weights: tuple[float, ...]

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
        own = anatomy.weights_digest()
        if not all(math.isclose(a, b, rel_tol=_ALIKE, abs_tol=_ALIKE) for a, b in zip(self.weights, own, strict=True)):
            raise InputError(
                f"constants were fitted to other weights (of {self.model!r}, in another dtype or before an edit); with "
                "ablation='optimal' and no constants= they are fitted to these"
            )
        moved = {name: getattr(self, name).to(anatomy.device) for name in ("embedding", "heads", "mlps")}
        return replace(self, **moved)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of what sources give: what tells these constants from others."""
        found = hashlib.sha256()
        for part in (self.embedding, self.heads, self.mlps):
            found.update(part.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constants) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        before, after = self.losses.mean(1).tolist()
        return f"Constants({self.model}, {self.losses.shape[1]} sources, mean KL {before:.3g} -> {after:.3g})"


def tensors_of(constants: Constants | None) -> dict[str, Tensor]:
    """Constants as a file of tensors holds them beside others; nothing where there are none."""
    if constants is None:
        return {}
    found = {name: getattr(constants, name).detach().cpu().contiguous() for name in _NAMES[:-1]}
    found["weights"] = torch.tensor(constants.weights, dtype=torch.float64, device="cpu")
    return {_PREFIX + name: found[name] for name in _NAMES}


def constants_in(tensors: Mapping[str, Tensor], model: str) -> Constants | None:
    """Those that `tensors_of` put into a file, of a model by name; None where there are none.

    Raises `InputError` where some are missing or do not belong together.
    """
    found = [tensors.get(_PREFIX + name) for name in _NAMES]
    if all(one is None for one in found):
        return None
    given = [one for one in found if one is not None]
    if len(given) < len(found):
        raise InputError(f"constants of {model!r} are {', '.join(_NAMES)}; some of them are missing")
    embedding, heads, mlps, losses, weights = given
    return Constants(embedding, heads, mlps, losses, model, tuple(weights.tolist()))

"""`UnitConstants`: what each neuron or feature gives under `ablation="optimal"`, whatever the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.keeping import kept
from interp.kernels.constants import FittedConstants


@kept
@dataclass(frozen=True, eq=False, repr=False)
class UnitConstants(FittedConstants):
    """A number for each neuron or feature, and a vector for each error: of the first position in row 0, else in row 1.

    Neurons are in units of the residual stream, over the divisor of a norm that follows the MLP
    (`interp.kernels.neurons`). Layers and dictionaries may be of unequal width: what lies beyond is 0.

    Attributes:
        units: what neurons (by layer) or features (by dictionary) give.
        errors: what dictionaries' errors give; None for neurons.
        losses: as in `FittedConstants`, on circuits that were drawn at random; one column.
        model, weights: as there.
        dictionaries: digests of what features are of; none for neurons.

    Raises `InputError` for tensors that do not belong together.
    """

    units: Float[Tensor, "2 row unit"]
    errors: Float[Tensor, "2 row d_model"] | None
    losses: Float[Tensor, "2 1"]
    model: str
    weights: tuple[float, ...]
    dictionaries: tuple[str, ...] = ()
    parts: ClassVar[tuple[str, ...]] = ("units", "errors")

    def __post_init__(self) -> None:
        rows = len(self.dictionaries) or len(self.weights)
        fitting = self.units.ndim == 3 and self.units.shape[:2] == (2, rows) and self.losses.shape == (2, 1)
        errors = self.errors
        if errors is not None:
            fitting = fitting and errors.ndim == 3 and errors.shape[:2] == (2, rows)
        if not fitting or (errors is None) != (not self.dictionaries):
            raise InputError(f"constants of {self.model!r} have shapes that do not belong together")

    @property
    def nodes(self) -> str:
        """What they are of."""
        return "features" if self.dictionaries else "neurons"

    @property
    def counted(self) -> str:
        return f"{self.units[0].numel()} {self.nodes}"

    def on(self, anatomy: Anatomy, widths: Sequence[int], dictionaries: tuple[str, ...] = ()) -> UnitConstants:
        """The same on a model's device, for rows of `widths`; raises `InputError` for other nodes or another model."""
        if bool(dictionaries) != bool(self.dictionaries):
            raise of_others(self.nodes, "features" if dictionaries else "neurons")
        if dictionaries != self.dictionaries:
            raise InputError(
                "constants were fitted to features of other dictionaries, or in another order; with "
                "ablation='optimal' and no constants= they are fitted to these"
            )
        shape = (len(widths), max(widths))
        if self.units.shape[1:] != shape:
            raise InputError(
                f"constants are of {self.nodes} of {self.model!r}, [layer, unit] {list(self.units.shape[1:])}; model="
                f"{anatomy.name!r} has {list(shape)}: with ablation='optimal' and no constants= they are fitted to it"
            )
        self.check_weights(anatomy)
        moved = {name: one.to(anatomy.device) for name in self.parts if (one := getattr(self, name)) is not None}
        return replace(self, **moved)


def of_others(given: str, wanted: str) -> InputError:
    """What is said of constants of some nodes where others are ablated."""
    return InputError(
        f"constants are of {given}, and {wanted} are ablated; with ablation='optimal' and no constants= they are "
        "fitted to these"
    )


def by_position(two: Float[Tensor, "2 ..."], length: int) -> Float[Tensor, "pos ..."]:
    """What is given at each of so many positions."""
    return two[torch.arange(length, device=two.device).clamp(max=1)]


def beside_each_other(parts: Sequence[Float[Tensor, "2 _"]]) -> Float[Tensor, "2 row unit"]:
    """Parts of unequal width as rows of one tensor, 0 beyond the end of each."""
    widest = max(part.shape[1] for part in parts)
    return torch.stack([F.pad(part, (0, widest - part.shape[1])) for part in parts], 1)

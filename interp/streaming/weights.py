"""Where the values of one parameter come from: a stored tensor, rows of one, or several that are put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.streaming.checkpoint import Stored

Build = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter that is read when it is needed.

    Attributes:
        name: of the parameter in its module.
        shape: of the parameter; the stored tensor may have more rows where only the first are wanted.
        stored: the tensors in the files that make it.
        build: makes it of these; None where it is the one tensor.
        held: gives its values where no file does: they lie on a device, or with accelerate.
    """

    name: str
    shape: torch.Size
    stored: tuple[Stored, ...] = ()
    build: Build | None = None
    held: Callable[[], Tensor] | None = None

    @property
    def exists(self) -> bool:
        """Whether there are values at all."""
        return bool(self.stored) or self.held is not None


@dataclass(frozen=True, eq=False)
class Share:
    """Rows of another weight: a projection that TransformerLens has split off a fused one.

    Attributes:
        of: the fused weight.
        rows: which of its outputs, an int tensor, or a slice, which costs no copy.
        transposed: the fused weight has its outputs last (GPT-2).
    """

    of: Weight
    rows: Tensor | slice
    transposed: bool = False

    @property
    def shape(self) -> torch.Size:
        """Outputs and inputs."""
        n_in = self.of.shape[0 if self.transposed else 1]
        count = self.rows.stop - self.rows.start if isinstance(self.rows, slice) else len(self.rows)
        return torch.Size((count, n_in))

    def take(self, fused: Tensor) -> Tensor:
        """The rows `[out, in]` of the fused weight's values."""
        return (fused.T if self.transposed else fused)[self.rows]

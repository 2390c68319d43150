"""What masks are over, as whatever measures them sees it: edges, or nodes of one level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.ablation import Ablator
from interp.kernels.batching import Batch


class BatchRunner(ABC):
    """Runs masks of one grain over one batch of prompts."""

    @property
    @abstractmethod
    def clean_logits(self) -> Float[Tensor, "batch d_vocab"]:
        """Logits of the clean run."""

    @abstractmethod
    def logits(self, masks: Tensor) -> Float[Tensor, "circuit batch d_vocab"]:
        """Logits at the last real position of each prompt, for each mask."""

    @abstractmethod
    def n_bytes(self) -> int:
        """What is held for all masks over this batch."""


class Grain(ABC):
    """A kind of mask under one ablation: how it is run, and what that takes."""

    anatomy: Anatomy
    ablator: Ablator

    @abstractmethod
    def empty(self) -> Tensor:
        """The mask that holds nothing, on the CPU."""

    @abstractmethod
    def runner(self, batch: Batch) -> BatchRunner:
        """What runs masks over a batch."""

    @abstractmethod
    def sizes(self, masks: Tensor) -> Sequence[int]:
        """How large each mask's run is, in the unit of `row_bytes`; masks of like size are run together."""

    @abstractmethod
    def row_bytes(self, size: int | None = None) -> int:
        """What one row (prompt and position) takes in a run of that size; None: of the largest."""

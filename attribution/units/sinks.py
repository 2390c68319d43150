"""Where scores of neurons go, layer by layer and batch by batch: all held, summed, or the largest alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tasks.prompts import Prompts

AXES = ("prompt", "layer", "position", "neuron")


@dataclass(frozen=True)
class Rows:
    """The prompt and the position of each row of scores."""

    prompts: Int[Tensor, " row"]
    positions: Int[Tensor, " row"]


class Sink(ABC):
    """Takes scores `[row, neuron]` of one layer at a time; what a batch gave counts once it is done."""

    @abstractmethod
    def add(self, layer: int, rows: Rows, scores: Tensor, activations: Tensor) -> None:
        """Scores and activations of some rows of a layer."""

    def begin(self) -> None:  # noqa: B027
        """A batch begins, perhaps once more because it did not fit into memory."""

    def done(self) -> None:  # noqa: B027
        """The batch is done."""


class Held(Sink):
    """All scores and activations, `[n, layer, pos, d_mlp]`, 0 where there are none."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.values = torch.zeros(*shape, dtype=dtype, device="cpu")
        self.activations = torch.zeros_like(self.values)

    def add(self, layer: int, rows: Rows, scores: Tensor, activations: Tensor) -> None:
        for into, values in ((self.values, scores), (self.activations, activations)):
            into[rows.prompts, layer, rows.positions, : values.shape[1]] = values.to(into)


class Summed(Sink):
    """Sums over prompts, positions or both; the axes that are left stay in order."""

    def __init__(self, shape: Sequence[int], over: Sequence[str], dtype: torch.dtype) -> None:
        self.over = over
        left = [1 if axis in over else size for axis, size in zip(AXES, shape, strict=True)]
        self.total = torch.zeros(*left, dtype=torch.float64, device="cpu")
        self.batch, self.dtype = torch.zeros_like(self.total), dtype

    def begin(self) -> None:
        self.batch.zero_()

    def add(self, layer: int, rows: Rows, scores: Tensor, activations: Tensor) -> None:
        prompts, positions = (
            torch.zeros_like(which) if axis in self.over else which
            for axis, which in (("prompt", rows.prompts), ("position", rows.positions))
        )
        index = (
            prompts[:, None],
            torch.tensor(layer, device="cpu"),
            positions[:, None],
            torch.arange(scores.shape[1], device="cpu")[None],
        )
        self.batch.index_put_(index, scores.to(self.batch), accumulate=True)

    def done(self) -> None:
        self.total += self.batch

    @property
    def values(self) -> Tensor:
        """The sums."""
        axes = [i for i, axis in enumerate(AXES) if axis in self.over]
        return self.total.squeeze(axes).to(self.dtype)


@dataclass(frozen=True)
class Best:
    """Some scores with where they stand, `[kept, 4]` in the order of `AXES`."""

    where: Int[Tensor, "kept 4"]
    scores: Float[Tensor, " kept"]
    activations: Float[Tensor, " kept"]

    @classmethod
    def of_none(cls, dtype: torch.dtype) -> Best:
        """No scores."""
        empty = torch.zeros(0, dtype=dtype, device="cpu")
        return cls(torch.zeros(0, 4, dtype=torch.long, device="cpu"), empty, empty)

    def joined(self, other: Best, most: int) -> Best:
        """The largest of both by |score|, in falling order."""
        scores = torch.cat((self.scores, other.scores))
        order = scores.abs().argsort(descending=True, stable=True)[:most]
        where, activations = (
            torch.cat(pair)[order] for pair in ((self.where, other.where), (self.activations, other.activations))
        )
        return Best(where, scores[order], activations)

    def frame(self, axes: Sequence[str] = AXES) -> pd.DataFrame:
        """Columns prompt, layer, position, neuron (or what else the axes are called), activation, score."""
        columns: dict[str, np.ndarray] = dict(zip(axes, self.where.T.numpy(), strict=True))
        return pd.DataFrame(columns | {"activation": self.activations.numpy(), "score": self.scores.numpy()})


class Largest(Sink):
    """The `most` largest |score|: no more than these and one layer's of one batch are ever held."""

    def __init__(self, most: int, dtype: torch.dtype) -> None:
        self.most, self.dtype = most, dtype
        self.best = self.batch = Best.of_none(dtype)

    def begin(self) -> None:
        self.batch = self.best

    def add(self, layer: int, rows: Rows, scores: Tensor, activations: Tensor) -> None:
        flat, width = scores.flatten(), scores.shape[1]
        chosen = flat.abs().topk(min(self.most, len(flat))).indices
        row, neuron = (chosen // width).cpu(), (chosen % width).cpu()
        where = torch.stack((rows.prompts[row], torch.full_like(row, layer), rows.positions[row], neuron), 1)
        found = [values.flatten()[chosen].to("cpu", self.dtype) for values in (scores, activations)]
        self.batch = self.batch.joined(Best(where, found[0], found[1]), self.most)

    def done(self) -> None:
        self.best = self.batch


def summed_rows(by_row: Float[Tensor, "row ..."], prompts: Prompts) -> Float[Tensor, "n ..."]:
    """What is found by row, summed over the rows of each prompt; on the CPU."""
    total = by_row.new_zeros(len(prompts), *by_row.shape[1:])
    return total.index_add(0, prompts.prompt_of.cpu(), by_row)

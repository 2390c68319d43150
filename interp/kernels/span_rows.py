"""Rows of a batch, span by span: what targets read is a mixture of its own at the rows of each span."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.spans import RowSpans, segments


@dataclass(frozen=True, eq=False)
class SpanRows:
    """Rows in the order in which those of a span stand together.

    Attributes:
        shape: rows and d_model.
        counts: rows of each span, and of none.
        order: the rows in that order; None: as they are, all of one span.
        back: where each row stands in it.
        where: the span of each row.
    """

    shape: tuple[int, int]
    counts: tuple[int, ...]
    order: Int[Tensor, " row"] | None = None
    back: Int[Tensor, " row"] | None = None
    where: Int[Tensor, " row"] | None = None

    @classmethod
    def of(cls, spans: RowSpans | None, like: Float[Tensor, "row d_model"]) -> SpanRows:
        """From the spans of the rows; None: all of one span."""
        rows, width = like.shape
        if spans is None:
            return cls((rows, width), (rows, 0))
        where = spans.where.to(like.device)
        order, counts = segments(where, spans.count)
        return cls((rows, width), tuple(counts), order, order.argsort(), where)

    @property
    def some_in_none(self) -> bool:
        """Whether any row is in no span."""
        return self.counts[-1] > 0

    def each(self, among: Int[Tensor, " some"] | None = None) -> Iterator[tuple[int, slice | Int[Tensor, " row"]]]:
        """Each span with its rows, or with those of `among` (as indices into these); all rows where there is one."""
        if self.where is None:
            yield 0, slice(None)
            return
        where = self.where if among is None else self.where[among]
        for span in range(len(self.counts) - 1):
            rows = (where == span).nonzero()[:, 0]
            if len(rows):
                yield span, rows

    def ordered(
        self, values: Float[Tensor, "circuit source row d_model"]
    ) -> Float[Tensor, "circuit source row d_model"]:
        """The same with rows in this order."""
        if self.order is None:
            return values
        ordered: Tensor = values[:, :, self.order]
        return ordered

    def at(self, rows: Int[Tensor, " some"]) -> tuple[Int[Tensor, " some"], Int[Tensor, " some"] | None]:
        """Where some rows stand, and their spans, if these are told apart."""
        if self.back is None or self.where is None:
            return rows, None
        return self.back[rows], self.where[rows]

    def mixed(
        self, weights: Float[Tensor, "circuit span target source"], values: Float[Tensor, "circuit source flat"]
    ) -> Float[Tensor, "circuit target row d_model"]:
        """Sums over sources, weighed at each row by the weights of its span; zero in none. Rows in their old order."""
        rows, width = self.shape
        if self.back is None:
            found: Tensor = torch.bmm(weights[:, 0], values)
            return found.view(*found.shape[:2], *self.shape)
        found = values.new_zeros(weights.shape[0], weights.shape[2], rows * width)
        first = 0
        for span, count in enumerate(self.counts[: weights.shape[1]]):
            part = slice(first * width, (first + count) * width)
            if count:
                found[:, :, part] = torch.bmm(weights[:, span], values[:, :, part])
            first += count
        by_row: Tensor = found.view(*found.shape[:2], *self.shape)[:, :, self.back]
        return by_row

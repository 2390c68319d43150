"""The setting of one batch: which positions are run, with which rotary tables, masks and cached prefix.

In a causal model every position before the first token at which clean and corrupted prompts differ has the same
activations in every run. A `Frame` therefore runs positions `start .. length-1` only; keys and values of the
positions before are computed once and shared by all runs. Prompts are padded on the right, so that the causal
mask alone keeps padding from being seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.backward import PLAIN, Backward
from interp.rotary import QueryScale, Tables

PerHead = Float[Tensor, "batch pos head d_head"]
PerPort = Float[Tensor, "batch pos _ d_head"]  # keys and values: of each key-value head, or repeated for each head
KeysValues = tuple[Float[Tensor, "batch prefix kv_head d_head"], Float[Tensor, "batch prefix kv_head d_head"]]


@dataclass(frozen=True)
class Frame:
    """Positions `start .. stop-1` of a batch, and what attention needs to run them."""

    anatomy: Anatomy
    start: int
    stop: int
    rope: dict[str, Tables]  # per kind of layer
    query_scales: dict[QueryScale | None, Float[Tensor, " pos"] | None]
    masks: dict[int | None, Bool[Tensor, "pos key"] | None]  # per window; None: plainly causal
    prefix: tuple[KeysValues, ...] | None  # per layer, keys already rotated
    kv_of_head: Int[Tensor, " head"]
    backward: Backward = PLAIN  # how the run is differentiated

    @classmethod
    def of(
        cls,
        anatomy: Anatomy,
        start: int,
        stop: int,
        lengths: Int[Tensor, " batch"],
        prefix: tuple[KeysValues, ...] | None = None,
    ) -> Frame:
        """The frame of positions `start .. stop-1` of prompts of `lengths` tokens, wherever the run ends.

        With `start > 0` the keys and values before it are needed.
        """
        positions = torch.arange(start, stop, device=anatomy.device)
        masks = {w: _mask(positions, stop, w) for w in {block.window for block in anatomy.blocks}}
        frame = cls(anatomy, start, stop, {}, {}, masks, prefix, anatomy.kv_of_head())
        return frame.placed(positions, lengths)

    def placed(self, positions: Int[Tensor, " pos"], lengths: Int[Tensor, " batch"]) -> Frame:
        """The same with rotary tables and scales of queries as at `positions` of prompts of `lengths` tokens."""
        anatomy, rope = self.anatomy, {}
        if anatomy.rotary is not None:
            for kind in {block.rope for block in anatomy.blocks}:
                rope[kind] = anatomy.rotary.tables(positions, lengths, kind, anatomy.dtype)
        kinds = {block.query_scale for block in anatomy.blocks}
        scales = {scale: None if scale is None else scale(positions, anatomy.dtype) for scale in kinds}
        return replace(self, rope=rope, query_scales=scales)

    @property
    def positions(self) -> Int[Tensor, " pos"]:
        """The positions that are run."""
        return torch.arange(self.start, self.stop, device=self.anatomy.device)

    @property
    def n_positions(self) -> int:
        """How many positions are run."""
        return self.stop - self.start

    def turn(self, layer: int, q: PerHead, k: PerPort) -> tuple[PerHead, PerPort]:
        """Queries and keys as their positions have them; the batch may stack several copies of the prompts."""
        block, rotary = self.anatomy.blocks[layer], self.anatomy.rotary
        if rotary is not None:
            cos, sin = self.rope[block.rope]
            if cos.ndim == 3 and len(cos) != len(q):
                cos, sin = (part.repeat(len(q) // len(part), 1, 1) for part in (cos, sin))
            q, k = rotary(q, cos, sin), rotary(k, cos, sin)
        scale = self.query_scales[block.query_scale]
        return q if scale is None else q * scale[:, None, None], k

    def keys_values(self, layer: int, groups: Int[Tensor, " head"], batch: int) -> KeysValues | None:
        """The prefix's keys and values for query heads that read the key-value heads `groups`.

        Repeated along the batch when it stacks several copies of the prompts.
        """
        if self.prefix is None:
            return None
        keys, values = (part[:, :, groups] for part in self.prefix[layer])
        copies = batch // keys.shape[0]
        if copies == 1:
            return keys, values
        return keys.repeat(copies, 1, 1, 1), values.repeat(copies, 1, 1, 1)


def _mask(positions: Tensor, stop: int, window: int | None) -> Tensor | None:
    """True where a query may look; None where plain causal attention over all positions does the same."""
    start = stop - len(positions)
    if start == 0 and (window is None or window >= stop):
        return None
    distance = positions[:, None] - torch.arange(stop, device=positions.device)[None]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)

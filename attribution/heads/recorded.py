"""One layer's attention of a batch, as it was run: scores, pattern, values, and the gradient at what heads give.

Everything that is asked of a score follows from these in closed form. With g_t the gradient at a head's output z_t
(in front of its output matrix) and A the pattern, the gradient at a score in front of the softmax is

    dM/ds_ts  =  A_ts (g_t . v_s - g_t . z_t)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.gradients import BatchScorer, PathRecorder
from attribution.paths import Point
from interp.anatomy import Block
from interp.kernels.forward import (
    Recorder,
    Residual,
    attention_parts,
    capped,
    ready,
    uncapped_scores,
    write_heads,
)
from interp.kernels.frame import Frame, PerHead, PerPort
from interp.parts import working

Pairs = Float[Tensor, "batch head query key"]
Projected = tuple[PerHead, PerPort, PerPort]  # behind the projections: in front of q/k norms and rotary embedding


@dataclass(frozen=True)
class LayerAttention:
    """One layer's attention; `projected` as it ran, `added_gradient` at what it adds to the residual stream."""

    frame: Frame
    layer: int
    projected: Projected
    added_gradient: Residual

    @property
    def block(self) -> Block:
        """The layer's block."""
        return self.frame.anatomy.blocks[self.layer]

    def made_ready(self, projected: Projected) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as attention multiplies them, [batch, head, pos, d_head]."""
        q, k, v = ready(self.frame, self.layer, *projected)
        return working(q), working(k), working(v)

    @functools.cached_property
    def ready(self) -> tuple[Tensor, Tensor, Tensor]:
        """Those of this run."""
        return self.made_ready(self.projected)

    @functools.cached_property
    def scores(self) -> Pairs:
        """In front of a soft cap, also where a query does not look."""
        return self.scores_of(*self.ready[:2])

    def scores_of(self, q: Tensor, k: Tensor) -> Pairs:
        """Scores of ready queries and keys."""
        return uncapped_scores(self.block, q, k)

    @functools.cached_property
    def pattern(self) -> Pairs:
        """What values are weighed by."""
        return working(attention_parts(self.frame, self.layer, *self.projected)[0])

    @functools.cached_property
    def gradient(self) -> Float[Tensor, "batch head pos d_head"]:
        """At what heads give in front of the output matrix, through a norm behind attention where there is one."""
        z = self.pattern @ self.ready[2]
        with torch.enable_grad():
            z = z.transpose(1, 2).to(self.added_gradient.dtype).detach().requires_grad_()
            (found,) = torch.autograd.grad(write_heads(self.block, z)[1], z, self.added_gradient)
        return working(found).transpose(1, 2)

    @functools.cached_property
    def gain(self) -> Pairs:
        """g_t . v_s - g_t . z_t: what the objective gains where a query looks at a key in the place of all others."""
        worth = self.gradient @ self.ready[2].transpose(-1, -2)
        return worth - (self.pattern * worth).sum(-1, keepdim=True)

    @functools.cached_property
    def cap_slope(self) -> Pairs | float:
        """The slope of the soft cap; 1 without one."""
        cap = self.block.softcap
        return 1.0 if cap is None else 1 - (capped(self.block, self.scores) / cap) ** 2

    @functools.cached_property
    def score_gradient(self) -> Pairs:
        """At the scores in front of the soft cap."""
        return self.pattern * self.gain * self.cap_slope


class AttentionRecorder(PathRecorder):
    """Hands on the attention of each chosen layer of a clean run, as soon as the backward pass has come there."""

    def __init__(
        self, owner: BatchScorer, hear: Callable[[LayerAttention], None], chosen: Callable[[int], bool]
    ) -> None:
        super().__init__(owner, [Point(1.0, 1.0)])
        self.hear, self.chosen, self._projected = hear, chosen, dict[int, Projected]()

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> Projected:
        if self.open and self.chosen(layer):
            self._projected[layer] = (q.detach(), k.detach(), v.detach())
        return q, k, v

    def attention_output(self, layer: int, added: Residual) -> Residual:
        if self.open and self.chosen(layer):

            def receive(gradient: Tensor) -> None:
                with torch.no_grad():
                    self.hear(LayerAttention(self.owner.frame, layer, self._projected.pop(layer), gradient.detach()))

            added.register_hook(receive)
        return added


class ProjectionRecorder(Recorder):
    """Keeps queries, keys and values of all layers."""

    def __init__(self) -> None:
        self.kept: list[Projected] = []

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> Projected:
        self.kept.append((q, k, v))
        return q, k, v

"""Gradients at the residual stream behind the embedding and behind each layer, averaged over a path.

What an MLP adds to the residual stream has the gradient of the stream that it adds to: all that scores of its neurons
need. Biases are heard in the same backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attribution.gradients import BatchScorer, GradientScorer, PathRecorder
from attribution.paths import Point
from attribution.units.biases import Biases
from interp.kernels.batching import Batch
from interp.kernels.forward import Residual
from interp.parts import working


@dataclass
class StreamGradients:
    """[batch, pos, d_model] for the embedding and for each layer's end; biases where they were asked for."""

    runs: BatchScorer
    embedding: Tensor
    layers: list[Tensor]
    biases: Biases | None


def stream_gradients(scorer: GradientScorer, batch: Batch, paired: bool) -> StreamGradients:
    """The weighted sum over the path's points, of one batch of prompts.

    One forward and one backward pass for each point. Where the path credits sub-layers in their own passes, a layer's
    MLP gets the gradients of the passes along its own output.
    """
    runs = BatchScorer(scorer, batch)
    biases = None
    if not paired or str(scorer.setting.ablation).startswith("zero"):  # otherwise both runs have the same
        biases = Biases(runs.anatomy, scorer.backward, batch.n_rows, outputs_alone=paired)
    if biases is not None:
        runs.frame = replace(runs.frame, backward=biases)
    runs.prepare()
    like = working(runs.embedding)
    totals = [torch.zeros_like(like) for _ in range(runs.anatomy.n_layers + 1)]
    for group in scorer.path.groups:
        places = _credited(group[0], scorer) if scorer.path.credit == "own" else set(range(len(totals)))
        for points in runs.stacks(list(group)) if places else ():
            recorder = _StreamRecorder(runs, points, totals, places)
            if biases is not None:
                biases.weights = recorder.point_weights
            runs.differentiate(points, recorder)
    return StreamGradients(runs, totals[0], totals[1:], biases)


def _credited(point: Point, scorer: GradientScorer) -> set[int]:
    """The places of the stream whose gradients a group of points is taken for."""
    kinds = {"input": {0}, "mlp": {point.site.layer + 1}}
    return kinds.get(point.site.kind, set())


class _StreamRecorder(PathRecorder):
    def __init__(self, owner: BatchScorer, points: list[Point], totals: list[Tensor], places: set[int]) -> None:
        super().__init__(owner, points)
        self.totals, self.places = totals, places

    def attention_input(self, layer: int, x: Residual) -> None:
        if self.open:
            self._listen(layer, x)

    def final(self, x: Residual) -> None:
        self._listen(self.owner.anatomy.n_layers, x)

    def _listen(self, place: int, x: Residual) -> None:
        if place not in self.places:
            return
        weights = self.point_weights[:, None, None, None]

        def receive(gradient: Tensor) -> Any:
            by_point = working(gradient.detach()).unflatten(0, (len(self.points), -1))
            self.totals[place].add_((by_point * weights).sum(0))

        x.register_hook(receive)

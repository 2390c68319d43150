"""Gradients at the places that dictionaries write to, averaged over a path.

All places at once, along a path of the input; or each along its own way from corrupted to clean, with features and
error moved together and everything in front of it held (sparse feature circuits).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.edges.gradient import EAPIGActivations, GradientMethod
from attribution.gradients import BatchScorer, PathRecorder
from attribution.paths import Point, quadrature_rule
from attribution.sparse.observed import Observer, Seen
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.means import MeanParts
from interp.dictionaries.sites import SiteRecorder, run_from
from interp.errors import InputError
from interp.kernels.forward import Residual
from interp.parts import working


def check_credit(method: GradientMethod) -> None:
    """Raise `InputError` for a credit that features cannot be given."""
    if isinstance(method, EAPIGActivations) and method.credit != "own":
        raise InputError(
            f"credit={method.credit!r} averages over the passes of heads and MLPs; features are credited in those of "
            "their own place: credit='own'"
        )


def n_points(method: GradientMethod, n_layers: int, n_dictionaries: int) -> int:
    """Forward and backward passes for each prompt."""
    if isinstance(method, EAPIGActivations):
        return method.steps * n_dictionaries
    return method.path(n_layers).n_points


def site_gradients(
    runs: BatchScorer, dictionaries: Sequence[Dictionary], method: GradientMethod, means: MeanParts | None
) -> list[Residual]:
    """Of each dictionary the gradient at its place, `[batch, pos, d_model]`."""
    totals = [torch.zeros_like(working(runs.embedding)) for _ in dictionaries]
    if isinstance(method, EAPIGActivations):
        _along_own_ways(runs, dictionaries, method, means, totals)
        return totals
    runs.prepare()
    for group in runs.scorer.path.groups:
        for points in runs.stacks(list(group)):
            runs.differentiate(points, _Listener(runs, points, dictionaries, totals))
    return totals


class _Listener(SiteRecorder, PathRecorder):
    """Listens to the gradient at every place of a dictionary."""

    def __init__(
        self, owner: BatchScorer, points: list[Point], dictionaries: Sequence[Dictionary], totals: list[Tensor]
    ) -> None:
        PathRecorder.__init__(self, owner, points)
        SiteRecorder.__init__(self, owner.anatomy, dictionaries, self._listen)
        self.totals = totals

    def begin(self, start: Residual) -> None:
        self.begin_at(start)

    def _listen(self, index: int, read: Residual, written: Residual) -> Residual:
        weights = self.point_weights[:, None, None, None]

        def receive(gradient: Tensor) -> None:
            by_point = working(gradient.detach()).unflatten(0, (len(self.points), -1))
            self.totals[index].add_((by_point * weights).sum(0))

        if self.open:
            written.register_hook(receive)
        return written


def _along_own_ways(
    runs: BatchScorer,
    dictionaries: Sequence[Dictionary],
    method: EAPIGActivations,
    means: MeanParts | None,
    totals: list[Tensor],
) -> None:
    seen: dict[int, tuple[Residual, Residual]] = {}

    def see(index: int, one: Seen) -> None:
        seen[index] = one.written, one.change()

    runs.prepare()
    observer = Observer(runs, dictionaries, means, see)
    observer.run()
    entering, rule = observer.entering, quadrature_rule(method.steps, str(method.quadrature))
    copies = runs.scorer.plan.copies
    for index, one in enumerate(dictionaries):
        written, change = seen[index]
        for first in range(0, len(rule), copies):
            points = rule[first : first + copies]
            outputs = torch.cat([written - (1 - alpha) * change for alpha, _ in points]).requires_grad_()
            with torch.enable_grad():
                x = run_from(runs.frame, one, outputs.to(runs.embedding.dtype), entering, runs.scorer.plan.checkpointed)
                (gradient,) = torch.autograd.grad(runs.value(x, len(points)), outputs)
            for part, (_, weight) in zip(gradient.unflatten(0, (len(points), -1)), points, strict=True):
                totals[index].add_(weight * part)

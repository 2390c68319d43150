"""AtP*: attribution patching with the attention pattern recomputed, and with gradients that do not cancel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.gradient import GradientMethod
from attribution.edges.method import Passes
from attribution.exact import exact_scores
from attribution.gradients import BatchScorer, GradientScorer, PointRecorder
from attribution.paths import Path, Point, clean_path
from attribution.pattern_changes import AttentionRead, query_and_key_scores
from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.batching import Batch, Plan
from interp.kernels.capture import TargetGradients
from interp.kernels.forward import Residual
from interp.kernels.frame import PerHead, PerPort
from interp.selection import top_n
from interp.setting import Setting
from interp.spans import Placed


@dataclass(frozen=True)
class AtPStar(GradientMethod):
    """Attribution patching that sees through saturated softmaxes (Kramar et al. 2024, arXiv:2403.00745).

    Edges into queries and keys: sum over keys j of (p_j - p'_j) g_j, with g the gradient at the pattern and p' the
    pattern recomputed with that edge's own change: of all queries, each of which moves its own row; of the keys one
    position at a time. All other edges are scored as by `eap`.

    With `grad_drop` the gradient is taken once more for each layer, with what that layer adds to the residual stream
    detached, so that two ways that cancel are seen apart: the score is the mean over prompts of the mean |c| over all
    layers but the target's own, with the sign of the score without it. An edge into the logits, which no layer lies
    behind, scores the mean over prompts of |c|. L + 1 passes for each prompt, one prompt at a time.

    With `verify` the edges that score highest by size get their exact score instead (`exact`): the paper's second step.
    Exact scores and estimates are then in one list, on one scale.

    Attributes:
        level: as for every gradient method; nodes cannot be verified.
        grad_drop: whether ways that cancel are looked at apart.
        verify: how many edges are patched really.
    """

    grad_drop: bool = False
    verify: int = 0

    name = "atp-star"
    by_position: ClassVar[bool] = False  # a key that changes moves whole rows of the pattern
    paper: ClassVar[str] = "Kramar et al. 2024, arXiv:2403.00745"
    formula: ClassVar[tuple[str, str]] = ("2", "1")

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers.settle(self, verify=numbers.Limits(0, advice="so many edges are patched really"))
        if self.rules is not None:
            raise InputError(
                f"method={self.name!r} with rules={self.rules!r}: it is defined for the plain gradient; use "
                "method='eap' with these rules"
            )
        if self.positions is not None:
            raise InputError(
                f"method={self.name!r} scores edges at all positions at once; leave positions out, or use method='eap' "
                "or 'eap-ig'"
            )
        if self.verify and self.level == "node":
            raise InputError(f"verify={self.verify} with level='node': edges are verified; leave out level, or verify")

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if self.grad_drop and setting.graph.n_layers < 2:
            raise InputError("grad_drop=True detaches one layer of several; this model has one: leave grad_drop out")

    def passes(self, graph: ComputationalGraph) -> Passes:
        runs = graph.n_layers + 1 if self.grad_drop else 1
        return Passes(runs + 1 + self.verify / 2, runs)

    def path(self, n_layers: int) -> Path:
        return clean_path()

    def scorer(self, setting: Setting, path: Path, planned: Plan, placed: Placed | None) -> GradientScorer:
        if self.grad_drop:  # |c| is taken prompt by prompt
            return _Dropped(setting, path, replace(planned, batch_size=1), products=self.products)
        return _Recomputed(setting, path, planned, products=self.products)

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        values = self.values(setting)
        if not self.verify:
            return values, {}
        graph = setting.graph
        best = top_n(values.abs(), graph, min(self.verify, graph.n_edges), pruned=False)
        with setting.run.progress("verifying edges", int(best.sum()) * len(setting)) as bar:
            exact = exact_scores(setting, best, None, {}, bar.advance)
        return torch.where(best, exact.to(values.dtype), values), {"verified": int(best.sum())}


class _Recomputed(GradientScorer):
    """The scores of the clean run."""

    def scores(self, advance: Callable[[int], None] = lambda n: None) -> Float[Tensor, "1 source target"]:
        return self.mean(lambda batch: _Runs(self, batch).of((None,)), advance)


class _Dropped(GradientScorer):
    """The mean over layers of what is left without each."""

    def scores(self, advance: Callable[[int], None] = lambda n: None) -> Float[Tensor, "1 source target"]:
        graph = self.setting.graph
        layers = torch.full((graph.shape[1],), graph.n_layers - 1.0, dtype=torch.float64, device="cpu")
        layers[-1] = graph.n_layers

        def summed(batch: Batch) -> Float[Tensor, "part source target"]:
            plain, *dropped = _Runs(self, batch).of((None, *range(graph.n_layers)))
            return torch.stack((plain, torch.stack(dropped).abs().sum(0)))

        plain, sizes = self.mean(summed, advance)
        signed: Tensor = plain.sign() * sizes / layers.to(sizes.dtype)
        return signed[None]


class _Runs(BatchScorer):
    """Runs of one batch, each with one layer's output detached, or none."""

    def of(self, dropped: tuple[int | None, ...]) -> Float[Tensor, "run source target"]:
        """Scores of each run, summed over the batch's prompts."""
        self.prepare()
        (point,) = self.scorer.path.groups[0]
        found, added, reads = [], [], list[AttentionRead]()
        for layer in dropped:
            gradients = TargetGradients()
            recorder = _Recorder(self, point, gradients, layer)
            self.differentiate([point], recorder)
            recorder.keep_endpoints()
            found.append(self.contracted(gradients)[0])
            added.append(torch.stack(recorder.added))
            reads = reads or recorder.reads
        scores = torch.stack(found)
        graph = self.scorer.setting.graph
        finite = query_and_key_scores(self, reads, torch.stack(added))
        for layer in range(graph.n_layers):
            start = graph.attention_targets(layer).start
            columns = slice(start, start + graph.n_heads + graph.n_ports)
            scores[:, :, columns] = finite[:, :, columns]
        return scores


class _Recorder(PointRecorder):
    """Keeps what attention reads and the gradient at what it adds; detaches one layer."""

    def __init__(self, owner: BatchScorer, point: Point, gradients: TargetGradients, dropped: int | None) -> None:
        super().__init__(owner, [point], gradients)
        self.dropped = dropped
        self.reads: list[AttentionRead] = []
        self.added: list[Tensor] = []

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        if self.open:
            self.reads.append(AttentionRead(self.entering, *(part.detach() for part in (q, k, v))))
        return super().projections(layer, q, k, v)

    def attention_input(self, layer: int, x: Residual) -> None:
        super().attention_input(layer, x)
        self.entering = x.detach()

    def attention_output(self, layer: int, added: Residual) -> Residual:
        out = super().attention_output(layer, added)
        if self.open:
            self.added.append(torch.zeros_like(out, requires_grad=False))
            if layer != self.dropped:
                out.register_hook(functools.partial(_keep, self.added[layer]))
        return out.detach() if layer == self.dropped else out

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        out = super().mlp_output(layer, m)
        return out.detach() if layer == self.dropped else out


def _keep(into: Tensor, gradient: Tensor) -> None:
    into.copy_(gradient)

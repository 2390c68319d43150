"""Edge scores from gradients: one loop for every path, objective and ablation.

    score(u, t) = mean over prompts of  sum over positions of (a_u clean - a_u corrupted) . dM/dx_t

with dM/dx_t averaged over the points of a path (`attribution.paths`), as backward rules (`attribution.rules`) have
it where some are given. Cost: one forward and one backward pass
per point, and one forward pass each for the clean and the corrupted run where no point visits it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.over_prompts import mean_over_prompts
from attribution.paths import Path, Point, Site
from interp.anatomy import Anatomy
from interp.arrays import as_tensor
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.ablation import record_sources
from interp.kernels.alignment import corrupted_embedding
from interp.kernels.answers import answer_logits_of
from interp.kernels.backward import PLAIN, Backward
from interp.kernels.batching import Batch, Plan, refuse_nan
from interp.kernels.capture import Rows, SourceRecorder, Sources, TargetGradients, TargetRecorder
from interp.kernels.contract import Products, contract, expand_heads
from interp.kernels.forward import (
    Recorder,
    Residual,
    answer_rows,
    run_blocks,
    unembed,
)
from interp.kernels.frame import Frame, PerHead
from interp.setting import Setting
from interp.spans import Placed, segments

# points whose rank-one parts are kept before they are contracted: bounds memory on long paths
_POINTS_KEPT = 16


@dataclass(frozen=True)
class GradientScorer:
    """Everything that is the same for all batches."""

    setting: Setting
    path: Path
    plan: Plan
    backward: Backward = PLAIN
    placed: Placed | None = None
    products: Products = "float32"

    def scores(self, advance: Callable[[int], None] = lambda n: None) -> Float[Tensor, "span source target"]:
        """Mean over prompts; float32, or float64 for a float64 model; on the CPU. One span where none are told apart.

        `advance` is called with the number of prompts done. Raises `InputError` where the objective is NaN.
        """
        return self.mean(lambda batch: BatchScorer(self, batch).scores(), advance)

    def mean(self, summed: Callable[[Batch], Tensor], advance: Callable[[int], None]) -> Tensor:
        """The mean over prompts of what `summed` adds up over those of a batch; all else as for `scores`."""
        skip = self.setting.skip_prefix
        return mean_over_prompts(self.setting, self.plan.batch_size, summed, advance, skip_prefix=skip)


class BatchScorer:
    """Scores of one batch, summed over its prompts."""

    def __init__(self, scorer: GradientScorer, batch: Batch) -> None:
        self.scorer, self.batch, self.anatomy = scorer, batch, scorer.setting.anatomy
        with torch.no_grad():
            self.frame: Frame = replace(batch.frame(self.anatomy), backward=scorer.backward)
            self.rows, self.counts = self._rows()
            self.embedding = self._embed(batch.prompts.clean)
        self.clean: Sources | None = None
        self.corrupted: Sources | None = None
        self.difference: Sources | None = None
        self.clean_logits: Tensor | None = None
        self.corrupted_embedding: Residual | None = None

    def _rows(self) -> tuple[Rows, list[int] | None]:
        """The rows that matter, span by span, and how many each span has; None where all are of one."""
        rows, placed = self.batch.rows(), self.scorer.placed
        if placed is None:
            return rows, None
        spans = placed.rows(self.batch.indices, self.batch.start, self.batch.prompts.clean.shape[1])
        order, counts = segments(spans.where.to(rows.device)[rows], spans.count)
        return rows[order], counts[:-1]

    def _embed(self, tokens: Tensor) -> Residual:
        return self.anatomy.embed(tokens[:, self.batch.start :], self.frame.positions)

    def prepare(self) -> None:
        """Run what the path's points start from and are compared with."""
        path, prompts = self.scorer.path, self.batch.prompts
        if self.scorer.setting.goal.needs_clean and not path.only_clean:
            self.clean_logits = answer_logits_of(self.anatomy, prompts)
        if not path.only_clean:
            self.corrupted_embedding = self.embed_corrupted()

    def scores(self) -> Tensor:
        """Of all edges."""
        self.prepare()
        if self.scorer.path.credit == "own":
            return self._credit_own()
        total: Tensor | float = 0.0
        gradients = TargetGradients()
        for points in self.stacks([p for group in self.scorer.path.groups for p in group]):
            self._capture(points, gradients)
            if gradients.points >= _POINTS_KEPT:
                total = total + self.contracted(gradients)
                gradients = TargetGradients()
        return total + self.contracted(gradients) if gradients.points else as_tensor(total)

    def _credit_own(self) -> Tensor:
        total: Tensor | float = 0.0
        for group in self.scorer.path.groups:
            gradients = TargetGradients()
            for points in self.stacks(list(group)):
                self._capture(points, gradients)
            total = total + self.contracted(gradients, group[0].site)
        return as_tensor(total)

    def stacks(self, points: list[Point]) -> Iterator[list[Point]]:
        """The points that are run at once."""
        copies = self.scorer.plan.copies
        for first in range(0, len(points), copies):
            yield points[first : first + copies]

    @torch.no_grad()
    def embed_corrupted(self) -> Residual:
        """What tokens are embedded as where they are corrupted."""
        if self.scorer.setting.ablation == "patch":
            return corrupted_embedding(self.anatomy, self.batch, self.frame)
        return self.scatter(self.corrupted_sources().embedding).to(self.embedding.dtype)

    def scatter(self, values: Float[Tensor, "row d_model"]) -> Residual:
        """Rows back to [batch, pos, d_model], zero elsewhere."""
        flat = values.new_zeros(self.embedding.shape[:2].numel(), values.shape[-1])
        flat[self.rows] = values
        return flat.view(*self.embedding.shape[:2], -1)

    def corrupted_sources(self) -> Sources:
        """Outputs of corrupted sources: what a point of the path recorded, or else a run of their own."""
        if self.corrupted is None:
            self.corrupted = self.scorer.setting.ablator.sources(self.batch, self.frame, self.rows)
        return self.corrupted

    @torch.no_grad()
    def delta(self) -> Sources:
        """Clean less corrupted outputs of all sources."""
        if self.difference is None:
            if self.clean is None:
                self.clean = record_sources(self.frame, self.embedding, self.rows)
            self.difference = self.clean.minus(self.corrupted_sources())
        return self.difference

    @torch.no_grad()
    def contracted(self, gradients: TargetGradients, site: Site | None = None) -> Tensor:
        """Scores of all edges, or of a site's, from gradients at all targets."""
        only = None if site is None else site_sources(self.scorer.setting.graph, site)
        graph, products = self.scorer.setting.graph, self.scorer.products
        return contract(self.anatomy, graph, self.delta(), gradients, only, self.counts, products)

    def _capture(self, points: list[Point], gradients: TargetGradients) -> None:
        recorder = PointRecorder(self, points, gradients)
        self.differentiate(points, recorder)
        recorder.keep_endpoints()

    def differentiate(self, points: list[Point], recorder: PathRecorder) -> None:
        """One forward and one backward pass over stacked points."""
        start = torch.cat([self._start(point) for point in points]).detach().requires_grad_()
        recorder.begin(start)
        with torch.enable_grad():
            x = run_blocks(self.frame, start, recorder, checkpointed=self.scorer.plan.checkpointed)
            recorder.final(x)
            recorder.open = False
            torch.autograd.grad(self.value(x, len(points)), start)

    def value(self, x: Residual, copies: int) -> Tensor:
        """The objective of the last residual stream of stacked copies, summed over these and prompts."""
        logits = unembed(self.anatomy, answer_rows(x, self.frame, self.batch.prompts), self.frame.backward)
        return self._objective(logits.unflatten(0, (copies, -1)))

    def _start(self, point: Point) -> Residual:
        if point.site.kind != "input" or point.alpha == 1:
            return self.embedding
        assert self.corrupted_embedding is not None
        return self.corrupted_embedding + point.alpha * (self.embedding - self.corrupted_embedding)

    def _objective(self, logits: Float[Tensor, "point batch d_vocab"]) -> Tensor:
        prompts, objective = self.batch.prompts, self.scorer.setting.goal
        clean = logits[0].detach() if self.scorer.path.only_clean else self.clean_logits
        values = torch.stack([objective(one, prompts, clean) for one in logits])
        refuse_nan(values, objective.name, self.batch)
        if not values.requires_grad:
            raise InputError(
                f"objective={objective.name!r} has no gradient in the logits; is something detached in it?"
            )
        return values.sum()


class PathRecorder(Recorder):
    """Sets the sites of stacked points; sub-classes listen to the gradients."""

    def __init__(self, owner: BatchScorer, points: list[Point]) -> None:
        self.owner, self.points = owner, points
        self.open = True  # checkpointing runs blocks again: only the first run is recorded

    @functools.cached_property
    def point_weights(self) -> Float[Tensor, " point"]:
        """The points' weights in the path."""
        dtype = torch.float64 if self.owner.anatomy.dtype == torch.float64 else torch.float32
        return torch.tensor([p.weight for p in self.points], dtype=dtype, device=self.owner.embedding.device)

    def begin(self, start: Residual) -> None:
        """The embedding that the run starts from."""

    def final(self, x: Residual) -> None:
        """The last residual stream, which only the unembedding reads."""

    def attention_output(self, layer: int, added: Residual) -> Residual:
        return self._set(Site("heads", layer), added)

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        return self._set(Site("mlp", layer), m)

    def _set(self, site: Site, output: Residual) -> Residual:
        """Interpolate the output of the points whose site this is; upstream of it no gradient flows."""
        here = [point.site == site for point in self.points]
        if not any(here):
            return output
        owner = self.owner
        change = site_difference(owner.anatomy, owner.delta(), site)
        shift = owner.scatter(change).to(output.dtype)
        parts = output.unflatten(0, (len(here), -1)).unbind()
        return torch.cat(
            [
                part.detach() - (1 - point.alpha) * shift if chosen else part
                for part, point, chosen in zip(parts, self.points, here, strict=True)
            ]
        )


class PointRecorder(PathRecorder, TargetRecorder):
    """Records targets of stacked points, and sources at the ends of the path."""

    def __init__(self, owner: BatchScorer, points: list[Point], gradients: TargetGradients) -> None:
        PathRecorder.__init__(self, owner, points)
        graph, rules = owner.scorer.setting.graph, owner.frame.backward
        TargetRecorder.__init__(self, owner.anatomy, graph, owner.rows, self.point_weights, gradients, rules)

    def begin(self, start: Residual) -> None:
        # of unequal lengths, a run from corrupted embeddings at the clean ones' positions is not the corrupted run
        equal = self.owner.batch.prompts.corrupted_lengths is None
        patch = equal and self.owner.scorer.setting.ablation == "patch"
        self.ends = {
            p.alpha: SourceRecorder(start, self.rows, i, len(self.points))
            for i, p in enumerate(self.points)
            if p.site.kind == "input" and (p.alpha == 1 or (p.alpha == 0 and patch))
        }

    def final(self, x: Residual) -> None:
        TargetRecorder.final(self, x)

    def keep_endpoints(self) -> None:
        if 1.0 in self.ends and self.owner.clean is None:
            self.owner.clean = self.ends[1.0].sources
        if 0.0 in self.ends and self.owner.corrupted is None:
            self.owner.corrupted = self.ends[0.0].sources

    def heads(self, layer: int, z: PerHead) -> None:
        if self.open:
            for end in self.ends.values():
                end.heads(layer, z)

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        if self.open:
            for end in self.ends.values():
                end.mlp_output(layer, m)
        return super().mlp_output(layer, m)


def site_sources(graph: ComputationalGraph, site: Site) -> slice:
    """The sources of a site, as a slice of `graph.sources`."""
    if site.kind == "input":
        return slice(0, 1)
    if site.kind == "heads":
        return graph.head_sources(site.layer)
    return slice(graph.mlp_source(site.layer), graph.mlp_source(site.layer) + 1)


def site_difference(anatomy: Anatomy, delta: Sources, site: Site) -> Float[Tensor, "row d_model"]:
    """Clean less corrupted output of a whole sub-layer."""
    if site.kind == "mlp":
        return delta.mlps[site.layer]
    return expand_heads(delta.heads[site.layer], anatomy.head_weights(site.layer)).sum(0)

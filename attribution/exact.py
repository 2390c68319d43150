"""The `exact` and `activation-patching` methods: patching over all batches, interruptible and resumable."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.patching import Patcher
from interp import ranks
from interp.errors import InputError
from interp.kernels.batching import budget_of, bytes_per_position, own_batches
from interp.resumed import Resumed
from interp.setting import Setting
from interp.spans import Placed


def exact_scores(
    setting: Setting,
    edges: Bool[Tensor, "source target"] | None,
    resume: str | os.PathLike[str] | None,
    fingerprint: dict[str, Any],
    advance: Callable[[int], None] = lambda n: None,
    placed: Placed | None = None,
) -> Tensor:
    """Mean scores of the edges in a mask ([source, target]), or with `edges=None` of all nodes ([source]).

    With `placed` those of each edge at each span, [span, source, target].

    `resume` names a file that holds what is done so far: an interrupted run that is started again with the same
    file goes on where it stopped; `fingerprint` says what it is a run of. `advance` is called with the number of
    edges (nodes) x prompts done.
    """
    if resume is not None and ranks.count() > 1:
        raise InputError(
            f"resume={str(resume)!r} keeps the work of one process; leave it out with {ranks.count()} ranks"
        )
    told = ranks.for_all(advance)
    anatomy, graph, ablator = setting.anatomy, setting.graph, setting.ablator
    size, stacked = patching_sizes(setting)
    batches = list(own_batches(setting.prompts, size, anatomy.device, skip_prefix=ablator.skip_prefix))
    n_targets = 1 if edges is None else graph.shape[1]
    whole = {**fingerprint, "size": size, "weights": anatomy.weights_digest()}
    shape = (() if placed is None else (len(placed.spans),)) + (len(graph.sources), n_targets)
    progress = _Progress(resume, shape, len(batches), whole)
    with ranks.together():
        try:
            for number, batch in enumerate(batches):
                patcher: Patcher | None = None
                width = batch.prompts.clean.shape[1]
                spans = None if placed is None else placed.rows(batch.indices, batch.start, width)
                for target in range(n_targets):
                    sources = _sources_of(edges, target, len(graph.sources))
                    if sources and not progress.has(number, target):
                        patcher = patcher or Patcher(anatomy, graph, ablator, setting.goal, batch, stacked)
                        values = patcher.nodes(sources) if edges is None else patcher.edges_into(target, sources, spans)
                        progress.add(number, target, sources, values)
                    told(len(sources) * len(batch))
        finally:
            progress.file.save()
    scores = ranks.total(progress.totals)
    wide = torch.float64 if anatomy.dtype == torch.float64 else torch.float32
    scores = (scores / len(setting)).to(wide)
    return scores[:, 0] if edges is None else scores


def _sources_of(edges: Tensor | None, target: int, n_sources: int) -> list[int]:
    if edges is None:
        return list(range(n_sources))
    return edges[:, target].nonzero()[:, 0].tolist()


def patching_sizes(setting: Setting) -> tuple[int, int]:
    """Prompts per batch and patched copies per pass, within the budget."""
    anatomy, graph, run = setting.anatomy, setting.graph, setting.run
    budget, positions = budget_of(anatomy.device, run.memory), setting.prompts.longest
    held = (4 * len(graph.sources) + 8 * anatomy.n_layers) * anatomy.d_model * anatomy.parameter().element_size()
    per_copy = positions * bytes_per_position(anatomy, gradient=False)
    size = run.batch_size or max(1, min(len(setting), budget // 2 // (positions * held)))
    return size, max(1, min(64, budget // 2 // (per_copy * size)))


class _Progress:
    """Sums so far, and which parts of the work are in them."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        shape: tuple[int, ...],
        n_batches: int,
        fingerprint: dict[str, Any],
    ) -> None:
        totals: Float[Tensor, "*span source target"] = torch.zeros(shape, dtype=torch.float64, device="cpu")
        done: Bool[Tensor, "batch target"] = torch.zeros(n_batches, shape[-1], dtype=torch.bool, device="cpu")
        self.file = Resumed(path, {"totals": totals, "done": done}, fingerprint)

    @property
    def totals(self) -> Float[Tensor, "*span source target"]:
        """Scores so far, summed over the prompts that are done."""
        return self.file.state["totals"]

    def has(self, number: int, target: int) -> bool:
        """Whether this batch's scores of a target are in the sums."""
        return bool(self.file.state["done"][number, target])

    def add(self, number: int, target: int, sources: list[int], values: Tensor) -> None:
        """Add a batch's scores of a target."""
        totals, done = self.totals.clone(), self.file.state["done"].clone()
        totals[..., sources, target] += values
        done[number, target] = True
        self.file.put(totals=totals, done=done)

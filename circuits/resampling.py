"""Scores on bootstrap resamples of the prompts, and the edges that most of them select."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.engines import attribute
from attribution.scores import Scores
from interp import numbers
from interp.errors import InputError
from interp.selection import prune
from interp.tasks.task import Task
from metrics.statistics import resample

Mask = Bool[Tensor, "source target"]
Select = Callable[[Float[Tensor, "source target"]], Mask]


@dataclass(frozen=True, eq=False)
class ResampledScores:
    """Scores on all prompts, and on bootstrap resamples of them.

    Attributes:
        scores: on all prompts.
        parts: scores on chunks of the prompts, [chunk, source, target]; the resamples themselves, for methods whose
            scores are no means over prompts.
        weights: [resample, chunk]: how much of each chunk a resample holds.
        sizes: prompts in each chunk; None where the parts are no chunks.
    """

    scores: Scores
    parts: Float[Tensor, "chunk source target"]
    weights: Float[Tensor, "resample chunk"]
    sizes: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.weights)

    def values(self, number: int) -> Float[Tensor, "source target"]:
        """Scores on one of the resamples."""
        return self._mixed(self.weights[number])

    def halves(self, seed: int) -> tuple[Tensor, Tensor] | None:
        """Scores on a random half of the chunks, and on the other half; None where there are no chunks."""
        if self.sizes is None:
            return None
        order = np.random.default_rng(seed).permutation(len(self.sizes))
        first = torch.tensor(self.sizes, dtype=self.weights.dtype, device="cpu")
        second = first.clone()
        first[order[len(order) // 2 :].tolist()] = 0
        second[order[: len(order) // 2].tolist()] = 0
        return self._mixed(first / first.sum()), self._mixed(second / second.sum())

    def _mixed(self, weights: Float[Tensor, " chunk"]) -> Float[Tensor, "source target"]:
        return torch.einsum("c,cst->st", weights.to(self.parts.dtype), self.parts)


@numbers.checked(resamples=numbers.Limits(2, advice="20 is usual"), chunks=numbers.Limits(4))
def resampled_scores(
    model: Any, task: Task, method: str, *, resamples: int, chunks: int, seed: int, **settings: Any
) -> ResampledScores:
    """Score chunks of the prompts once, and resample their means.

    Every method's scores are means over prompts, so the scores of a resample are a weighted mean of those of its
    chunks: all resamples together cost as much as scoring all prompts once (in smaller batches). Not so for `mean`
    ablations, whose mean is taken over the prompts: there each resample is scored anew.
    """
    if settings.get("resume") is not None:
        raise InputError("resume keeps the scores of one run; resampling makes several: drop it")
    if len(task) < 4:
        raise InputError(f"task={task.name!r} has {len(task)} prompts; resampling needs at least 4")
    drawn = resample(min(chunks, len(task)), resamples, seed)
    if str(settings.get("ablation", "patch")).startswith("mean"):
        whole = attribute(model, task, method, **settings)
        again = [task.select(one) for one in resample(len(task), resamples, seed)]
        parts = torch.stack([attribute(model, one, method, **settings).values for one in again])
        return ResampledScores(whole, parts, torch.eye(resamples, dtype=torch.float32, device="cpu"), None)
    groups = np.array_split(np.random.default_rng(seed).permutation(len(task)), min(chunks, len(task)))
    scored = [attribute(model, task.select(group), method, **settings) for group in groups]
    sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64, device="cpu")
    counts = (
        torch.stack([torch.bincount(torch.tensor(one, device="cpu"), minlength=len(groups)) for one in drawn]) * sizes
    )
    parts = torch.stack([one.values for one in scored])
    mean = torch.einsum("c,cst->st", sizes / sizes.sum(), parts.double()).to(parts.dtype)
    whole = replace(
        scored[0],
        values=mean,
        task=task.to_dict(),
        n_prompts=len(task),
        seconds=sum(one.seconds or 0 for one in scored),
    )
    return ResampledScores(whole, parts, counts / counts.sum(1, keepdim=True), tuple(len(group) for group in groups))


def selection_frequency(resampled: ResampledScores, select: Select) -> Float[Tensor, "source target"]:
    """In which share of the resamples each edge is selected."""
    total = torch.zeros(resampled.scores.graph.shape, dtype=torch.float32, device="cpu")
    for number in range(len(resampled)):
        total += select(resampled.values(number))
    return total / len(resampled)


def stable_mask(resampled: ResampledScores, select: Select, share: float) -> Mask:
    """The edges that at least a share of the resamples select, pruned."""
    return prune(selection_frequency(resampled, select) >= share - 1e-6, resampled.scores.graph)

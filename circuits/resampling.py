"""Scores on bootstrap resamples of the prompts, and the edges or nodes that most of them select."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.method import Method
from attribution.scores import Scores
from circuits.levels import scored
from interp import numbers
from interp.errors import InputError
from interp.node_mask import with_input
from interp.selection import prune
from metrics.circuit.elements import Elements, SpanElements
from metrics.statistics import resample

CHUNKS = 16  # of the prompts, that resamples draw from


@dataclass(frozen=True)
class Stable:
    """Which edges (nodes) of a circuit survive resampling: those that at least a share of resamples select.

    Attributes:
        share: of the resamples of the prompts, above 0 and up to 1.
        resamples: how many, at least 2.
    """

    share: float = 0.75
    resamples: int = 20

    def __post_init__(self) -> None:
        numbers.settle(self, share=numbers.SHARE, resamples=numbers.Limits(2, advice="20 is usual"))


@dataclass(frozen=True, eq=False)
class ResampledScores:
    """Scores on all prompts, and on bootstrap resamples of them.

    Attributes:
        scores: on all prompts.
        parts: scores on chunks of the prompts, `[chunk, source, target]` or of nodes `[chunk, *axes]`; the resamples
            themselves, for methods whose scores are no means over prompts.
        weights: [resample, chunk]: how much of each chunk a resample holds.
        sizes: prompts in each chunk; None where the parts are no chunks.
    """

    scores: Scores
    parts: Float[Tensor, "chunk ..."]
    weights: Float[Tensor, "resample chunk"]
    sizes: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.weights)

    def values(self, number: int) -> Float[Tensor, "*axes"]:
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

    def _mixed(self, weights: Float[Tensor, " chunk"]) -> Float[Tensor, "*axes"]:
        return torch.einsum("c,c...->...", weights.to(self.parts.dtype), self.parts)


@numbers.checked(resamples=numbers.Limits(2, advice="20 is usual"), chunks=numbers.Limits(4))
def resampled_scores(
    elements: Elements, method: Method, *, resamples: int, seed: int, chunks: int = CHUNKS
) -> ResampledScores:
    """Score chunks of a setting's prompts once, edges or nodes, and resample their means.

    Every method's scores are means over prompts, so the scores of a resample are a weighted mean of those of its
    chunks: all resamples together cost as much as scoring all prompts once (in smaller batches). Not so for `mean`
    ablations, whose mean is taken over the prompts: there each resample is scored anew.
    """
    setting = elements.setting
    n = len(setting)
    if getattr(method, "resume", None) is not None:
        raise InputError("resume keeps the scores of one run; resampling makes several: drop it")
    if n < 4:
        raise InputError(f"task={setting.task.name!r} has {n} prompts; resampling needs at least 4")
    drawn = resample(min(chunks, n), resamples, seed)
    if str(setting.ablation).startswith("mean"):
        whole = scored(elements, method)
        again = [setting.select(one) for one in resample(n, resamples, seed)]
        parts = torch.stack([scored(elements.on(one), method).values for one in again])
        return ResampledScores(whole, parts, torch.eye(resamples, dtype=torch.float32, device="cpu"), None)
    groups = np.array_split(np.random.default_rng(seed).permutation(n), min(chunks, n))
    found = [scored(elements.on(setting.select(group)), method) for group in groups]
    sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64, device="cpu")
    times = [torch.bincount(torch.tensor(one, device="cpu"), minlength=len(groups)) for one in drawn]
    counts = torch.stack(times) * sizes
    parts = torch.stack([one.values for one in found])
    mean = torch.einsum("c,c...->...", sizes / sizes.sum(), parts.double()).to(parts.dtype)
    known = found[0].settings
    if isinstance(elements, SpanElements):  # what attention joins in all prompts, not in those of a chunk
        known = known | {"span_order": elements.among.order.to_dict()}
    whole = replace(
        found[0],
        settings=known,
        values=mean,
        task=setting.task.to_dict(),
        n_prompts=n,
        seconds=sum(one.seconds or 0 for one in found),
    )
    return ResampledScores(whole, parts, counts / counts.sum(1, keepdim=True), tuple(len(group) for group in groups))


def selection_frequency(resampled: ResampledScores, select: Callable[[Tensor], Tensor]) -> Float[Tensor, "*axes"]:
    """In which share of the resamples each edge (node) is selected."""
    total = torch.zeros(resampled.scores.values.shape, dtype=torch.float32, device="cpu")
    for number in range(len(resampled)):
        total += select(resampled.values(number))
    return total / len(resampled)


def steady(frequency: Float[Tensor, "*axes"], share: float, scores: Scores) -> Bool[Tensor, "*axes"]:
    """The edges, pruned, or the nodes that at least a share of the resamples of scores select."""
    often = frequency >= share - 1e-6
    if scores.level == "edge" and scores.spans is not None:
        among = scores.span_graph
        return among.mask(among.pruned(often.flatten().nonzero()[:, 0].numpy()))
    return prune(often, scores.graph) if scores.level == "edge" else with_input(often, scores.level)

"""Uniform gradient sampling: an edge's probability moves by the mean slope along its own weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.sampled import Gates, Sampled, SampledMask
from attribution.edges.start import falling
from attribution.scores import Scores
from interp import numbers
from interp.graph import ComputationalGraph
from interp.setting import Setting

_RATES = ((1e-4, 0.15), (5e-4, 0.1), (float("inf"), 0.05))  # up to a penalty
_STEPS = 3000  # of the paper; with fewer the rate is larger, so that gates reach as far
_FASTEST = 0.3
_FALLING = (2.0, 0.0)  # phi where it starts from scores: 1 in the mean, as without
_CLIP = 5.0  # the norm of the gradient
_DECIDED = 0.1  # from 0 or 1


@dataclass(frozen=True)
class UGS(SampledMask):
    """Uniform gradient sampling (Li and Janson 2024, arXiv:2409.09951).

        theta = sigmoid(phi),  w = theta (1 - theta),  mask = 1 - clip((u - theta) / w + 1/2, 0, 1),  u uniform
        L = KL(model || circuit) + lambda sum theta + min(lambda/2, 2e-4) sum over heads of tanh(2 E/H) H/2

    The slope at theta is the mean of dL/dmask over the masks in which the edge is partly in: an unbiased estimate of
    what the whole edge changes, since such masks are uniform between 0 and 1. E is the sum of theta over the edges into
    and out of a head, H the number of heads. phi starts at 1; AdamW with betas .9 and .995, rate .15 (lambda up to
    1e-4), .1 (up to 5e-4) or .05, a fifth of it under `patch`, for 3,000 steps; with fewer `steps` it is as many times
    larger, up to 0.3.

    Differences from the paper: the masks of a step are run on all its prompts, constants (`ablation="optimal"`) are
    those of the setting and do not move along, and edges that dangle are not taken out, since they change nothing.

    Attributes:
        penalty: lambda, what an edge costs, in nats of KL: more of it gives smaller circuits.
        start: edge scores, or the method that makes them: phi falls with the rank of |score| from 2 to 0; None: 1.
        steps, prompts, masks, seed: as for `SampledMask`.
    """

    prompts: int = 5
    masks: int = 12
    penalty: float = 1e-3

    name = "ugs"
    paper: ClassVar[str] = "Li and Janson 2024, arXiv:2409.09951"

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers.settle(self, penalty=numbers.POSITIVE)

    def gates(self, setting: Setting, generator: torch.Generator, start: Scores | None) -> Uniform:
        rate = next(rate for most, rate in _RATES if self.penalty <= most)
        rate *= (0.2 if setting.ablation == "patch" else 1.0) * max(1.0, _STEPS / self.steps)
        known = None if start is None else falling(start, *_FALLING)
        return Uniform(setting.graph, self.penalty, min(rate, _FASTEST), self.masks, known)


class Uniform(Gates):
    """The gates and their optimiser."""

    def __init__(
        self, graph: ComputationalGraph, penalty: float, rate: float, masks: int, phi: Tensor | None = None
    ) -> None:
        self.penalty, self.masks = penalty, masks
        start = torch.ones(graph.n_edges, dtype=torch.float64, device="cpu") if phi is None else phi
        self.phi = start.requires_grad_()
        self.of_head = _heads(graph)
        self.costs: list[float] = []
        with torch.device("cpu"):  # AdamW counts its steps on the default device
            self.optimiser = torch.optim.AdamW([self.phi], lr=rate, betas=(0.9, 0.995))

    def sample(self, step: int, generator: torch.Generator) -> Sampled:
        theta = torch.sigmoid(self.phi.detach())
        u = torch.rand(self.masks, len(theta), generator=generator, dtype=torch.float64, device="cpu")
        width = (theta * (1 - theta)).clamp(min=1e-12)
        self.drawn = 1 - ((u - theta) / width + 0.5).clamp(0, 1)
        return self.drawn

    def cost(self) -> Tensor:
        """What the edges cost, and the heads that they use."""
        theta, heads = torch.sigmoid(self.phi), self.of_head.shape[0]
        used = torch.tanh(2 * (self.of_head @ theta) / heads).sum() * heads / 2
        return self.penalty * theta.sum() + min(self.penalty / 2, 2e-4) * used

    def learn(self, step: int, slopes: Sampled) -> None:
        theta = torch.sigmoid(self.phi.detach())
        partly = (self.drawn > 0) & (self.drawn < 1)
        slope = torch.where(partly, slopes, 0.0).sum(0) / partly.sum(0).clamp(min=1)
        with torch.enable_grad(), torch.device("cpu"):
            self.optimiser.zero_grad()
            cost = self.cost()
            self.costs.append(float(cost.detach()))
            cost.backward()
            assert self.phi.grad is not None
            self.phi.grad += theta * (1 - theta) * slope
            torch.nn.utils.clip_grad_norm_([self.phi], _CLIP)
            self.optimiser.step()

    @torch.no_grad()
    def odds(self) -> Float[Tensor, " edge"]:
        return self.phi.exp()

    @torch.no_grad()
    def found(self, losses: list[float]) -> tuple[dict[str, Any], str]:
        theta = torch.sigmoid(self.phi)
        undecided = float(((theta > _DECIDED) & (theta < 1 - _DECIDED)).double().mean())
        told = {"edges_kept": int((theta > 0.5).sum()), "undecided": undecided, "costs": self.costs}
        return told, f"{undecided:.0%} of the edges are neither in nor out" if undecided > _DECIDED else ""


def _heads(graph: ComputationalGraph) -> Float[Tensor, "head edge"]:
    """1 where an edge enters or leaves a head."""
    source, target = graph.edge_mask.nonzero().unbind(1)
    read = torch.zeros(len(graph.targets), len(graph.sources), dtype=torch.float64, device="cpu")
    for number, nodes in enumerate(graph.target_sources):
        read[number, list(nodes)] = 1.0
    heads = [number for layer in range(graph.n_layers) for number in range(*graph.head_sources(layer).indices(10**9))]
    leaves = source[None] == torch.tensor(heads, device="cpu")[:, None]
    return (leaves + read[target][:, heads].T).double()

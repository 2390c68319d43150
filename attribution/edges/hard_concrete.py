"""Edge Pruning as its paper has it: hard-concrete gates that are sampled, and a size that is approached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.learned import size_of
from attribution.edges.sampled import Gates, Sampled, SampledMask
from attribution.edges.start import falling
from attribution.scores import Scores
from interp.setting import Setting

_BETA, _LOW, _HIGH = 2 / 3, -0.1, 1.1  # temperature, and how far gates reach beyond 0 and 1 before they are cut
_RATE = 0.8  # of gates and multipliers
_OPEN = 10.0  # log a of a gate that is open
_WARM, _RISING = 1 / 15, 5 / 6  # shares of the steps: the rate rises, the size asked for is approached


@dataclass(frozen=True)
class SampledEdgePruning(SampledMask):
    """Edge Pruning with sampled gates and a sparsity schedule (Bhaskar et al. 2024, arXiv:2406.16778).

        s = sigmoid((logit u + log a) / beta),  z = clip(1.2 s - 0.1, 0, 1),  beta = 2/3,  u uniform
        L = KL(model || circuit) + l1 (S - T) + l2 (S - T)^2

    S is the share of the drawn gates that is closed, 1 - mean z, as in the paper's code; T rises linearly from 0 to the
    share asked for over five sixths of the steps. AdamW moves log a down and l1 and l2 up the loss, at a rate that
    rises over a fifteenth of the steps and falls to 0 at their end. The paper takes 3,000 steps of 32 prompts, and
    warms the rate up over 200 of them; with fewer `steps` the same shares of them. Nodes have no gates of their own,
    and the gates of a step are the same for all its prompts.

    Attributes:
        edges: size to learn for: a number of edges, or a share of all edges between 0 and 1.
        start: edge scores, or the method that makes them: log a falls with the rank of |score| from 10 to 0; None:
            N(10, 0.01).
        steps, prompts, masks, seed: as for `SampledMask`.
    """

    steps: int = 1000
    edges: int | float = 0.01

    name = "edge-pruning-sampled"
    paper: ClassVar[str] = "Bhaskar et al. 2024, arXiv:2406.16778"

    def check(self, setting: Setting) -> None:
        super().check(setting)
        size_of(self.edges, setting.graph)

    def gates(self, setting: Setting, generator: torch.Generator, start: Scores | None) -> HardConcrete:
        if start is None:
            noise = torch.randn(setting.graph.n_edges, generator=generator, dtype=torch.float64, device="cpu")
            log_a = _OPEN + 0.01 * noise
        else:
            log_a = falling(start, _OPEN, 0.0)
        return HardConcrete(log_a, size_of(self.edges, setting.graph), self.steps, self.masks)


class HardConcrete(Gates):
    """The gates, their multipliers and the optimiser of both."""

    def __init__(self, log_a: Float[Tensor, " edge"], size: int, steps: int, masks: int) -> None:
        self.log_a, self.size, self.steps, self.masks = log_a.requires_grad_(), size, steps, masks
        self.multipliers = torch.zeros(2, dtype=torch.float64, device="cpu", requires_grad=True)
        with torch.device("cpu"):  # AdamW counts its steps on the default device
            groups: list[dict[str, Any]] = [{"params": [self.log_a]}, {"params": [self.multipliers], "maximize": True}]
            self.optimiser = torch.optim.AdamW(groups, lr=_RATE)

    def sample(self, step: int, generator: torch.Generator) -> Sampled:
        u = torch.rand(self.masks, len(self.log_a), generator=generator, dtype=torch.float64, device="cpu")
        with torch.enable_grad():
            s = torch.sigmoid((torch.logit(u, eps=1e-6) + self.log_a) / _BETA)
            self.drawn = ((_HIGH - _LOW) * s + _LOW).clamp(0, 1)
        return self.drawn

    def aim(self, step: int) -> float:
        """The share of closed gates that is asked for at a step."""
        return (1 - self.size / len(self.log_a)) * min(1.0, (step + 1) / max(1.0, _RISING * self.steps))

    def rate(self, step: int) -> float:
        """The learning rate at a step: it rises to its most, and falls to 0 at the end."""
        warm = max(1.0, _WARM * self.steps)
        return _RATE * min((step + 1) / warm, (self.steps - step) / max(1.0, self.steps - warm), 1.0)

    def learn(self, step: int, slopes: Sampled) -> None:
        with torch.enable_grad(), torch.device("cpu"):
            excess = 1 - self.drawn.mean() - self.aim(step)
            penalty = self.multipliers[0] * excess + self.multipliers[1] * excess**2
            self.optimiser.zero_grad()
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate(step)
            ((self.drawn * slopes).sum() / self.masks + penalty).backward()
            self.optimiser.step()

    @torch.no_grad()
    def odds(self) -> Float[Tensor, " edge"]:
        return self.log_a.exp()

    @torch.no_grad()
    def found(self, losses: list[float]) -> tuple[dict[str, Any], str]:
        kept = float(((_HIGH - _LOW) * torch.sigmoid(self.log_a) + _LOW).clamp(0, 1).sum())
        told = {"edges": self.size, "edges_kept": round(kept), "multipliers": self.multipliers.tolist()}
        wrong = abs(kept - self.size) > max(1.0, 0.1 * self.size)
        return told, f"the gates add up to {kept:.1f} edges, and {self.size} were asked for" if wrong else ""

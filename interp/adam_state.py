"""What a training by Adam that may be interrupted hangs on: weights, and what the optimiser knows of each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class AdamState:
    """Named weights and the optimiser that trains them, `Adam` or `AdamW`, which has made no step yet."""

    def __init__(self, optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> None:
        self.optimizer, self.weights = optimizer, weights
        for one in weights.values():  # as Adam's own first step makes it
            count = torch.zeros((), dtype=torch.float32, device="cpu")
            optimizer.state[one] = {
                "step": count, "exp_avg": torch.zeros_like(one), "exp_avg_sq": torch.zeros_like(one)
            }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name; copies."""
        held: dict[str, Tensor] = {}
        for name, one in self.weights.items():
            held[name] = one.detach()
            held |= {f"{name} {key}": value for key, value in self.optimizer.state[one].items()}
        return {name: one.clone() for name, one in held.items()}

    @torch.no_grad()
    def take(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        for name, one in self.weights.items():
            one.copy_(state[name])
            for key, value in self.optimizer.state[one].items():
                value.copy_(state[f"{name} {key}"])

"""What a linear explanation is fitted to: a network's logits, or its decisions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

RIDGE = 1e-4  # of decisions, which few concepts may separate: without it weights would grow for ever


class Target(ABC):
    """A smooth convex loss of scores [n, class]; the mean over images."""

    curvature: ClassVar[float]  # no second derivative in the scores is larger

    @abstractmethod
    def value(self, scores: Float[Tensor, "n class"]) -> float:
        """The loss."""

    @abstractmethod
    def slope(self, scores: Float[Tensor, "n class"]) -> Float[Tensor, "n class"]:
        """n times its gradient in the scores."""

    @abstractmethod
    def best(
        self, columns: Float[Tensor, "n column"], start: Float[Tensor, "column class"] | None = None
    ) -> Float[Tensor, "column class"]:
        """Weights of columns with the least loss. The last column is one of ones."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many classes there are."""


@dataclass(frozen=True)
class Logits(Target):
    """Half the squared error of the logits, summed over classes."""

    logits: Float[Tensor, "n class"]
    curvature = 1.0

    def value(self, scores: Float[Tensor, "n class"]) -> float:
        return float((scores - self.logits).pow(2).sum(1).mean()) / 2

    def slope(self, scores: Float[Tensor, "n class"]) -> Float[Tensor, "n class"]:
        return scores - self.logits

    def best(
        self, columns: Float[Tensor, "n column"], start: Float[Tensor, "column class"] | None = None
    ) -> Float[Tensor, "column class"]:
        found: Tensor = torch.linalg.lstsq(columns, self.logits, driver="gelsd").solution
        return found

    @property
    def classes(self) -> int:
        return self.logits.shape[1]


@dataclass(frozen=True)
class Decisions(Target):
    """Cross-entropy of the network's most likely class, under the softmax of the scores."""

    decisions: Int[Tensor, " n"]
    n_classes: int
    curvature = 0.5  # of a softmax: Boehning 1992

    def value(self, scores: Float[Tensor, "n class"]) -> float:
        return float(torch.nn.functional.cross_entropy(scores, self.decisions))

    def slope(self, scores: Float[Tensor, "n class"]) -> Float[Tensor, "n class"]:
        found = scores.softmax(1)
        found[torch.arange(len(found), device="cpu"), self.decisions] -= 1
        return found

    def best(
        self, columns: Float[Tensor, "n column"], start: Float[Tensor, "column class"] | None = None
    ) -> Float[Tensor, "column class"]:
        shape = columns.shape[1], self.n_classes
        begin = np.zeros(shape) if start is None else start.numpy()

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = torch.from_numpy(flat.reshape(shape))
            scores = columns @ weights
            ridge = RIDGE * weights
            ridge[-1] = 0  # the intercept
            gradient = columns.T @ self.slope(scores) / len(columns) + ridge
            return self.value(scores) + float((ridge * weights).sum()) / 2, gradient.numpy().ravel()

        found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-6})
        return torch.from_numpy(found.x.reshape(shape))

    @property
    def classes(self) -> int:
        return self.n_classes

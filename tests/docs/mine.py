"""What a third party writes: the page docs/extending.md shows it, tests/docs/test_extending.py uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from attribution import EAP, Method, RuleSet
from attribution.rules import Rule
from interp import Setting, Task
from interp.graph import ComputationalGraph
from interp.kernels.backward import replace_gradient
from interp.selection import Selection, connected


@dataclass(frozen=True)
class Magnitude(Method):
    """Scores whose signs are kept and whose sizes are raised to a power."""

    power: float = 1.0

    name = "magnitude"
    paper: ClassVar[str] = "ours"

    def values(self, setting: Setting) -> Tensor:
        plain = EAP().values(setting)
        return plain.sign() * plain.abs() ** self.power


@dataclass(frozen=True)
class Cautious(Selection):
    """The connected circuit of a share of the edges that are asked for."""

    share: float = 0.9

    name = "cautious"

    def mask(self, scores: Tensor, graph: ComputationalGraph, n: int) -> Tensor:
        return connected(scores, graph, max(1, int(self.share * n)))


@dataclass(frozen=True)
class Quarter(Rule):
    """A gate and its value get a quarter of the gradient each."""

    operation: ClassVar[str] = "product"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return replace_gradient(a * b, (a * b) / 4)


gentle = RuleSet.of(Quarter(), name="gentle")


def mean_rank_of_largest(predict: Any, inputs: Any, attributions: Any) -> np.ndarray:
    """A metric of explanations: one value a sample, higher is better."""
    flat = np.asarray(attributions).reshape(len(inputs), -1)
    return np.abs(flat).max(1) / np.abs(flat).sum(1)


def brackets(n: int = 16, seed: int = 0, model: Any = None) -> Task:
    """A task: random tokens, and the first of them is to come again."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = 50 if model is None else int(model.cfg.d_vocab)
    clean = torch.randint(2, vocabulary - 1, (n, 6), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 2] = clean[:, 2] % (vocabulary - 3) + 1
    return Task.from_tokens("brackets", clean, corrupted, clean[:, 0], clean[:, 0] + 1)

"""Token methods with gradients: relevance rules (one backward pass); integrated gradients; gradient SHAP (captum)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from attribution.inputs.method import Answer, Asked, TokenMethod, Values
from attribution.rules.sets import RuleSet, rule_set
from interp import numbers
from interp.running import one_at_a_time


@dataclass(frozen=True)
class GradientXInput(TokenMethod):
    """Embedding times gradient, summed over coordinates; `rules` by name or as a `RuleSet`, None: the plain one."""

    rules: str | RuleSet | None = None

    name = "gradient-x-input"
    paper: ClassVar[str] = "Shrikumar et al. 2016, arXiv:1605.01713"
    formula: ClassVar[tuple[str, str]] = ("1", "1")
    conserves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_rules(self.rules)

    def values(self, asked: Asked) -> Values:
        embeddings = asked.embeddings.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(asked.value(embeddings).sum(), embeddings)
        return (embeddings.detach() * gradient).sum(-1)


@dataclass(frozen=True)
class TokenRelevance(GradientXInput):
    """A rule set as a method of its own: AttnLRP, CP-LRP, RelP, GIM; embedding times the gradient that it makes."""

    rules: str | RuleSet | None = "attnlrp"

    @property
    def name(self) -> str:  # type: ignore[override]
        """The rule set's name."""
        return rule_set(self.rules or "gradient").name

    @property
    def paper(self) -> str:  # type: ignore[override]
        """The rule set's paper."""
        return rule_set(self.rules or "gradient").paper


@dataclass(frozen=True)
class IntegratedGradients(TokenMethod):
    """Gauss-Legendre steps from the baseline to the input.

    Attributes:
        baseline: what tokens start as: `zero`, `mean`, a special token by name, or a token id.
        steps: on the way.
        rules: backward rules; None: the plain gradient, with which values add up to a difference of logits.
    """

    baseline: str | int = "zero"
    steps: int = 32
    rules: str | RuleSet | None = None

    name = "integrated-gradients"
    paper: ClassVar[str] = "Sundararajan et al. 2017, arXiv:1703.01365"
    formula: ClassVar[tuple[str, str]] = ("S+2", "S")

    def __post_init__(self) -> None:
        numbers.settle(self, steps=numbers.COUNT)
        _check_rules(self.rules)

    def values(self, asked: Asked) -> Values:
        end = asked.embeddings.detach()
        end = end.to(torch.promote_types(end.dtype, torch.float32))
        start = asked.baseline(self.baseline).to(end)
        nodes, weights = (torch.from_numpy(array).to(end) for array in np.polynomial.legendre.leggauss(self.steps))
        total = torch.zeros_like(end)
        for chosen in torch.arange(self.steps, device="cpu").split(max(1, asked.size // len(asked))):
            shares = (nodes[chosen, None, None, None] + 1) / 2
            points = (start + shares * (end - start)).flatten(0, 1).requires_grad_()
            lengths, positive, negative = (part.repeat(len(chosen)) for part in asked.details)
            with torch.enable_grad():
                value = asked.explained.value(points, lengths, positive, negative).sum()
                (gradient,) = torch.autograd.grad(value, points)
            total += torch.einsum("s,s...->...", weights[chosen] / 2, gradient.unflatten(0, (len(chosen), -1)))
        return (total * (end - start)).sum(-1)

    def answer(self, asked: Asked) -> Answer:
        if self.rules is not None:
            return Answer(self.values(asked))
        with torch.no_grad():
            there = asked.value(asked.baseline(self.baseline))
        return Answer(self.values(asked), baseline_logits=there)


@dataclass(frozen=True)
class GradientSHAP(TokenMethod):
    """Expected gradients between baseline and noisy inputs, by captum, input by input.

    Attributes:
        baseline: as for `IntegratedGradients`.
        samples: points at which gradients are taken.
        noise: standard deviation added to the input, in units of the embeddings' own.
        seed: of the samples.
        rules: backward rules; None: the plain gradient.
    """

    baseline: str | int = "zero"
    samples: int = 32
    noise: float = 0.1
    seed: int = 0
    rules: str | RuleSet | None = None

    name = "gradient-shap"
    paper: ClassVar[str] = "Lundberg & Lee 2017, arXiv:1705.07874"
    formula: ClassVar[tuple[str, str]] = ("S", "S")

    def __post_init__(self) -> None:
        numbers.settle(self, samples=numbers.COUNT, noise=numbers.FROM_ZERO)
        _check_rules(self.rules)

    def values(self, asked: Asked) -> Values:
        from captum.attr import GradientShap  # not above: it loads matplotlib, which takes a second

        method = GradientShap(asked.explained.value, multiply_by_inputs=True)
        rows = []
        for one in asked.each():
            embeddings = one.embeddings
            with seeded(one.seeds[0]):
                found = method.attribute(
                    embeddings,
                    baselines=one.baseline(self.baseline),
                    additional_forward_args=one.details,
                    n_samples=self.samples,
                    # captum draws in the dtype of this number, that of a float being torch's default
                    stdevs=(np.float32(self.noise * float(embeddings.std())),),
                )
            rows.append(found.detach().sum(-1)[0])
        return pad_sequence(rows, batch_first=True)


def _check_rules(rules: str | RuleSet | None) -> None:
    if rules is not None:
        rule_set(rules)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators, from which captum draws, and gives them back as they were."""
    with one_at_a_time(), torch.random.fork_rng():
        before: Any = np.random.get_state()  # noqa: NPY002
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002

"""Token methods with gradients: relevance rules (one backward pass); integrated gradients; gradient SHAP (captum)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from captum.attr import GradientShap
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attribution.inputs.encode import Inputs, Targets
from attribution.inputs.explained import Explainable
from interp.running import one_at_a_time

Values = Float[Tensor, "n pos"]


def relevance_of_tokens(explained: Explainable, inputs: Inputs, targets: Targets) -> Values:
    """Embedding times gradient, which is what the backward rules of `explained` make of it."""
    embeddings = explained.embed(inputs.ids).requires_grad_()
    with torch.enable_grad():
        value = explained.value(embeddings, inputs.lengths, targets.positive, targets.negative)
        (gradient,) = torch.autograd.grad(value.sum(), embeddings)
    return (embeddings.detach() * gradient).sum(-1)


def integrated_gradients(
    explained: Explainable, inputs: Inputs, targets: Targets, baseline: str | int, steps: int, stacked: int
) -> Values:
    """Sundararajan et al. 2017, with Gauss-Legendre steps from the baseline to the input; `stacked` rows a pass."""
    end = explained.embed(inputs.ids).detach()
    end = end.to(torch.promote_types(end.dtype, torch.float32))
    start = explained.baseline(inputs, baseline).to(end)
    nodes, weights = (torch.from_numpy(array).to(end) for array in np.polynomial.legendre.leggauss(steps))
    total = torch.zeros_like(end)
    for chosen in torch.arange(steps, device="cpu").split(max(1, stacked // len(inputs))):
        shares = (nodes[chosen, None, None, None] + 1) / 2
        points = (start + shares * (end - start)).flatten(0, 1).requires_grad_()
        rows = (part.repeat(len(chosen)) for part in (inputs.lengths, targets.positive, targets.negative))
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(explained.value(points, *rows).sum(), points)
        total += torch.einsum("s,s...->...", weights[chosen] / 2, gradient.unflatten(0, (len(chosen), -1)))
    return (total * (end - start)).sum(-1)


def gradient_shap(
    explained: Explainable,
    inputs: Inputs,
    targets: Targets,
    baseline: str | int,
    samples: int,
    noise: float,
    seeds: list[int],
) -> Values:
    """Expected gradients between baseline and noisy inputs (Lundberg & Lee 2017), by captum, input by input.

    `noise` is the standard deviation added to the input, in units of the embeddings' own. An input's samples depend
    on its own seed, not on the others in its batch.
    """
    method = GradientShap(explained.value, multiply_by_inputs=True)
    rows = []
    for i, seed in enumerate(seeds):
        one, target = inputs.select(slice(i, i + 1)), targets.select(slice(i, i + 1))
        embeddings = explained.embed(one.ids)
        with seeded(seed):
            found = method.attribute(
                embeddings,
                baselines=explained.baseline(one, baseline),
                additional_forward_args=(one.lengths, target.positive, target.negative),
                n_samples=samples,
                # captum draws in the dtype of this number, that of a float being torch's default
                stdevs=(np.float32(noise * float(embeddings.std())),),
            )
        rows.append(found.detach().sum(-1)[0])
    return pad_sequence(rows, batch_first=True)


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

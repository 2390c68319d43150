"""Infidelity and max-sensitivity of an explanation method, through captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from interp import numbers
from interp.arrays import as_tensor
from interp.errors import InputError
from interp.progress import progress
from interp.running import evaluated
from metrics.explanation.prediction import Array, Predictor, targets
from metrics.explanation.saco import PerSample, interval_settings


@numbers.checked(draws=numbers.COUNT, noise=numbers.POSITIVE, radius=numbers.POSITIVE)
@torch.inference_mode(False)
def sensitivity(
    predict: Callable[[Any], Any],
    inputs: Any,
    explain: Callable[[Tensor, Tensor], Any],
    *,
    target: Any = None,
    draws: int = 10,
    noise: float = 0.1,
    radius: float = 0.02,
    normalise: bool = False,
    batch_size: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
) -> PerSample:
    """Infidelity and max-sensitivity (Yeh et al., NeurIPS 2019), computed by captum. Lower is better for both.

    - `infidelity`: mean over I of (I . a - (p(y|x) - p(y|x - I)))^2, a the attribution of x, I normal noise of
      standard deviation `noise`. The units of `a` count: gradients fit, gradient times input does not; `normalise`
      first multiplies `a` by the factor that fits best.
    - `max_sensitivity`: the largest |a(x + r) - a(x)| / |a(x)| over `draws` uniform r in [-radius, radius].

    The noise of a sample depends on the seed and its place alone, not on the batches.

    Args:
        predict: inputs -> probabilities [n, class].
        inputs: floats of any shape [n, ...], for instance images or embeddings.
        explain: (inputs, classes [n]) -> attributions of the shape of the inputs. Called with gradients enabled.
        target: a class, one for each sample, or None for the predicted ones.
        draws: perturbations per sample.

    The other arguments are those of `saco`.

    Raises:
        InputError: inputs that are no finite floats, attributions of another shape or NaN, no probabilities.
    """
    settings = interval_settings(confidence, resamples, seed)
    tensor = as_tensor(inputs).detach()
    if tensor.ndim < 2 or not len(tensor) or not tensor.is_floating_point() or not tensor.isfinite().all():
        raise InputError(
            f"inputs must be finite floats [n, ...]; got {tensor.dtype} {list(tensor.shape)}; for tokens hand in their "
            "embeddings"
        )
    predictor = Predictor(predict, batch_size, isinstance(inputs, np.ndarray))
    chosen = targets(target, predictor.all(tensor))
    each = max(1, batch_size // draws)  # samples at a time: every one is perturbed `draws` times
    parts: list[tuple[Tensor, Tensor]] = []
    with progress("infidelity and sensitivity", total=len(tensor), quiet=quiet) as bar:
        for start in range(0, len(tensor), each):
            own = tensor[start : start + each]
            one = _Part(predictor, explain, own, chosen[start : start + each], [(seed, start + i) for i in range(each)])
            parts.append(one.measure(draws, noise, radius, normalise))
            bar.advance(len(own))
    columns: dict[str, Array] = {
        name: torch.cat(values).cpu().double().numpy()
        for name, values in zip(("infidelity", "max_sensitivity"), zip(*parts, strict=True), strict=True)
    }
    return PerSample(
        columns=columns,
        better=dict.fromkeys(columns, "lower"),
        settings=settings,
    )


class _Part:
    """A few samples, each with a generator of its own."""

    def __init__(
        self,
        predictor: Predictor,
        explain: Callable[[Tensor, Tensor], Any],
        inputs: Tensor,
        target: Tensor,
        seeds: list[tuple[int, int]],
    ) -> None:
        self.predictor, self.explain, self.inputs, self.target = predictor, explain, inputs, target
        self.generators = [np.random.default_rng(seed) for seed in seeds[: len(inputs)]]

    def measure(self, draws: int, noise: float, radius: float, normalise: bool) -> tuple[Tensor, Tensor]:
        """Infidelity and max-sensitivity, `[n]` each."""
        steps = noise * self._drawn(draws, lambda generator, shape: generator.standard_normal(shape))
        shifts = radius * self._drawn(draws, lambda generator, shape: generator.uniform(-1, 1, shape))
        loss = infidelity(
            lambda x: self.predictor.all(x).gather(1, self._target(x)[:, None])[:, 0].to(x),
            lambda x: (steps, x - steps),
            self.inputs,
            self._attributions(self.inputs),
            n_perturb_samples=draws,
            normalize=normalise,
        )
        spread = sensitivity_max(
            lambda x: (self._attributions(x[0] if isinstance(x, tuple) else x),),
            self.inputs,
            perturb_func=lambda x, _: x + shifts,
            n_perturb_samples=draws,
        )
        return loss, spread

    def _drawn(self, draws: int, draw: Callable[[np.random.Generator, tuple[int, ...]], Any]) -> Tensor:
        values = [draw(generator, (draws, *self.inputs.shape[1:])) for generator in self.generators]
        return torch.from_numpy(np.concatenate(values)).to(self.inputs)

    def _target(self, inputs: Tensor) -> Tensor:
        """Targets of samples that captum has repeated in place: 0, 0, .., 1, 1, .."""
        return self.target.repeat_interleave(len(inputs) // len(self.target))

    def _attributions(self, inputs: Tensor) -> Tensor:
        with torch.enable_grad(), evaluated(self.predictor.predict):
            values = self.explain(inputs.detach().clone(), self._target(inputs).to(inputs.device))
        result = as_tensor(values).detach()
        if result.shape != inputs.shape:
            raise InputError(
                f"explain must return attributions of the inputs' shape {list(inputs.shape)}; got {list(result.shape)}"
            )
        if not result.isfinite().all():
            raise InputError("explain returned values that are NaN or infinite")
        return result.to(inputs).contiguous()

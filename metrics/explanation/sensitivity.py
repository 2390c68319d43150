"""Infidelity and max-sensitivity of an explanation method, through captum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from interp import numbers
from interp.arrays import as_tensor
from interp.errors import InputError
from interp.interval import Interval
from interp.keywords import check_keywords
from interp.run import Run
from interp.running import evaluated
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import Array, Predictor, SampleKeywords, targets
from metrics.explanation.samples import PerSample


@dataclass(frozen=True)
class SensitivityMetric(ExplanationMetric):
    """Infidelity and max-sensitivity (Yeh et al. 2019): `sensitivity` says what they are and what the settings mean."""

    draws: int = 10
    noise: float = 0.1
    radius: float = 0.02
    normalise: bool = False

    name = "sensitivity"
    columns = {"infidelity": "infidelity", "max-sensitivity": "max_sensitivity"}  # noqa: RUF012

    def __post_init__(self) -> None:
        numbers.settle(self, draws=numbers.COUNT, noise=numbers.POSITIVE, radius=numbers.POSITIVE)

    def objection(self, case: Case) -> str | None:
        if not case.tensor.is_floating_point():
            return "perturbs inputs by noise, and these are token ids; call metrics.sensitivity on embeddings"
        if case.tensor.ndim == 4 and case.tensor.shape[1] != 1:
            return f"needs a score for each of {case.tensor.shape[1]} channels; call metrics.sensitivity by itself"
        if case.explain is None:
            return "explains perturbed inputs too: it needs a function (inputs, target) -> attributions, not an array"
        return None

    def run(self, case: Case) -> PerSample:
        return self.perturbed(
            case.predict, case.inputs, _like_inputs(case), case.target, case.subject.run, case.interval
        )

    def perturbed(
        self,
        predict: Callable[[Any], Any],
        inputs: Any,
        explain: Callable[[Tensor, Tensor], Any],
        target: Any,
        run: Run,
        interval: Interval,
    ) -> PerSample:
        """Values for each sample, from inputs `[n, ...]` and an explainer that gives as many scores."""
        tensor = as_tensor(inputs).detach()
        if tensor.ndim < 2 or not len(tensor) or not tensor.is_floating_point() or not tensor.isfinite().all():
            raise InputError(
                f"inputs must be finite floats [n, ...]; got {tensor.dtype} {list(tensor.shape)}; for tokens hand in "
                "their embeddings"
            )
        predictor = Predictor.of(predict, inputs, run)
        chosen = targets(target, predictor.all(tensor))
        each = max(1, predictor.batch_size // self.draws)  # samples at a time: each is perturbed `draws` times
        parts: list[tuple[Tensor, Tensor]] = []
        with run.progress("infidelity and sensitivity", len(tensor)) as bar:
            for start in range(0, len(tensor), each):
                own = tensor[start : start + each]
                seeds = [(interval.seed, start + i) for i in range(len(own))]
                one = _Part(self, predictor, explain, own, chosen[start : start + each], seeds)
                parts.append(one.measure())
                bar.advance(len(own))
        columns: dict[str, Array] = {
            name: torch.cat(values).cpu().double().numpy()
            for name, values in zip(("infidelity", "max_sensitivity"), zip(*parts, strict=True), strict=True)
        }
        return PerSample(columns=columns, better=dict.fromkeys(columns, "lower"), interval=interval)


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
    **keywords: Unpack[SampleKeywords],
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
    check_keywords("sensitivity", keywords, SampleKeywords)
    metric = SensitivityMetric(draws, noise, radius, normalise)
    return metric.perturbed(predict, inputs, explain, target, Run.of(keywords), Interval.of(keywords))


class _Part:
    """A few samples, each with a generator of its own."""

    def __init__(
        self,
        metric: SensitivityMetric,
        predictor: Predictor,
        explain: Callable[[Tensor, Tensor], Any],
        inputs: Tensor,
        target: Tensor,
        seeds: list[tuple[int, int]],
    ) -> None:
        self.metric, self.predictor, self.explain, self.inputs, self.target = metric, predictor, explain, inputs, target
        self.generators = [np.random.default_rng(seed) for seed in seeds]

    def measure(self) -> tuple[Tensor, Tensor]:
        """Infidelity and max-sensitivity, `[n]` each."""
        from captum.metrics import infidelity, sensitivity_max  # not above: it loads matplotlib, which takes a second

        draws = self.metric.draws
        steps = self.metric.noise * self._drawn(draws, lambda generator, shape: generator.standard_normal(shape))
        shifts = self.metric.radius * self._drawn(draws, lambda generator, shape: generator.uniform(-1, 1, shape))
        loss = infidelity(
            lambda x: self.predictor.all(x).gather(1, self._target(x)[:, None])[:, 0].to(x),
            lambda x: (steps, x - steps),
            self.inputs,
            self._attributions(self.inputs),
            n_perturb_samples=draws,
            normalize=self.metric.normalise,
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


def _like_inputs(case: Case) -> Callable[[Tensor, Tensor], Any]:
    """The explainer on tensors, with attributions of the inputs' shape: an image's single channel is added."""
    explain, images, numpy = case.explain, case.tensor.ndim == 4, case.subject.predictor.numpy
    assert explain is not None  # `objection` has seen to it

    def like(inputs: Tensor, target: Tensor) -> Any:
        given = explain(*((v.cpu().numpy() for v in (inputs, target)) if numpy else (inputs, target)))
        values = given if isinstance(given, Tensor | np.ndarray) else getattr(given, "values", given)
        return values[:, None] if images and getattr(values, "ndim", 0) == 3 else values

    return like

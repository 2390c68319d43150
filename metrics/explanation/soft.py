"""Soft erasure: parts of each token's embedding are dropped in proportion to its importance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from interp import numbers
from interp.arrays import as_tensor
from interp.errors import InputError, choose
from interp.interval import Interval
from interp.keywords import check_keywords
from interp.progress import Bar
from interp.run import Run
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import (
    Array,
    Flags,
    Predictor,
    SampleKeywords,
    as_attributions,
    shuffled,
    targets,
)
from metrics.explanation.samples import PerSample

CHANGES = ("target", "distribution")
SCALES = ("min-max", "none")


@dataclass(frozen=True)
class SoftErasureMetric(ExplanationMetric):
    """Soft erasure (Zhao and Aletras 2023): `soft_erasure` says what it is and what its settings mean.

    Attributes:
        predict, embeddings: the model from embeddings on, and these, [n, element, d]. None: features are their own
            embeddings, of one dimension.
    """

    draws: int = 10
    change: str = "target"
    scale: str = "min-max"
    predict: Callable[[Any], Any] | None = None
    embeddings: Any = field(default=None, repr=False)

    name = "soft-erasure"
    columns = {f"soft-{name}": name for name in ("comprehensiveness", "sufficiency")}  # noqa: RUF012

    def __post_init__(self) -> None:
        choose("change", self.change, CHANGES)
        choose("scale", self.scale, SCALES)
        numbers.settle(self, draws=numbers.COUNT)

    def objection(self, case: Case) -> str | None:
        features = case.tensor.is_floating_point() and case.tensor.ndim == 2
        if features or (self.predict is not None and self.embeddings is not None):
            return None
        return (
            "needs embeddings: settings={'soft-erasure': {'predict': a function of embeddings, 'embeddings': "
            "floats [n, element, d]}}"
        )

    def run(self, case: Case) -> PerSample:
        given = case.attributions, case.target, case.real, case.n_random, case.subject.run, case.interval
        if self.predict is not None and self.embeddings is not None:
            return self.softly(self.predict, self.embeddings, *given)
        return self.softly(lambda x: case.predict(x[..., 0]), case.inputs[..., None], *given)

    def softly(
        self,
        predict: Callable[[Any], Any],
        embeddings: Any,
        attributions: Any,
        target: Any,
        real: Any,
        n_random: int,
        run: Run,
        interval: Interval,
    ) -> PerSample:
        """Values for each sample, from embeddings `[n, pos, d]`."""
        tensor = as_tensor(embeddings).detach()
        if tensor.ndim != 3 or not tensor.is_floating_point() or not tensor.isfinite().all():
            raise InputError(f"embeddings must be finite floats [n, pos, d]; got {tensor.dtype} {list(tensor.shape)}")
        predictor = Predictor.of(predict, embeddings, run)
        scores, flags, _ = as_attributions(attributions, real, tensor[..., 0])
        weights = _keep_probabilities(scores, flags, self.scale)
        clean = predictor.all(tensor)
        dropout = _Dropout(predictor, tensor, flags, clean, targets(target, clean), self.change, self.draws)
        with run.progress("soft erasure", 2 * self.draws * len(tensor) * (1 + n_random)) as bar:
            columns = dropout.metrics(weights, interval.seed, bar)
            seeds = range(interval.seed + 1, interval.seed + 1 + n_random)
            others = [dropout.metrics(shuffled(weights, flags, own), own, bar) for own in seeds]
        absent = int(np.isnan(columns["sufficiency"]).sum())
        reason = "constant attributions, or a prediction that empty embeddings do not change"
        return PerSample(
            columns=columns,
            better=dict.fromkeys(columns, "higher"),
            random_columns={k: np.mean([other[k] for other in others], axis=0) for k in columns} if others else None,
            interval=interval,
            note=f"{absent} of {len(tensor)} samples have no value: {reason}." if absent else "",
        )


@numbers.checked(draws=numbers.COUNT)
def soft_erasure(
    predict: Callable[[Any], Any],
    embeddings: Any,
    attributions: Any,
    *,
    draws: int = 10,
    change: str = "target",
    scale: str = "min-max",
    target: Any = None,
    real: Any = None,
    n_random: int = 0,
    **keywords: Unpack[SampleKeywords],
) -> PerSample:
    """Soft normalised sufficiency and comprehensiveness (Zhao and Aletras 2023, arXiv:2305.10496).

    Each element of token i's embedding is kept with probability a_i (sufficiency) or 1 - a_i (comprehensiveness), else
    zero, giving x'. The change is D = max(0, p(y|x) - p(y|x')), mean over `draws`, D_0 that with all embeddings zero:
    `sufficiency` = max(0, D_0 - D) / D_0, `comprehensiveness` = min(1, D / D_0). Higher is better for both.

    `change="distribution"` takes for D the Hellinger distance of the class distributions, as for language models
    (Zhao and Shan 2024, arXiv:2402.00794). As published, without the factor 1/sqrt(2), that distance can exceed 1 and
    1 - D falls below 0; here it has the factor and lies in [0, 1]. Both metrics are cut to [0, 1]: an x' can change
    the prediction more than empty embeddings do. NaN where D_0 is 0, and where min-max scaling meets constant
    attributions. They use the values of the attributions, not only their order.

    Args:
        predict: embeddings [n, pos, d] -> probabilities [n, class].
        embeddings: [n, pos, d], floats.
        attributions: [n, pos].
        draws: so many random masks for each sample and metric.
        scale: `min-max` takes each sample's scores to [0, 1]; `none` takes them as they are, which must be in [0, 1].
        target, real, n_random, batch_size, quiet, confidence, resamples, seed: as in `saco`.

    Raises:
        InputError: shapes that do not fit, NaN, attributions outside [0, 1] with `scale="none"`, no probabilities.
    """
    check_keywords("soft_erasure", keywords, SampleKeywords)
    metric = SoftErasureMetric(draws, change, scale)
    given = attributions, target, real, n_random
    return metric.softly(predict, embeddings, *given, Run.of(keywords), Interval.of(keywords))


@dataclass(frozen=True)
class _Dropout:
    """What embeddings with dropped parts do to the prediction."""

    predictor: Predictor
    embeddings: Tensor
    real: Flags
    clean: Tensor
    target: Tensor
    change: str
    draws: int

    def metrics(self, weights: Array, seed: int, bar: Bar) -> dict[str, Array]:
        """Both metrics, `[n]` each, for scores in [0, 1]."""
        sufficient, comprehensive = self.after(weights, 2 * seed, bar), self.after(1 - weights, 2 * seed + 1, bar)
        empty = np.where((self.empty > 1e-12) & ~np.isnan(weights).any(1), self.empty, np.nan)
        return {
            "sufficiency": np.clip((empty - sufficient) / empty, 0, 1),
            "comprehensiveness": np.clip(comprehensive / empty, 0, 1),
        }

    @cached_property
    def empty(self) -> Array:
        """Change `[n]` when the embeddings of all real tokens are zero."""
        present = torch.from_numpy(self.real).to(self.embeddings.device)[..., None]
        after = self.predictor.all(self.embeddings.masked_fill(present, 0))
        return _distance(self.clean, after, self.target, self.change)

    def after(self, keep: Array, seed: int, bar: Bar) -> Array:
        """Mean change `[n]` when elements of the embeddings are kept with probability `keep` [n, pos]."""
        generator = np.random.default_rng(seed)  # its stream runs on over the batches, whatever their size
        keep = np.where(self.real, keep, 1.0)[..., None]
        rows, changes = np.repeat(np.arange(len(keep)), self.draws), []
        for start in range(0, len(rows), self.predictor.batch_size):
            part = torch.from_numpy(rows[start : start + self.predictor.batch_size])
            kept = generator.random((len(part), *self.embeddings.shape[1:])) < keep[part.numpy()]
            chosen = self.embeddings[part.to(self.embeddings.device)]
            after = self.predictor(chosen * torch.from_numpy(kept).to(chosen))
            changes.append(_distance(self.clean[part], after, self.target[part], self.change))
            bar.advance(len(part))
        return np.asarray(np.concatenate(changes).reshape(-1, self.draws).mean(1))


def _keep_probabilities(scores: Array, flags: Flags, scale: str) -> Array:
    """Scores in [0, 1], `[n, pos]`; NaN in samples where they are constant."""
    if scale == "none":
        if scores.min() < 0 or scores.max() > 1:
            raise InputError(
                f"scale='none' needs attributions in [0, 1]; they lie from {scores.min():.3g} to {scores.max():.3g}: "
                "use scale='min-max'"
            )
        return scores
    low = np.where(flags, scores, np.inf).min(1, keepdims=True)
    span = np.where(flags, scores, -np.inf).max(1, keepdims=True) - low
    return np.where(flags, (scores - low) / np.where(span > 0, span, np.nan), 0.0)


def _distance(clean: Tensor, after: Tensor, target: Tensor, change: str) -> Array:
    """Change [b] of the target's probability, 0 where it rises, or of the distribution, in [0, 1]."""
    if change == "target":
        return (clean - after).gather(1, target[:, None])[:, 0].clamp(min=0).numpy()
    if not torch.allclose(clean.sum(1), torch.ones(len(clean), dtype=clean.dtype, device="cpu"), atol=1e-3):
        raise InputError("change='distribution' needs probabilities that sum to 1 over the classes")
    return ((clean.clamp(min=0).sqrt() - after.clamp(min=0).sqrt()).pow(2).sum(1) / 2).sqrt().numpy()

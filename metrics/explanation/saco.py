"""SaCo: do elements of larger salience move the prediction by more?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from interp import numbers
from interp.errors import choose
from interp.interval import Estimate
from interp.keywords import check_keywords
from metrics.explanation.baselines import Baseline
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import Array, Indices, SampleKeywords, Subject
from metrics.explanation.samples import PerSample, with_random

TIES = ("agree", "zero")


@dataclass(frozen=True, kw_only=True, repr=False)
class SaCo(PerSample):
    """Salience-guided faithfulness coefficients.

    Attributes:
        ties: `[n]`, share of each sample's pairs of groups whose changes were equal. Where it is near 1 the model did
            not answer to the perturbations, and `ties="agree"` alone makes the coefficient high.
    """

    ties: Array

    @property
    def values(self) -> Array:
        """`[n]`, in [-1, 1]; NaN where the salience is constant."""
        return self.columns["saco"]

    @property
    def mean(self) -> Estimate:
        """Mean over the samples that have a value."""
        return self.estimates["saco"]

    def to_frame(self) -> pd.DataFrame:
        """One row per sample: saco, ties and, if asked for, random_saco."""
        return super().to_frame().assign(ties=self.ties)


@dataclass(frozen=True)
class SaCoMetric(ExplanationMetric):
    """SaCo (Wu et al., CVPR 2024): `saco` says what it is and what its settings mean."""

    groups: int = 10
    ties: str = "agree"
    tolerance: float = 1e-6

    name = "saco"
    columns = {"saco": "saco"}  # noqa: RUF012

    def __post_init__(self) -> None:
        choose("ties", self.ties, TIES)
        numbers.settle(self, groups=numbers.Limits(2), tolerance=numbers.FROM_ZERO)

    def objection(self, case: Case) -> str | None:
        few = int(case.sizes.argmin())
        if case.sizes[few] < self.groups:
            return f"groups={self.groups} is more than the {case.sizes[few]} elements of sample {few}; give fewer"
        return None

    def run(self, case: Case) -> SaCo:
        tied: list[Array] = []

        def measure(own: Subject) -> dict[str, Array]:
            values, equal = self._coefficients(own)
            tied.append(equal)
            return {"saco": values}

        columns, others = with_random(measure, case.subject, case.n_random)
        absent = int(np.isnan(columns["saco"]).sum())
        note = f"{absent} of {len(case.sizes)} samples have no value: their salience is constant." if absent else ""
        return SaCo(
            columns=columns,
            better={"saco": "higher"},
            random_columns=others,
            interval=case.interval,
            note=note,
            ties=tied[0],
        )

    def _coefficients(self, subject: Subject) -> tuple[Array, Array]:
        """SaCo and the share of tied pairs, each `[n]`."""
        bounds = group_bounds(subject.sizes, self.groups)
        after, _ = subject.windows(bounds[:, :-1], bounds[:, 1:], "SaCo")
        drops = subject.clean[:, None] - after
        result, tied = np.full(len(drops), np.nan), np.empty(len(drops))
        for i, (scores, flags, edges) in enumerate(zip(subject.attributions, subject.real, bounds, strict=True)):
            member = np.searchsorted(edges, subject.rank[i, flags], side="right") - 1
            sums = np.bincount(member, weights=scores[flags], minlength=self.groups)
            coefficient, tied[i] = salience_coefficient(sums, drops[i], self.ties, self.tolerance)
            if np.ptp(scores[flags]) > 0:  # groups of unequal size make unequal sums of a constant
                result[i] = coefficient
        return result, tied


@numbers.checked(groups=numbers.Limits(2), tolerance=numbers.FROM_ZERO)
def saco(
    predict: Callable[[Any], Any],
    inputs: Any,
    salience: Any,
    groups: int = 10,
    *,
    target: Any = None,
    baseline: Baseline | None = None,
    ties: str = "agree",
    tolerance: float = 1e-6,
    real: Any = None,
    n_random: int = 0,
    **keywords: Unpack[SampleKeywords],
) -> SaCo:
    """Salience-guided faithfulness coefficient (Wu et al., CVPR 2024, "On the Faithfulness of Vision Transformer
    Explanations").

    The elements are sorted by falling salience and cut into K groups; s_i is the salience in group i, summed, and d_i
    the fall of the target's probability when that group alone is replaced.
    F = sum over i < j of sigma_ij (s_i - s_j) / sum over i < j of |s_i - s_j|, sigma = +1 if d_i >= d_j, else -1.
    F is in [-1, 1]; it uses the values of the salience, not only their order, so a monotone rescaling changes it
    (a positive factor does not).

    Where K does not divide the number of elements, the first groups are larger by one (the sums are not corrected).
    Costs K + 1 model runs per sample, and K more for each of `n_random`.

    Args:
        predict: inputs -> probabilities [n, class]; is handed arrays of the kind that `inputs` is.
        inputs: images [n, c, h, w], feature vectors [n, d], or token ids [n, pos].
        salience: attributions [n, h, w] or a coarser grid that divides it (patches), [n, d], or [n, pos].
        groups: K.
        target: a class, one for each sample, or None for the predicted ones.
        baseline: what a removed element becomes: `mean` (the default), `zero`, `blur`, `noise`, a token id (needed for
            tokens), a rule of `metrics.explanation.baselines`, or a function (inputs, mask) -> inputs.
        ties: what two groups with equal d count: `agree` as in the paper (sigma = 1), or `zero` (sigma = 0).
        tolerance: changes that differ by no more are equal; the default is the noise of float32.
        real: like salience, false where an element is padding or a special token: those stay as they are.
        n_random: measure so many random explanations as well (the scores dealt out anew over the elements).
        batch_size, quiet: inputs per call of predict (64); no bar.
        confidence, resamples, seed: of the bootstrap interval over samples; the seed is also that of ties in the
            ranking, of noise and of random explanations.

    Returns:
        `SaCo`: `values`, `mean`, `ties`, `to_frame()`, `summary()`, `figure()`. Constant salience has no value: NaN.

    Raises:
        InputError: shapes that do not fit, NaN, more groups than elements, a predict that returns no probabilities.

    >>> import torch
    >>> weights = torch.tensor([0.4, 0.3, 0.2])
    >>> def predict(x):
    ...     p = x @ weights
    ...     return torch.stack((1 - p, p), 1)
    >>> saco(predict, torch.ones(1, 3), [[3.0, 2.0, 1.0]], groups=3, target=1, baseline="zero").values
    array([1.])
    """
    check_keywords("saco", keywords, SampleKeywords)
    metric = SaCoMetric(groups, ties, tolerance)
    case = Case.of(
        predict, inputs, salience, keywords, target=target, baseline=baseline, real=real, n_random=n_random
    )  # fmt: skip
    metric.check(case)
    return metric.run(case)


def group_bounds(sizes: Indices, groups: int) -> Indices:
    """First rank of each group and, last, the number of elements: `[n, groups + 1]`, larger groups first."""
    quotient, remainder = np.divmod(sizes, groups)
    edges = np.arange(groups + 1)
    return edges * quotient[:, None] + np.minimum(edges, remainder[:, None])


def salience_coefficient(
    sums: ArrayLike, drops: ArrayLike, ties: str = "agree", tolerance: float = 0.0
) -> tuple[float, float]:
    """F from the salience and the fall of the probability of each group `[K]`, and the share of tied pairs.

    >>> salience_coefficient([3.0, 2.0, 1.0], [0.5, 0.1, 0.3])
    (0.5, 0.0)
    """
    s, d = np.asarray(sums, np.float64), np.asarray(drops, np.float64)
    i, j = np.triu_indices(len(s), 1)
    weight, change = s[i] - s[j], d[i] - d[j]
    equal = np.abs(change) <= tolerance
    sigma = np.where(equal, 1 if ties == "agree" else 0, np.sign(change))
    total = np.abs(weight).sum()
    if total <= 1e-12 * np.abs(s).sum():
        return np.nan, float(equal.mean())
    return float((sigma * weight).sum() / total), float(equal.mean())

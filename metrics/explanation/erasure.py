"""Erasure metrics: what the prediction loses without the most important elements, and keeps with them alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.keywords import check_keywords
from metrics.explanation.baselines import Baseline
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import Array, SampleKeywords, Subject
from metrics.explanation.samples import PerSample, means, with_random

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
_FLOOR = 1e-12  # of probabilities in logarithms


@dataclass(frozen=True, kw_only=True, repr=False)
class Erasure(PerSample):
    """Means over the shares, per sample, and `by_share`: metric -> values `[n, share]`."""

    shares: tuple[float, ...]
    by_share: dict[str, Array]

    def share_frame(self) -> pd.DataFrame:
        """Columns metric, share, value, low, high: means over the samples for each share."""
        rows = []
        for name, values in self.by_share.items():
            for share, mean in zip(self.shares, means(list(values.T), self.interval), strict=True):
                rows.append({"metric": name, "share": share, "value": mean.value, "low": mean.low, "high": mean.high})
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class ErasureMetric(ExplanationMetric):
    """Comprehensiveness, sufficiency and log-odds: `erasure` says what they are and what the setting means."""

    shares: tuple[float, ...] = SHARES

    name = "erasure"
    columns = {"comprehensiveness": "comprehensiveness", "sufficiency": "sufficiency", "log-odds": "log_odds"}  # noqa: RUF012

    def __post_init__(self) -> None:
        numbers.settle(self, shares=numbers.SHARE)
        if not self.shares:
            raise InputError(f"shares={self.shares!r} must be shares of the elements, such as {SHARES}")

    def run(self, case: Case) -> Erasure:
        parts: list[dict[str, Array]] = []

        def measure(own: Subject) -> dict[str, Array]:
            parts.append(self._by_share(own))
            return {name: values.mean(1) for name, values in parts[-1].items()}

        columns, others = with_random(measure, case.subject, case.n_random)
        return Erasure(
            columns=columns,
            better={"comprehensiveness": "higher", "sufficiency": "lower", "log_odds": "lower"},
            random_columns=others,
            interval=case.interval,
            note=case.subject.note,
            shares=self.shares,
            by_share=parts[0],
        )

    def _by_share(self, subject: Subject) -> dict[str, Array]:
        """Each metric `[n, share]`."""
        count = np.ceil(subject.sizes[:, None] * np.array(self.shares) - 1e-9).astype(np.int64)
        clean, size = subject.clean[:, None], subject.sizes[:, None] + np.zeros_like(count)
        without, _ = subject.windows(np.zeros_like(count), count, "comprehensiveness")
        alone, _ = subject.windows(count, size, "sufficiency")
        return {
            "comprehensiveness": clean - without,
            "sufficiency": clean - alone,
            "log_odds": np.log(np.maximum(without, _FLOOR)) - np.log(np.maximum(clean, _FLOOR)),
        }


@numbers.checked(shares=numbers.SHARE)
def erasure(
    predict: Callable[[Any], Any],
    inputs: Any,
    attributions: Any,
    *,
    shares: Sequence[float] = SHARES,
    target: Any = None,
    baseline: Baseline | None = None,
    real: Any = None,
    n_random: int = 0,
    **keywords: Unpack[SampleKeywords],
) -> Erasure:
    """Comprehensiveness, sufficiency (DeYoung et al. 2020, ERASER) and log-odds (Shrikumar et al. 2017), as AOPC.

    With r the most important share of the elements, at least one, rounded up:
    - `comprehensiveness` = p(y|x) - p(y|x without r), higher is better;
    - `sufficiency` = p(y|x) - p(y|r alone), lower is better;
    - `log_odds` = log p(y|x without r) - log p(y|x), lower is better (probabilities count as 1e-12 at least);
    each the mean over the shares. They depend on the order of the elements alone, and are not comparable between
    models: see `normalised_aopc`. Costs two model runs per sample and share. Arguments as in `saco`.

    Returns:
        `Erasure`, with `by_share` and `share_frame()`.

    Raises:
        InputError: as in `saco`; shares outside (0, 1].

    >>> import torch
    >>> weights = torch.tensor([0.4, 0.3, 0.2])
    >>> def predict(x):
    ...     p = x @ weights
    ...     return torch.stack((1 - p, p), 1)
    >>> result = erasure(predict, torch.ones(1, 3), [[3.0, 2.0, 1.0]], shares=[0.5], target=1, baseline="zero")
    >>> result.by_share["comprehensiveness"].round(3), result.by_share["sufficiency"].round(3)
    (array([[0.7]]), array([[0.2]]))
    """
    check_keywords("erasure", keywords, SampleKeywords)
    metric = ErasureMetric(tuple(shares))
    case = Case.of(
        predict, inputs, attributions, keywords, target=target, baseline=baseline, real=real, n_random=n_random
    )
    return metric.run(case)


@dataclass(frozen=True)
class DecisionFlipsMetric(ExplanationMetric):
    """Decision flips: `decision_flips` says what they are and what the setting means."""

    steps: int = 100

    name = "decision-flips"
    columns = {"flip-first": "first", "flip-fraction": "fraction"}  # noqa: RUF012

    def __post_init__(self) -> None:
        numbers.settle(self, steps=numbers.COUNT)

    def run(self, case: Case) -> PerSample:
        columns, others = with_random(lambda own: _flips(own, self.steps), case.subject, case.n_random)
        return PerSample(
            columns=columns,
            better={"first": "higher", "fraction": "lower"},
            random_columns=others,
            interval=case.interval,
            note=case.subject.note,
        )


@numbers.checked(steps=numbers.COUNT)
def decision_flips(
    predict: Callable[[Any], Any],
    inputs: Any,
    attributions: Any,
    *,
    steps: int = 100,
    baseline: Baseline | None = None,
    real: Any = None,
    n_random: int = 0,
    **keywords: Unpack[SampleKeywords],
) -> PerSample:
    """Decision flips (Serrano and Smith 2019; Chrysostomou and Aletras 2021).

    - `first`: 1 where removing the single most important element changes the predicted class, higher is better;
    - `fraction`: the smallest share of the elements, taken by falling importance, whose removal changes it; 1 where
      none does. Lower is better. Inputs of more than `steps` elements are tried at one and at `steps` even shares.

    Depends on the order alone. A sample is run until it flips: at most `steps` + 1 runs. Other arguments as in `saco`.

    Raises:
        InputError: as in `saco`.
    """
    check_keywords("decision_flips", keywords, SampleKeywords)
    metric = DecisionFlipsMetric(steps)
    return metric.run(Case.of(predict, inputs, attributions, keywords, baseline=baseline, real=real, n_random=n_random))


def _flips(subject: Subject, steps: int) -> dict[str, Array]:
    sizes, rank = subject.sizes, torch.from_numpy(subject.rank)
    plans = [np.unique([1, *np.ceil(size * np.arange(1, steps + 1) / steps - 1e-9).astype(int)]) for size in sizes]
    fraction, first = np.ones(len(sizes)), np.zeros(len(sizes))
    going = np.arange(len(sizes))
    for step in range(max(map(len, plans))):
        going = going[[step < len(plans[i]) for i in going]]
        if not len(going):
            break
        count = np.array([plans[i][step] for i in going])
        after = subject.measure(going, _top(rank[going], torch.from_numpy(count)), "decision flips")[1]
        flipped = after != subject.decision[going]
        if step == 0:
            first[going] = flipped
        fraction[going[flipped]] = count[flipped] / sizes[going[flipped]]
        going = going[~flipped]
    return {"first": first, "fraction": fraction}


def _top(rank: Tensor, count: Tensor) -> Callable[[slice], Tensor]:
    return lambda rows: rank[rows] < count[rows, None]

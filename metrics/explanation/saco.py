"""SaCo, and the result that all per-sample metrics of explanations share."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from interp import numbers
from interp.errors import InputError, choose
from metrics.explanation.prediction import Array, Indices, Subject
from metrics.explanation.replacement import Replacement
from metrics.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TIES = ("agree", "zero")
_SHARE, _DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
_POSSIBLE = {
    "saco": _DIFFERENCE, "between": _DIFFERENCE, "comprehensiveness": _DIFFERENCE, "sufficiency": _DIFFERENCE,
    "morf": _SHARE, "lerf": _SHARE, "insertion": _SHARE, "first": _SHARE, "fraction": _SHARE,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class PerSample:
    """Values of metrics for each sample, and their means with bootstrap intervals over samples.

    `result["name"]` is the mean of a metric as an `Estimate`. A sample without a value is NaN and left out of the mean.

    Attributes:
        columns: by metric, values `[n]`.
        better: by metric, `higher` or `lower`.
        baseline: the same values for the salience dealt out at random over the elements, mean over the draws.
        note: what a reader must know.
    """

    columns: Mapping[str, Array]
    better: Mapping[str, str]
    baseline: Mapping[str, Array] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[choose("metric", name, self.columns)]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Means by metric."""
        return self._means(self.columns)

    @cached_property
    def random(self) -> dict[str, Estimate] | None:
        """Means of the random baseline, if it was asked for."""
        return None if self.baseline is None else self._means(self.baseline)

    def _means(self, columns: Mapping[str, Array]) -> dict[str, Estimate]:
        found = zip(columns, means(list(columns.values()), self.settings), strict=True)
        return {name: _inside(one, columns[name], name) for name, one in found}

    def to_frame(self) -> pd.DataFrame:
        """One row per sample; the baseline's columns are called `random ...`."""
        others = {f"random {name}": values for name, values in (self.baseline or {}).items()}
        return pd.DataFrame({"sample": np.arange(len(next(iter(self.columns.values())))), **self.columns, **others})

    def summary(self) -> pd.DataFrame:
        """One row per metric: mean and interval, the random baseline's, and the paired difference of the two."""
        rows = []
        for name, values in self.columns.items():
            row: dict[str, Any] = {"metric": name, "better": self.better[name], "n": int(np.isfinite(values).sum())}
            parts = {"value": self.estimates[name]}
            if self.baseline is not None and self.random is not None:
                parts["random"] = self.random[name]
                parts["difference"] = means([values - self.baseline[name]], self.settings)[0]
            for part, estimate in parts.items():
                prefix = "" if part == "value" else f"{part} "
                row |= {part: estimate.value, f"{prefix}low": estimate.low, f"{prefix}high": estimate.high}
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        table = self.summary().to_string(index=False, float_format=lambda v: f"{v:.3f}")
        return "\n".join(part for part in (type(self).__name__, table, self.note) if part)

    def _repr_html_(self) -> str:
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"{self.summary().to_html(index=False, border=0, float_format='{:.3f}'.format)}{note}"

    def figure(self) -> Figure:
        """A panel for each metric: every sample, the mean with its interval, and the random baseline beside it."""
        from plotly.subplots import make_subplots

        figure = make_subplots(
            cols=len(self.columns), subplot_titles=[f"{name} ({self.better[name]} is better)" for name in self.columns]
        )
        groups = [("explanation", self.columns, self.estimates, "#0072B2")]
        if self.baseline is not None and self.random is not None:
            groups.append(("random", self.baseline, self.random, "#999999"))
        for column, name in enumerate(self.columns, 1):
            for label, values, estimates, colour in groups:
                mean = estimates[name]
                own = {"legendgroup": label, "name": label}
                figure.add_box(
                    y=values[name], x=[label] * len(values[name]), boxpoints="all", showlegend=False,
                    marker={"color": colour, "size": 4}, row=1, col=column, **own,
                )  # fmt: skip
                figure.add_scatter(
                    y=[mean.value], x=[label], showlegend=False, row=1, col=column,
                    marker={"color": "black", "symbol": "diamond", "size": 9}, hovertext=f"mean {mean}",
                    error_y={
                        "type": "data", "symmetric": False,
                        "array": [mean.high - mean.value], "arrayminus": [mean.value - mean.low],
                    }, **own,
                )  # fmt: skip
        figure.update_layout(template="plotly_white", title=type(self).__name__)
        return figure


def interval_settings(confidence: float, resamples: int, seed: int) -> dict[str, Any]:
    """The keywords of `bootstrap`, which every metric hands on; `numbers.checked` has seen to them at the door."""
    return {"confidence": confidence, "resamples": resamples, "seed": seed}


def _inside(mean: Estimate, values: Array, name: str) -> Estimate:
    """Its interval cut off at what a metric can be; other measures of the same name may exceed that."""
    low, high = _POSSIBLE.get(name, (-np.inf, np.inf))
    known = values[np.isfinite(values)]
    if not ((known >= low) & (known <= high)).all():
        return mean
    return replace(mean, low=float(np.clip(mean.low, low, high)), high=float(np.clip(mean.high, low, high)))


def means(rows: list[Array], settings: Mapping[str, Any]) -> list[Estimate]:
    """Means of rows `[n]` with intervals; rows without NaN share their resamples.

    NaN is left out: intervals are over the samples that have a value, of which one has none.
    """
    values = np.stack(rows)
    there = np.isfinite(values)
    nothing = Estimate(np.nan, np.nan, np.nan, settings.get("confidence", 0.95))
    result = [nothing] * len(values)
    for known in np.unique(there, axis=0):
        chosen = np.flatnonzero((there == known).all(1))
        if known.any():
            found = bootstrap(values[np.ix_(chosen, np.flatnonzero(known))], lambda means: means, **settings)
            for i, one in zip(chosen, found, strict=True):
                result[i] = one
    return result


def with_baseline(
    measure: Callable[[Subject], dict[str, Array]], subject: Subject, random: int
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Values of a metric, and their mean over `random` saliences dealt out at random (None, if 0)."""
    values = measure(subject)
    if not random:
        return values, None
    draws = [measure(subject.shuffled(subject.seed + 1 + i)) for i in range(random)]
    return values, {name: np.mean([draw[name] for draw in draws], axis=0) for name in values}


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
        """One row per sample: saco, ties and, if asked for, random saco."""
        return super().to_frame().assign(ties=self.ties)


@numbers.checked(groups=numbers.Limits(2), tolerance=numbers.FROM_ZERO)
def saco(
    predict: Callable[[Any], Any],
    inputs: Any,
    salience: Any,
    groups: int = 10,
    *,
    target: Any = None,
    replacement: Replacement | None = None,
    ties: str = "agree",
    tolerance: float = 1e-6,
    real: Any = None,
    random: int = 0,
    batch_size: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
) -> SaCo:
    """Salience-guided faithfulness coefficient (Wu et al., CVPR 2024, "On the Faithfulness of Vision Transformer
    Explanations").

    The elements are sorted by falling salience and cut into K groups; s_i is the salience in group i, summed, and d_i
    the fall of the target's probability when that group alone is replaced.
    F = sum over i < j of sigma_ij (s_i - s_j) / sum over i < j of |s_i - s_j|, sigma = +1 if d_i >= d_j, else -1.
    F is in [-1, 1]; it uses the values of the salience, not only their order, so a monotone rescaling changes it
    (a positive factor does not).

    Where K does not divide the number of elements, the first groups are larger by one (the sums are not corrected).
    Costs K + 1 model runs per sample, and K more for each of `random`.

    Args:
        predict: inputs -> probabilities [n, class]; is handed arrays of the kind that `inputs` is.
        inputs: images [n, c, h, w], feature vectors [n, d], or token ids [n, pos].
        salience: [n, h, w] or a coarser grid that divides it (patches), [n, d], or [n, pos].
        groups: K.
        target: a class, one for each sample, or None for the predicted ones.
        replacement: `mean` (the default), `zero`, `blur`, `noise`, a token id (needed for tokens), a rule of
            `metrics.explanation.replacement`, or a function (inputs, mask) -> inputs.
        ties: what two groups with equal d count: `agree` as in the paper (sigma = 1), or `zero` (sigma = 0).
        tolerance: changes that differ by no more are equal; the default is the noise of float32.
        real: like salience, false where an element is padding or a special token: those stay as they are.
        random: so many random saliences as a baseline (the scores dealt out anew over the elements).
        batch_size, seed, quiet: inputs per call of predict; of ties in the ranking, noise and baseline; no bar.
        confidence, resamples: of the bootstrap interval over samples.

    Returns:
        `SaCo`: `values`, `mean`, `ties`, `to_frame()`, `summary()`, `figure()`. Constant salience has no value: NaN.

    Raises:
        InputError: shapes that do not fit, NaN, more groups than elements, a predict that returns no probabilities.

    >>> import torch
    >>> weights = torch.tensor([0.4, 0.3, 0.2])
    >>> def predict(x):
    ...     p = x @ weights
    ...     return torch.stack((1 - p, p), 1)
    >>> saco(predict, torch.ones(1, 3), [[3.0, 2.0, 1.0]], groups=3, target=1, replacement="zero").values
    array([1.])
    """
    settings = interval_settings(confidence, resamples, seed)
    choose("ties", ties, TIES)
    subject = Subject.of(
        predict, inputs, salience, target=target, replacement=replacement, real=real,
        batch_size=batch_size, seed=seed, quiet=quiet,
    )  # fmt: skip
    few = int(subject.sizes.argmin())
    if subject.sizes[few] < groups:
        raise InputError(f"groups={groups} is more than the {subject.sizes[few]} elements of sample {few}")
    tied: list[Array] = []

    def measure(own: Subject) -> dict[str, Array]:
        values, equal = coefficients(own, groups, ties, tolerance)
        tied.append(equal)
        return {"saco": values}

    columns, baseline = with_baseline(measure, subject, random)
    absent = int(np.isnan(columns["saco"]).sum())
    note = f"{absent} of {len(subject.sizes)} samples have no value: their salience is constant." if absent else ""
    return SaCo(
        columns=columns,
        better={"saco": "higher"},
        baseline=baseline,
        settings=settings,
        note=note,
        ties=tied[0],
    )


def coefficients(subject: Subject, groups: int, ties: str, tolerance: float) -> tuple[Array, Array]:
    """SaCo and the share of tied pairs, each `[n]`."""
    bounds = group_bounds(subject.sizes, groups)
    after, _ = subject.windows(bounds[:, :-1], bounds[:, 1:], "SaCo")
    drops = subject.clean[:, None] - after
    result, tied = np.full(len(drops), np.nan), np.empty(len(drops))
    for i, (scores, flags, edges) in enumerate(zip(subject.salience, subject.real, bounds, strict=True)):
        member = np.searchsorted(edges, subject.rank[i, flags], side="right") - 1
        sums = np.bincount(member, weights=scores[flags], minlength=groups)
        coefficient, tied[i] = salience_coefficient(sums, drops[i], ties, tolerance)
        if np.ptp(scores[flags]) > 0:  # groups of unequal size make unequal sums of a constant
            result[i] = coefficient
    return result, tied


def group_bounds(sizes: Indices, groups: int) -> Indices:
    """First rank of each group and, last, the number of elements: `[n, groups + 1]`, larger groups first."""
    quotient, remainder = np.divmod(sizes, groups)
    numbers = np.arange(groups + 1)
    return numbers * quotient[:, None] + np.minimum(numbers, remainder[:, None])


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

"""Erasure metrics: what the prediction loses without the most important elements, and keeps with them alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.progress import progress
from metrics.explanation.prediction import Array, Flags, Indices, Subject
from metrics.explanation.replacement import Replacement
from metrics.explanation.saco import PerSample, interval_settings, means, with_baseline

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
EXACT_LIMIT, BEAM_LIMIT = 16, 1000  # elements
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
            for share, mean in zip(self.shares, means(list(values.T), self.settings), strict=True):
                rows.append({"metric": name, "share": share, "value": mean.value, "low": mean.low, "high": mean.high})
        return pd.DataFrame(rows)


@numbers.checked(shares=numbers.SHARE)
def erasure(
    predict: Callable[[Any], Any],
    inputs: Any,
    salience: Any,
    *,
    shares: Sequence[float] = SHARES,
    target: Any = None,
    replacement: Replacement | None = None,
    real: Any = None,
    random: int = 0,
    batch_size: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
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
    >>> result = erasure(predict, torch.ones(1, 3), [[3.0, 2.0, 1.0]], shares=[0.5], target=1, replacement="zero")
    >>> result.by_share["comprehensiveness"].round(3), result.by_share["sufficiency"].round(3)
    (array([[0.7]]), array([[0.2]]))
    """
    settings = interval_settings(confidence, resamples, seed)
    chosen = tuple(shares)
    if not chosen:
        raise InputError(f"shares={shares!r} must be shares of the elements above 0 and up to 1, such as {SHARES}")
    subject = Subject.of(
        predict, inputs, salience, target=target, replacement=replacement, real=real,
        batch_size=batch_size, seed=seed, quiet=quiet,
    )  # fmt: skip
    parts: list[dict[str, Array]] = []

    def measure(own: Subject) -> dict[str, Array]:
        parts.append(_by_share(own, np.array(chosen)))
        return {name: values.mean(1) for name, values in parts[-1].items()}

    columns, baseline = with_baseline(measure, subject, random)
    return Erasure(
        columns=columns,
        better={"comprehensiveness": "higher", "sufficiency": "lower", "log_odds": "lower"},
        baseline=baseline,
        settings=settings,
        note=subject.note,
        shares=chosen,
        by_share=parts[0],
    )


def _by_share(subject: Subject, shares: Array) -> dict[str, Array]:
    count = np.ceil(subject.sizes[:, None] * shares - 1e-9).astype(np.int64)
    clean, size = subject.clean[:, None], subject.sizes[:, None] + np.zeros_like(count)
    without, _ = subject.windows(np.zeros_like(count), count, "comprehensiveness")
    alone, _ = subject.windows(count, size, "sufficiency")
    return {
        "comprehensiveness": clean - without,
        "sufficiency": clean - alone,
        "log_odds": np.log(np.maximum(without, _FLOOR)) - np.log(np.maximum(clean, _FLOOR)),
    }


@numbers.checked(steps=numbers.COUNT)
def decision_flips(
    predict: Callable[[Any], Any],
    inputs: Any,
    salience: Any,
    *,
    steps: int = 100,
    replacement: Replacement | None = None,
    real: Any = None,
    random: int = 0,
    batch_size: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
) -> PerSample:
    """Decision flips (Serrano and Smith 2019; Chrysostomou and Aletras 2021).

    - `first`: 1 where removing the single most important element changes the predicted class, higher is better;
    - `fraction`: the smallest share of the elements, taken by falling importance, whose removal changes it; 1 where
      none does. Lower is better. Inputs of more than `steps` elements are tried at one and at `steps` even shares.

    Depends on the order alone. A sample is run until it flips: at most `steps` + 1 runs. Other arguments as in `saco`.

    Raises:
        InputError: as in `saco`.
    """
    settings = interval_settings(confidence, resamples, seed)
    subject = Subject.of(
        predict, inputs, salience, replacement=replacement, real=real, batch_size=batch_size, seed=seed, quiet=quiet
    )
    columns, baseline = with_baseline(lambda own: _flips(own, steps), subject, random)
    return PerSample(
        columns=columns,
        better={"first": "higher", "fraction": "lower"},
        baseline=baseline,
        settings=settings,
        note=subject.note,
    )


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


@dataclass(frozen=True, kw_only=True, repr=False)
class NormalisedAOPC(PerSample):
    """Normalised values and what they were normalised by.

    Attributes:
        raw: comprehensiveness and sufficiency before, means over all steps, `[n]` each.
        low, high: comprehensiveness of the worst and the best order, `[n]`.
        exact: whether the bounds are exact, `[n]`.
    """

    raw: dict[str, Array]
    low: Array
    high: Array
    exact: Flags

    def to_frame(self) -> pd.DataFrame:
        """One row per sample: normalised values, raw ones, and the bounds."""
        raw = {f"raw {name}": values for name, values in self.raw.items()}
        return super().to_frame().assign(**raw, low=self.low, high=self.high, exact=self.exact)


@numbers.checked(exact=numbers.FROM_ZERO, beam=numbers.COUNT)
def normalised_aopc(
    predict: Callable[[Any], Any],
    inputs: Any,
    salience: Any,
    *,
    exact: int = 8,
    beam: int = 5,
    target: Any = None,
    replacement: Replacement | None = None,
    real: Any = None,
    random: int = 0,
    batch_size: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
) -> NormalisedAOPC:
    """Normalised AOPC (Edin et al. 2024, arXiv:2408.08137), comparable between models.

    AOPC is the mean over k = 1 .. N of p(y|x) - p(y|x without the top k) (comprehensiveness), or with the top k
    alone (sufficiency). Normalised: (AOPC - low) / (high - low), low and high being those of the worst and the best
    order of removal for that input; comprehensiveness of the best order is 1 (higher is better), sufficiency 0.

    Inputs of up to `exact` elements: bounds over all N! orders, exactly, from all 2^N subsets. Others: the better of a
    beam search of width `beam` in each direction and of the orders judged here; such bounds lie inside the true ones.
    Depends on the order alone; NaN where every order gives the same. Costs 2^N, or about beam N^2, runs per sample.
    Other arguments as in `saco`.

    Raises:
        InputError: as in `saco`; `exact` beyond 16; an input of more than 1000 elements.
    """
    settings = interval_settings(confidence, resamples, seed)
    if exact > EXACT_LIMIT:
        raise InputError(f"exact={exact} would need 2^{exact} model runs per sample; up to {EXACT_LIMIT} is possible")
    subject = Subject.of(
        predict, inputs, salience, target=target, replacement=replacement, real=real,
        batch_size=batch_size, seed=seed, quiet=quiet,
    )  # fmt: skip
    sizes = subject.sizes
    if sizes.max() > BEAM_LIMIT:
        raise InputError(
            f"sample {int(sizes.argmax())} has {sizes.max()} elements, and the bounds take about beam x elements^2 "
            f"model runs; up to {BEAM_LIMIT} elements are possible: give the salience by patches"
        )
    drawn: list[dict[str, Array]] = []

    def measure(own: Subject) -> dict[str, Array]:
        drawn.append(_totals(own))
        return drawn[-1]

    own, others = with_baseline(measure, subject, random)
    every = np.stack([total for totals in drawn for total in totals.values()])
    low, high = every.min(0), every.max(0)
    searched = replace(subject, quiet=True)
    with progress("best and worst orders", total=len(sizes), quiet=quiet) as bar:
        for i, size in enumerate(sizes):
            worst, best = _exact_bounds(searched, i) if size <= exact else _beam_bounds(searched, i, beam)
            low[i], high[i] = min(low[i], worst), max(high[i], best)
            bar.advance()
    span = np.where(high - low > 1e-12, high - low, np.nan)
    # sufficiency counts what is left after 0 .. N - 1 removals, a path's total after 1 .. N
    everything = subject.clean - subject.windows(0 * sizes[:, None], sizes[:, None], "everything removed")[0][:, 0]
    shift = {"comprehensiveness": 0.0 * everything, "sufficiency": everything}
    return NormalisedAOPC(
        columns={name: (total - low) / span for name, total in own.items()},
        better={"comprehensiveness": "higher", "sufficiency": "lower"},
        baseline=None if others is None else {name: (total - low) / span for name, total in others.items()},
        settings=settings,
        note=subject.note,
        raw={name: (total - shift[name]) / sizes for name, total in own.items()},
        low=low / sizes,
        high=high / sizes,
        exact=sizes <= exact,
    )


def _totals(subject: Subject) -> dict[str, Array]:
    """Falls of the probability, summed over the removal of 1 .. N elements from the top and from the bottom."""
    sizes, steps = subject.sizes[:, None], np.arange(1, subject.sizes.max() + 1)[None]
    count = np.minimum(steps, sizes)  # steps beyond a short input are computed and not counted
    counted = steps <= sizes
    ends = {"comprehensiveness": (0 * count, count), "sufficiency": (sizes - count, sizes + 0 * count)}
    return {
        name: ((subject.clean[:, None] - subject.windows(low, high, name)[0]) * counted).sum(1)
        for name, (low, high) in ends.items()
    }


def _drops(subject: Subject, sample: int, free: Indices, removed: Flags) -> Array:
    """Fall of the probability for each row of `removed` [row, free element]."""
    masks = torch.zeros(len(removed), subject.rank.shape[1], dtype=torch.bool, device="cpu")
    masks[:, torch.from_numpy(free)] = torch.from_numpy(removed)
    values, _ = subject.measure(np.full(len(removed), sample), lambda rows: masks[rows], "orders")
    return subject.clean[sample] - values


def _exact_bounds(subject: Subject, sample: int) -> tuple[float, float]:
    """Smallest and largest total over all orders: the best way to a subset goes through its subsets."""
    free = np.flatnonzero(subject.real[sample])
    subsets = np.arange(2 ** len(free))
    inside = (subsets[:, None] >> np.arange(len(free)) & 1).astype(bool)
    drops = np.zeros(len(subsets))
    drops[1:] = _drops(subject, sample, free, inside[1:])
    bounds = []
    for sign in (-1, 1):
        best = np.zeros(len(subsets))
        for size in range(1, len(free) + 1):
            level = subsets[inside.sum(1) == size]
            before = np.where(inside[level], best[level[:, None] & ~(1 << np.arange(len(free)))], -np.inf)
            best[level] = sign * drops[level] + before.max(1)
        bounds.append(float(sign * best[-1]))
    return bounds[0], bounds[1]


def _beam_bounds(subject: Subject, sample: int, beam: int) -> tuple[float, float]:
    """The same by beam search from the whole input downwards, once for each bound."""
    free = np.flatnonzero(subject.real[sample])
    bounds = []
    for sign in (-1, 1):
        states, totals = np.zeros((1, len(free)), bool), np.zeros(1)
        for _ in free:
            parent, element = np.nonzero(~states)
            children = states[parent]
            children[np.arange(len(children)), element] = True
            # of two ways to the same subset the better one stays
            order = np.argsort(-totals[parent], kind="stable")
            _, first = np.unique(children[order], axis=0, return_index=True)
            kept = order[first]
            reached = totals[parent[kept]] + sign * _drops(subject, sample, free, children[kept])
            top = np.argsort(-reached, kind="stable")[:beam]
            states, totals = children[kept[top]], reached[top]
        bounds.append(float(sign * totals[0]))
    return bounds[0], bounds[1]

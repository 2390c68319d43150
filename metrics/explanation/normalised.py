"""Normalised AOPC: erasure on a scale from the worst to the best order that there is for each input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch

from interp import numbers
from interp.errors import InputError
from interp.keywords import check_keywords
from metrics.explanation.baselines import Baseline
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import Array, Flags, Indices, SampleKeywords, Subject
from metrics.explanation.samples import PerSample, with_random

EXACT_LIMIT, BEAM_LIMIT = 16, 1000  # elements


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
        """One row per sample: normalised values, raw ones (`raw_...`), and the bounds low and high."""
        raw = {f"raw_{name}": values for name, values in self.raw.items()}
        return super().to_frame().assign(**raw, low=self.low, high=self.high, exact=self.exact)


@dataclass(frozen=True)
class NormalisedAOPCMetric(ExplanationMetric):
    """Normalised AOPC (Edin et al. 2024): `normalised_aopc` says what it is and what its settings mean."""

    exact: int = 8
    beam: int = 5

    name = "normalised-aopc"
    columns = {f"normalised-{name}": name for name in ("comprehensiveness", "sufficiency")}  # noqa: RUF012

    def __post_init__(self) -> None:
        numbers.settle(self, exact=numbers.FROM_ZERO, beam=numbers.COUNT)
        if self.exact > EXACT_LIMIT:
            raise InputError(
                f"exact={self.exact} would need 2^{self.exact} model runs per sample; up to {EXACT_LIMIT} is possible"
            )

    def objection(self, case: Case) -> str | None:
        sizes = case.sizes
        if sizes.max() <= BEAM_LIMIT:
            return None
        return (
            f"sample {int(sizes.argmax())} has {sizes.max()} elements, and the bounds take about beam x elements^2 "
            f"model runs; up to {BEAM_LIMIT} elements are possible: give attributions by patches"
        )

    def run(self, case: Case) -> NormalisedAOPC:
        subject, sizes = case.subject, case.sizes
        drawn: list[dict[str, Array]] = []

        def measure(own: Subject) -> dict[str, Array]:
            drawn.append(_totals(own))
            return drawn[-1]

        own, others = with_random(measure, subject, case.n_random)
        low, high = self._bounds(subject, np.stack([total for totals in drawn for total in totals.values()]))
        span = np.where(high - low > 1e-12, high - low, np.nan)
        # sufficiency counts what is left after 0 .. N - 1 removals, a path's total after 1 .. N
        removed, _ = subject.windows(0 * sizes[:, None], sizes[:, None], "everything removed")
        shift = {"comprehensiveness": 0.0 * subject.clean, "sufficiency": subject.clean - removed[:, 0]}
        return NormalisedAOPC(
            columns={name: (total - low) / span for name, total in own.items()},
            better={"comprehensiveness": "higher", "sufficiency": "lower"},
            random_columns=None if others is None else {name: (one - low) / span for name, one in others.items()},
            interval=case.interval,
            note=subject.note,
            raw={name: (total - shift[name]) / sizes for name, total in own.items()},
            low=low / sizes,
            high=high / sizes,
            exact=sizes <= self.exact,
        )

    def _bounds(self, subject: Subject, known: Array) -> tuple[Array, Array]:
        """Totals `[n]` of the worst and the best order; `known` [order, n] are those of some orders."""
        low, high = known.min(0), known.max(0)
        searched = subject.hushed()
        with subject.run.progress("best and worst orders", len(low)) as bar:
            for i, size in enumerate(subject.sizes):
                exact = size <= self.exact
                worst, best = _exact_bounds(searched, i) if exact else _beam_bounds(searched, i, self.beam)
                low[i], high[i] = min(low[i], worst), max(high[i], best)
                bar.advance()
        return low, high


@numbers.checked(exact=numbers.FROM_ZERO, beam=numbers.COUNT)
def normalised_aopc(
    predict: Callable[[Any], Any],
    inputs: Any,
    attributions: Any,
    *,
    exact: int = 8,
    beam: int = 5,
    target: Any = None,
    baseline: Baseline | None = None,
    real: Any = None,
    n_random: int = 0,
    **keywords: Unpack[SampleKeywords],
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
    check_keywords("normalised_aopc", keywords, SampleKeywords)
    metric = NormalisedAOPCMetric(exact, beam)
    case = Case.of(
        predict, inputs, attributions, keywords, target=target, baseline=baseline, real=real, n_random=n_random
    )
    metric.check(case)
    return metric.run(case)


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
    return np.asarray(subject.clean[sample] - values)


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

"""MaSF: is an input, masked or not, in the distribution that a model was trained on?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.stats import betabinom, binomtest
from torch import Tensor

from interp import numbers
from interp.arrays import as_tensor
from interp.errors import InputError
from interp.interval import Interval
from interp.keywords import check_keywords
from interp.renamed import OnceNamed
from interp.run import Run
from metrics.explanation.masf_result import InDistribution
from metrics.explanation.masked import Tokens, mask_half, mask_random, tokens_of
from metrics.explanation.prediction import BATCH, Array, PredictKeywords
from metrics.explanation.roar_data import mask_top
from metrics.explanation.roar_plan import RATIOS
from metrics.testing import Testing, adjust

# ids [b, pos] and attention mask [b, pos] -> for each layer, hidden states [b, pos, unit]
Hidden = Callable[[Tensor, Tensor], Sequence[Any]]


def token_maxima(hidden: Sequence[Any], attention: Any) -> list[Array]:
    """The largest value of each hidden unit over the tokens with attention: for each layer [n, unit]."""
    mask = np.asarray(_numpy(attention)).astype(bool)
    result = []
    for layer, states in enumerate(hidden):
        values = np.asarray(_numpy(states), np.float64)
        if values.ndim != 3 or values.shape[:2] != mask.shape:
            raise InputError(
                f"hidden states of layer {layer} must be [{mask.shape[0]}, {mask.shape[1]}, unit]; "
                f"got {list(values.shape)}"
            )
        largest = np.where(mask[:, :, None], values, -np.inf).max(1)
        if not np.isfinite(largest).all():
            raise InputError(f"hidden states of layer {layer} are NaN or infinite, or a sample has no attention")
        result.append(largest)
    if not result:
        raise InputError("hidden states of no layer came back; return at least one array [n, pos, unit]")
    return result


def lower_tail(sample: Array, values: Array, *, within: bool = False) -> Array:
    """Empirical probability of a value as small, (1 + #{others <= value}) / n, at most 1.

    `sample` [n, ...] are draws, `values` [m, ...]. `within`: the values are the sample itself, and none is its own
    other. A value from elsewhere counts itself as well, and both are shares of n: a value beyond the sample is as
    rare as the sample's most extreme one, not rarer, or ties would make every new value an outlier at a later level.
    """
    flat, wanted = sample.reshape(len(sample), -1), values.reshape(len(values), -1)
    counts = np.empty(wanted.shape)
    for column, ordered in enumerate(np.sort(flat, axis=0).T):
        counts[:, column] = np.searchsorted(ordered, wanted[:, column], side="right")
    return np.minimum((counts + (not within)) / len(sample), 1).reshape(values.shape)


def two_sided(sample: Array, values: Array, *, within: bool = False) -> Array:
    """Twice the smaller of the two empirical tail probabilities, at most 1; shapes as in `lower_tail`."""
    low, high = (lower_tail(s * sample, s * values, within=within) for s in (1, -1))
    return np.asarray(np.minimum(2 * np.minimum(low, high), 1))


def simes(p: ArrayLike) -> Array:
    """Simes' combination over the last axis: min over ranks d of D p_(d) / d.

    >>> float(simes([0.01, 0.04, 0.9]))
    0.03
    """
    ordered = np.sort(np.asarray(p, np.float64), axis=-1)
    size = ordered.shape[-1]
    return np.asarray((size * ordered / np.arange(1, size + 1)).min(-1))


def fisher(p: ArrayLike) -> Array:
    """Fisher's statistic over the last axis, -2 sum log p; large where the p-values are small.

    >>> round(float(fisher([0.1, 0.5])), 3)
    5.991
    """
    return np.asarray(-2 * np.log(np.asarray(p, np.float64)).sum(-1))


@dataclass(frozen=True)
class Emergent:
    """MaSF on arrays: the empirical distributions at its three levels, by `Emergent.of`.

    Attributes:
        units: for each layer [n, unit], the statistics of each hidden unit.
        layers: [n, layer], Simes over a layer's units.
        whole: [n], Fisher over the layers.
    """

    units: tuple[Array, ...]
    layers: Array
    whole: Array

    @classmethod
    def of(cls, statistics: Sequence[ArrayLike]) -> Emergent:
        """From the statistics of validation samples: for each layer [n, unit]."""
        units = _statistics(statistics)
        layers = np.stack([simes(two_sided(own, own, within=True)) for own in units], 1)
        return cls(units, layers, fisher(lower_tail(layers, layers, within=True)))

    def p_values(self, statistics: Sequence[ArrayLike]) -> Array:
        """One p-value for each sample [m], from its statistics: for each layer [m, unit]."""
        values = _statistics(statistics)
        shapes = [[own.shape[1] for own in part] for part in (values, self.units)]
        if shapes[0] != shapes[1]:
            raise InputError(f"statistics have {shapes[0]} units by layer; the validation data had {shapes[1]}")
        pairs = zip(self.units, values, strict=True)
        layers = np.stack([simes(two_sided(own, new)) for own, new in pairs], 1)
        return lower_tail(-self.whole, -fisher(lower_tail(self.layers, layers)))


def _statistics(statistics: Sequence[ArrayLike]) -> tuple[Array, ...]:
    layers = tuple(np.asarray(own, np.float64) for own in statistics)
    if not layers or any(own.ndim != 2 or 0 in own.shape or len(own) != len(layers[0]) for own in layers):
        raise InputError(f"statistics must be [n, unit] for each layer; got {[list(own.shape) for own in layers]}")
    if not all(np.isfinite(own).all() for own in layers):
        raise InputError("statistics hold values that are NaN or infinite")
    return layers


class VerdictKeywords(TypedDict, total=False):
    """The keywords of `MaSF.in_distribution`: of the interval of a share, of the tests and of what is drawn."""

    confidence: float
    seed: int
    correction: str
    alpha: float


@dataclass(frozen=True, kw_only=True)
class MaSF(OnceNamed):
    """In-distribution test of masked inputs (Madsen et al., ICML 2024, after Matan et al. 2022).

    Statistic: each hidden unit's maximum over the tokens. Its two-sided tail p-value under the empirical distribution
    on validation data, masked as in training; Simes over a layer's units; a p-value by that one's own empirical
    distribution; Fisher over the layers; a p-value by its own empirical distribution. Small: out of distribution. No
    p-value lies below 1 / (number of validation samples). Made by `MaSF.fit`.

    Attributes:
        hidden: (ids [b, pos], attention [b, pos]) -> for each layer, hidden states [b, pos, unit].
        known: the empirical distributions.
        mask_id, special: the mask token, and ids of tokens that are never masked.
        run: how the model is run.
    """

    hidden: Hidden = field(repr=False)
    known: Emergent = field(repr=False)
    mask_id: int
    special: tuple[int, ...]
    run: Run = field(default_factory=Run)

    @classmethod
    @numbers.checked(mask_id=numbers.FROM_ZERO, special=numbers.FROM_ZERO)
    def fit(
        cls,
        hidden: Hidden,
        ids: Any,
        attention: Any = None,
        *,
        mask_id: int,
        special: Sequence[int] = (),
        masked: bool = True,
        seed: int = 0,
        **keywords: Unpack[PredictKeywords],
    ) -> MaSF:
        """Learn the distributions from validation data, half of it masked as in `masked_finetune`.

        Use some hundreds of samples at least, of those that the model was not trained on; one run of the model each.
        `masked=False` leaves the data as it is, for a model that never saw masks: the reference is to be what the
        model was trained on. Any model finds masked inputs usual among others that are masked in the same way.

        Raises:
            InputError: shapes that do not fit, too few samples for a p-value of 0.05, states that are NaN.
        """
        check_keywords("MaSF.fit", keywords, PredictKeywords)
        run = Run.of(keywords)
        tokens = _tokens(ids, attention, special)
        if len(tokens.ids) < 20:
            raise InputError(f"ids holds {len(tokens.ids)} samples; p-values of 0.05 need at least 20")
        if masked:
            tokens = mask_half(tokens, mask_id, torch.Generator().manual_seed(seed)).tokens
        known = Emergent.of(_statistics_of(hidden, tokens, run))
        return cls(hidden=hidden, known=known, mask_id=mask_id, special=tuple(special), run=run)

    def p_values(self, ids: Any, attention: Any = None) -> Array:
        """P-values [n] of inputs as they are handed in, masked or not."""
        tokens = _tokens(ids, attention, self.special)
        return self.known.p_values(_statistics_of(self.hidden, tokens, self.run))

    @numbers.checked(ratios=numbers.UNIT, level=numbers.BETWEEN)
    def in_distribution(
        self,
        ids: Any,
        attention: Any = None,
        *,
        ratios: Sequence[float] = (0.0, *RATIOS),
        scores: Any = None,
        level: float = 0.05,
        **keywords: Unpack[VerdictKeywords],
    ) -> InDistribution:
        """Share of samples with p < level by masking ratio, with Wilson's interval; about `level` is in distribution.

        A sample's p-value is already one for all units and layers. The verdicts are as many as the ratios: `p` is the
        chance of as many outliers or more if the samples are like the validation data, which is no larger sample
        itself (beta-binomial), and `p_adjusted` is corrected for the number of ratios, see `metrics.testing.adjust`.

        `scores` [n, pos]: the tokens with the largest ones are masked, as an explanation would; None: random ones.
        A ratio is in distribution where p_adjusted is at least `alpha` (1 - `confidence` unless given). `correction`
        is `holm`, `bh` or `none`.

        Returns:
            `InDistribution`: `frame`, `to_frame()`, `figure()`.

        Raises:
            InputError: shapes that do not fit, ratios outside [0, 1], a level that so few samples cannot show.
        """
        check_keywords("in_distribution", keywords, VerdictKeywords)
        interval = Interval.of(keywords)
        testing = Testing.of({"alpha": 1 - interval.confidence, **keywords})
        if not len(ratios):
            raise InputError("ratios is empty; give shares between 0 and 1")
        least = 1 / len(self.known.whole)
        if not least < level < 1:
            raise InputError(f"level={level} must lie between {least:.3g} (one validation sample) and 1")
        tokens = _tokens(ids, attention, self.special)
        order = None if scores is None else _scores(scores, tokens)
        known = len(self.known.whole)
        below = int((np.arange(1, known + 1) / known < level).sum())  # p-values that are possible below the level
        rows: list[tuple[float, ...]] = []
        for ratio in ratios:
            p = self.p_values(self._masked(tokens, order, float(ratio), interval.seed), tokens.attention)
            found = binomtest(int((p < level).sum()), len(p))
            ends = found.proportion_ci(interval.confidence, "wilson")
            chance = betabinom.sf(found.k - 1, len(p), below, known + 1 - below)
            rows.append((ratio, len(p), found.statistic, ends.low, ends.high, min(max(chance, 0.0), 1.0)))
        frame = pd.DataFrame(rows, columns=["ratio", "n", "outliers", "low", "high", "p"])
        adjusted = adjust(frame["p"], testing.correction)
        frame = frame.assign(p_adjusted=adjusted, in_distribution=adjusted >= testing.alpha)
        return InDistribution(frame, level, testing)

    def _masked(self, tokens: Tokens, scores: Tensor | None, ratio: float, seed: int) -> Tensor:
        if scores is None:
            generator = torch.Generator().manual_seed(seed)
            return mask_random(tokens.ids, tokens.maskable, ratio, self.mask_id, generator)
        maskable = tokens.maskable.cpu()
        removed = mask_top(scores, maskable, torch.zeros_like(maskable), ratio, seed)
        return tokens.ids.masked_fill(removed.to(tokens.ids.device), self.mask_id)


def _tokens(ids: Any, attention: Any, special: Sequence[int]) -> Tokens:
    given = as_tensor(ids)
    labels = torch.zeros(given.shape[:1], dtype=torch.int64, device="cpu")
    return tokens_of("data", (given, labels) if attention is None else (given, labels, attention), special)


def _scores(scores: Any, tokens: Tokens) -> Tensor:
    values = as_tensor(scores).detach().cpu().double()
    if values.shape != tokens.ids.shape or not values[tokens.maskable.cpu()].isfinite().all():
        raise InputError(f"scores must be finite numbers {list(tokens.ids.shape)}; got {list(values.shape)}")
    return values


@torch.no_grad()
def _statistics_of(hidden: Hidden, tokens: Tokens, run: Run) -> list[Array]:
    """Statistics of all samples: for each layer [n, unit]."""
    parts: list[list[Array]] = []
    size = run.batch_size or BATCH
    with run.progress("hidden states", len(tokens.ids)) as bar:
        for ids, attention in zip(tokens.ids.split(size), tokens.attention.split(size), strict=True):
            parts.append(token_maxima(hidden(ids, attention), attention))
            bar.advance(len(ids))
    return [np.concatenate(layer) for layer in zip(*parts, strict=True)]


def _numpy(values: Any) -> Any:
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return values.double().numpy() if values.is_floating_point() else values.numpy()

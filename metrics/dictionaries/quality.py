"""`dictionary_quality`: cross-entropy with a dictionary, explained variance, and dead, dense and fake features."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.dictionaries import Dictionary, capture_activations, splice
from interp.dictionaries.spliced import ids_of
from interp.errors import InputError
from interp.interval import Interval, IntervalKeywords
from interp.keywords import check_keywords
from interp.progress import Bar
from interp.run import Run, RunKeywords
from interp.running import door
from metrics.dictionaries.quality_result import DictionaryQuality
from metrics.statistics import bootstrapped, share

_TOKENS = 2048  # in a batch: logits over the whole vocabulary are held for each


class QualityKeywords(RunKeywords, IntervalKeywords, total=False):
    """The keywords of `dictionary_quality`."""


@numbers.checked(threshold=numbers.BETWEEN, first=numbers.FROM_ZERO)
@door
def dictionary_quality(
    model: Any,
    dictionary: Dictionary,
    tokens: Int[Tensor, "n pos"],
    *,
    threshold: float = 0.1,
    first: int = 1,
    **keywords: Unpack[QualityKeywords],
) -> DictionaryQuality:
    """Measure a dictionary on text that its training did not see ("FaithfulSAE", arXiv:2506.17673).

        rise = CE(model with decode(encode(x)) in the place of what it writes) - CE(model)
        explained = 1 - sum |y - y_hat|^2 / sum |y - mean y|^2,    one mean over all tokens

    and the shares of features that are dead (active at no token), dense (at more than `threshold` of the text's) and
    *fake*: dense on random tokens, which say nothing. Their cut-off is ours.

    Args:
        model: what `interp.load_model` returns.
        dictionary: what is measured.
        tokens: ids [n, pos] without padding, such as `interp.sample_text(...).rows(64)`.
        threshold: the share of tokens above which a feature is dense.
        first: the first position that counts; a row's first token has norms of its own in many models, and would rule
            all sums. 0: all.
        **keywords: `batch_size` (rows), `quiet` (`interp.run.Run`); `confidence`, `resamples`, `seed` of the intervals;
            the seed draws the random tokens, too.

    Returns:
        `DictionaryQuality`: `.rise`, `.explained`, `.dead`, `.dense`, `.fake`, `.frequency`, `.figure()`.

    Cost: five forward passes over the text.

    Raises:
        InputError: tokens that are none or too few in a row, dictionaries of another model.
    """
    check_keywords("dictionary_quality", keywords, QualityKeywords)
    started, run, interval = time.perf_counter(), Run.of(keywords), Interval.of(keywords)
    if not isinstance(dictionary, Dictionary):
        raise InputError(f"dictionary is a {type(dictionary).__name__}; give a Dictionary")
    anatomy = dictionary.check(model)
    ids = ids_of(tokens, anatomy.d_vocab).cpu()
    if ids.shape[1] < first + 2:
        raise InputError(f"tokens has rows of {ids.shape[1]}; with first={first} they must have at least {first + 2}")
    random = _random(ids, first, anatomy.d_vocab, interval.seed)
    with run.progress("measuring a dictionary", 3 * len(ids)) as bar:
        measured = _Measured(model, dictionary, first, run.batch_size or max(1, _TOKENS // ids.shape[1]), bar)
        text = measured.seen(ids)
        at_random = measured.seen(random).frequency
        rows = np.stack([*measured.entropies(ids, text.mean), *text.squares, text.active.sum(1).numpy()])
    frequency = text.frequency
    cross_entropy, rise, rise_of_mean, recovered, explained, active = bootstrapped(rows, _statistics, interval)
    return DictionaryQuality(
        cross_entropy=cross_entropy,
        rise=rise,
        rise_of_mean=rise_of_mean,
        recovered=recovered,
        explained=explained,
        active=active,
        dead=share((frequency == 0).numpy(), interval.confidence),
        dense=share((frequency > threshold).numpy(), interval.confidence),
        fake=share((at_random > threshold).numpy(), interval.confidence),
        frequency=frequency,
        random_frequency=at_random,
        threshold=threshold,
        n_tokens=len(ids) * (ids.shape[1] - first),
        dictionary=repr(dictionary),
        model=anatomy.name,
        seconds=time.perf_counter() - started,
        settings={"seed": interval.seed, "first": first, "dictionary": dictionary.digest},
    )


def _statistics(means: Float[np.ndarray, "draw 6"]) -> Float[np.ndarray, "draw 6"]:
    clean, spliced, of_mean, left, spread, active = means.T
    rise, rise_of_mean = spliced - clean, of_mean - clean
    return np.stack([clean, rise, rise_of_mean, 1 - rise / rise_of_mean, 1 - left / spread, active], 1)


def _random(ids: Int[Tensor, "n pos"], first: int, d_vocab: int, seed: int) -> Int[Tensor, "n pos"]:
    """The same rows with random tokens from the first position on that counts."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(d_vocab, ids.shape, generator=generator, device="cpu")
    return torch.cat((ids[:, :first], drawn[:, first:]), 1)


@dataclass(frozen=True)
class _Seen:
    """What a dictionary makes of rows of text, row by row.

    `sums` of what is to be written, `norms` their squared lengths and `left` those of errors, summed over `count`
    positions; `active` is the share of these at which each feature is.
    """

    sums: Float[Tensor, "row d_model"]
    norms: Float[Tensor, " row"]
    left: Float[Tensor, " row"]
    active: Float[Tensor, "row feature"]
    count: int

    @property
    def frequency(self) -> Float[Tensor, " feature"]:
        """The share of all tokens at which each feature is active."""
        return self.active.mean(0)

    @property
    def mean(self) -> Float[Tensor, " d_model"]:
        """Of what is to be written, over all tokens."""
        return self.sums.mean(0) / self.count

    @property
    def squares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By row what is left, and distances from the one mean, both squared."""
        spread = self.norms - 2 * self.sums @ self.mean + self.count * self.mean.square().sum()
        return self.left.numpy(), spread.numpy()


@dataclass(frozen=True)
class _Measured:
    """A dictionary in its model, some rows at a time."""

    model: Any
    dictionary: Dictionary
    first: int
    size: int
    bar: Bar

    def seen(self, ids: Int[Tensor, "n pos"]) -> _Seen:
        """One forward pass: what the dictionary reads and is to write."""
        one, found = self.dictionary, []
        for part in ids.split(self.size):
            both = capture_activations(self.model, part, one.layer, one.site, reads=one.reads, writes=one.writes)
            read, written = (values.unflatten(0, part.shape)[:, self.first :] for values in both)
            features = one.encode(read)
            left = (written - one.decode(features, read)).double().square().sum((1, 2))
            wide = written.double()
            on = (features > 0).double().mean(1)
            found.append([part.cpu() for part in (wide.sum(1), wide.square().sum((1, 2)), left, on)])
            self.bar.advance(len(part))
        sums, norms, wrong, active = (torch.cat(parts) for parts in zip(*found, strict=True))
        return _Seen(sums, norms, wrong, active, ids.shape[1] - self.first)

    def entropies(self, ids: Int[Tensor, "n pos"], mean: Float[Tensor, " d_model"]) -> list[NDArray[np.float64]]:
        """By row the cross-entropy of the model, with the dictionary, and with the mean in its place."""
        one = self.dictionary
        nothing = torch.zeros(1, one.d_model, dtype=mean.dtype, device="cpu")
        constant = Dictionary.from_tensors(
            one.layer, one.site, nothing, None, nothing, mean, reads=one.reads, writes=one.writes
        )
        rows = []
        for part in ids.split(self.size):
            runs = ((constant, True), (one, False), (constant, False))
            rows.append(
                [_cross_entropy(splice(self.model, part, use, errors).logits, part, self.first) for use, errors in runs]
            )
            self.bar.advance(len(part))
        return [torch.cat(parts).numpy() for parts in zip(*rows, strict=True)]


def _cross_entropy(
    logits: Float[Tensor, "n pos d_vocab"], ids: Int[Tensor, "n pos"], first: int
) -> Float[Tensor, " n"]:
    """Mean over a row's positions from the first on that counts, each for the token behind it; in nats."""
    ahead = logits[:, first:-1].log_softmax(-1)
    token = ids[:, first + 1 :, None].to(ahead.device)
    return -ahead.gather(-1, token)[..., 0].double().mean(1).cpu()

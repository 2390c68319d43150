"""`concept_faithfulness`: how well explanations by concepts hold on images that they were not fitted on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from interp import numbers
from interp.concepts.explained import ConceptScores
from interp.concepts.heads import ConceptHeads
from interp.concepts.images import ConceptImages
from interp.concepts.reading import ConceptReading, read_concepts
from interp.errors import InputError
from interp.interval import Estimate, Interval, IntervalKeywords
from interp.keywords import check_keywords
from interp.run import Run, RunKeywords
from interp.running import door
from metrics.concepts.effects import effects_on
from metrics.concepts.result import ConceptFaithfulness, Disagreement, JudgedConcepts
from metrics.explanation.prediction import shuffled
from metrics.explanation.saco import salience_coefficient
from metrics.explanation.samples import means
from metrics.statistics import bootstrapped, share

Array = NDArray[np.float64]
_SAME = 1e-9  # effects that differ by less, in nats, are equal


class JudgeKeywords(RunKeywords, IntervalKeywords, total=False):
    """The keywords of `concept_faithfulness`: of its runs, and of intervals over images."""


@numbers.checked()
@door
def concept_faithfulness(
    model: Any,
    heads: ConceptHeads,
    images: ConceptImages,
    explanations: Sequence[ConceptScores],
    *,
    n_random: int = 2,
    **keywords: Unpack[JudgeKeywords],
) -> ConceptFaithfulness:
    """Judge explanations by concepts on held-out images: agreement with the network, and SaCo over concepts.

    - `agreement`: the share of images for which the explanation has the network's decision (Wilson's interval);
    - `explained`: the share of the logits' variance that the explanation of logits has: 1 less the squared error over
      the squared distance from the mean logits, both summed over classes and images;
    - `saco`: the salience-guided coefficient (Wu et al., CVPR 2024) with each concept a group of its own: whether
      concepts of larger salience move the network's decision by more when they are removed (`concept_effects`), beside
      the same saliences dealt out over the concepts at random;
    - the correlation of any two explanations' saliences, image by image: do they say the same?

    Args:
        model: any torch module from images [n, channel, height, width] to logits [n, class].
        heads: what `attribution.concepts.train_heads` made for it.
        images: none that an explanation was fitted on.
        explanations: of `attribution.concepts.explain`, `explain_all`, `tcav`, or `ConceptScores` of your own.
        n_random: how often saliences are dealt out at random.
        **keywords: `batch_size`, `quiet`; `confidence`, `resamples`, `seed` of the intervals over images.

    Returns:
        `ConceptFaithfulness`: `.to_frame()`, `.figure()` (understandable against faithful), `.disagreement()`.

    Cost: a forward pass for each image and concept, whatever the number of explanations.

    Raises:
        InputError: no explanations, or of other concepts; heads that depend on each other.
    """
    check_keywords("concept_faithfulness", keywords, JudgeKeywords)
    given = _explanations(explanations, heads)
    interval, run = Interval.of(keywords), Run.of(keywords)
    reading = read_concepts(model, heads, images, batch_size=run.batch_size, quiet=run.quiet)
    judge = _Judge(reading, effects_on(model, heads, images, reading, run), n_random, interval)
    return ConceptFaithfulness(
        judged=judge.judged(given, run),
        apart=judge.apart([one for one in given if not one.control]),
        n_concepts=len(heads.names),
        n=len(images),
        layer=heads.layer,
    )


@dataclass(frozen=True)
class _Judge:
    """Judges explanations on images that were read; all intervals of a kind share their resamples."""

    reading: ConceptReading
    effects: Array
    n_random: int
    interval: Interval

    def judged(self, given: Sequence[ConceptScores], run: Run) -> list[JudgedConcepts]:
        rows: list[Array] = []
        with run.progress("judging explanations", len(given)) as bar:
            for one in given:
                rows += self._coefficients(one.salience(self.reading).numpy())
                bar.advance()
        each, explained = len(rows) // len(given), self._explained(given)
        found = means(rows, self.interval)
        return [
            JudgedConcepts(
                method=one.label(),
                inputs=one.inputs,
                target=one.target,
                size=one.size,
                control=one.control,
                agreement=self._agreement(one),
                explained=explained[at],
                saco=found[each * at],
                random_saco=found[each * at + 1] if self.n_random else None,
                saco_gain=found[each * at + 2] if self.n_random else None,
            )
            for at, one in enumerate(given)
        ]

    def apart(self, given: Sequence[ConceptScores]) -> list[Disagreement]:
        """Pearson's correlation, over concepts, of two saliences of an image: the mean. NaN where one is flat."""
        pairs = [(a, b) for a, b in itertools.combinations(given, 2) if a.size == b.size or type(a) is not type(b)]
        units = {id(one): _unit(one.salience(self.reading).numpy()) for one in given}
        rows = [(units[id(a)] * units[id(b)]).sum(1) for a, b in pairs]
        found = means(rows, self.interval) if rows else []
        return [
            Disagreement(a.label(), b.label(), min(a.size, b.size), one)
            for (a, b), one in zip(pairs, found, strict=True)
        ]

    def _coefficients(self, salience: Array) -> list[Array]:
        """SaCo of each image; with random ones also their mean, and the difference."""
        own = self._saco(salience)
        if not self.n_random:
            return [own]
        real, seed = np.ones(salience.shape, bool), self.interval.seed + 1
        drawn = [self._saco(shuffled(salience, real, seed + draw)) for draw in range(self.n_random)]
        random: Array = np.mean(drawn, axis=0)
        return [own, random, own - random]

    def _saco(self, salience: Array) -> Array:
        return np.array(
            [
                salience_coefficient(row, drops, tolerance=_SAME)[0]
                for row, drops in zip(salience, self.effects, strict=True)
            ]
        )

    def _agreement(self, one: ConceptScores) -> Estimate:
        predicted = one.predict(self.reading)
        if predicted is None:
            return _nothing(self.interval)
        return share((predicted.argmax(1) == self.reading.decisions).numpy(), self.interval.confidence)

    def _explained(self, given: Sequence[ConceptScores]) -> list[Estimate]:
        """The share of the logits' variance, where logits are what an explanation gives."""
        logits, found = self.reading.logits, [_nothing(self.interval)] * len(given)
        errors = {}
        for at, one in enumerate(given):
            if one.target == "logits" and (predicted := one.predict(self.reading)) is not None:
                errors[at] = (predicted - logits).pow(2).sum(1).numpy()
        spread = (logits - logits.mean(0)).pow(2).sum(1).numpy()
        if errors:
            values = bootstrapped(
                [*errors.values(), spread], lambda mean: 1 - mean[:, :-1] / mean[:, -1:], self.interval, (-np.inf, 1.0)
            )
            for at, value in zip(errors, values, strict=True):
                found[at] = value
        return found


def _unit(salience: Array) -> Array:
    """Rows of mean 0 and norm 1; NaN where a row is flat."""
    centred = salience - salience.mean(1, keepdims=True)
    size = np.sqrt((centred**2).sum(1, keepdims=True))
    return np.where(size > 0, centred / np.where(size > 0, size, 1), np.nan)


def _nothing(interval: Interval) -> Estimate:
    return Estimate(float("nan"), float("nan"), float("nan"), interval.confidence)


def _explanations(explanations: Any, heads: ConceptHeads) -> list[ConceptScores]:
    given = [explanations] if isinstance(explanations, ConceptScores) else list(explanations)
    if not given:
        raise InputError("explanations is empty; give what attribution.concepts.explain or explain_all made")
    for one in given:
        if not isinstance(one, ConceptScores):
            raise InputError(f"explanations holds a {type(one).__name__}; give what attribution.concepts.explain made")
        if tuple(one.names) != tuple(heads.names):
            raise InputError(
                f"explanations has the concepts {', '.join(one.names)}, the heads {', '.join(heads.names)}"
            )
    return given

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
    with run.progress("judging explanations", len(given)) as bar:
        judged = []
        for one in given:
            judged.append(judge.judged(one))
            bar.advance()
    return ConceptFaithfulness(
        judged=judged,
        apart=[
            Disagreement(a.label(), b.label(), a.size, judge.correlation(a, b))
            for a, b in itertools.combinations([one for one in given if not one.control], 2)
            if a.size == b.size or len(heads.names) in (a.size, b.size)
        ],
        n_concepts=len(heads.names),
        n=len(images),
        layer=heads.layer,
    )


@dataclass(frozen=True)
class _Judge:
    reading: ConceptReading
    effects: Array
    n_random: int
    interval: Interval

    def judged(self, one: ConceptScores) -> JudgedConcepts:
        salience = one.salience(self.reading).numpy()
        rows = [self._saco(salience)]
        if self.n_random:
            real = np.ones(salience.shape, bool)
            drawn = [self._saco(shuffled(salience, real, self.interval.seed + 1 + i)) for i in range(self.n_random)]
            rows.append(np.mean(drawn, axis=0))
            rows.append(rows[0] - rows[1])
        own, *random = means(rows, self.interval)
        agreement, explained = self._predicted(one)
        return JudgedConcepts(
            method=one.label(),
            inputs=one.inputs,
            target=one.target,
            size=one.size,
            control=one.control,
            agreement=agreement,
            explained=explained,
            saco=own,
            random_saco=random[0] if random else None,
            saco_gain=random[1] if random else None,
        )

    def correlation(self, one: ConceptScores, other: ConceptScores) -> Estimate:
        """Pearson's, over concepts, of the two saliences of each image: the mean. NaN where one of them is flat."""
        x, y = (scores.salience(self.reading).numpy() for scores in (one, other))
        x, y = (values - values.mean(1, keepdims=True) for values in (x, y))
        size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
        return means([np.where(size > 0, (x * y).sum(1) / np.where(size > 0, size, 1), np.nan)], self.interval)[0]

    def _saco(self, salience: Array) -> Array:
        return np.array(
            [
                salience_coefficient(row, drops, tolerance=_SAME)[0]
                for row, drops in zip(salience, self.effects, strict=True)
            ]
        )

    def _predicted(self, one: ConceptScores) -> tuple[Estimate, Estimate]:
        nothing = Estimate(float("nan"), float("nan"), float("nan"), self.interval.confidence)
        logits, predicted = self.reading.logits, one.predict(self.reading)
        if predicted is None:
            return nothing, nothing
        agreement = share((predicted.argmax(1) == self.reading.decisions).numpy(), self.interval.confidence)
        if one.target != "logits":
            return agreement, nothing
        errors = (predicted - logits).pow(2).sum(1).numpy()
        spread = (logits - logits.mean(0)).pow(2).sum(1).numpy()
        (explained,) = bootstrapped(
            [errors, spread], lambda found: 1 - found[:, :1] / found[:, 1:], self.interval, (-np.inf, 1.0)
        )
        return agreement, explained


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

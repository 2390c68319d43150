"""`concept_effects`: what removing a concept from a network's features does to its decision."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from interp import numbers
from interp.concepts.heads import ConceptHeads
from interp.concepts.images import ConceptImages
from interp.concepts.reading import ConceptReading, read_concepts
from interp.concepts.site import BATCH, Site
from interp.keywords import check_keywords
from interp.run import Run, RunKeywords
from interp.running import door


@numbers.checked()
@door
def concept_effects(
    model: Any, heads: ConceptHeads, images: ConceptImages, **keywords: Unpack[RunKeywords]
) -> NDArray[np.float64]:
    """By how much the log-probability of the network's decision falls when one concept is removed.

    Removed: the concept's logit is set to its mean over the training images, by the likeliest change of the features
    (`ConceptHeads.directions`) that leaves all other concepts' logits as they are; features of many positions are
    moved alike at all of them. The network runs on from there.

    Args:
        model: any torch module from images [n, channel, height, width] to logits [n, class].
        heads: what `attribution.concepts.train_heads` made for it.
        images: with the same concepts.
        **keywords: `batch_size`, `quiet`.

    Returns:
        float [n, concept], in nats: positive where the concept speaks for the decision.

    Cost: a forward pass for each image and concept, and one more an image.

    Raises:
        InputError: heads that depend on each other; images with other concepts.
    """
    check_keywords("concept_effects", keywords, RunKeywords)
    return effects_on(model, heads, images, read_concepts(model, heads, images, **keywords), Run.of(keywords))


def effects_on(
    model: Any, heads: ConceptHeads, images: ConceptImages, reading: ConceptReading, run: Run
) -> NDArray[np.float64]:
    """`concept_effects` of images that were read."""
    site, found = Site(model, heads.layer), np.empty((len(images), len(heads.names)))
    clean = _log_probability(reading.logits, reading.decisions)
    size = run.batch_size or BATCH
    with run.progress("removing concepts", len(heads.names)) as bar:
        for concept in range(len(heads.names)):
            moves = heads.removal(reading.concepts, concept)
            after = [
                site.moved(batch, by) for batch, by in zip(images.images.split(size), moves.split(size), strict=True)
            ]
            found[:, concept] = clean - _log_probability(torch.cat(after), reading.decisions)
            bar.advance()
    return found


def _log_probability(logits: torch.Tensor, chosen: torch.Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = logits.log_softmax(1).gather(1, chosen[:, None])[:, 0].numpy()
    return found

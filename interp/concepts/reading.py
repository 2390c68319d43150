"""`ConceptReading`: what a network and concept heads say of some images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import numbers
from interp.concepts.heads import ConceptHeads
from interp.concepts.images import ConceptImages
from interp.concepts.site import Site
from interp.errors import InputError, choose
from interp.run import Run, RunKeywords
from interp.running import door

INPUTS = ("logits", "probabilities", "labels")  # from the least to the most understandable


@dataclass(frozen=True, eq=False)
class ConceptReading:
    """Images as a network and its concept heads see them; made by `interp.concepts.read_concepts`.

    Attributes:
        features: float [n, feature], of the heads' layer.
        logits: float [n, class], the network's.
        concepts: float [n, concept], the heads' logits.
        labels: bool [n, concept], the truth.
        names: of the concepts.
    """

    features: Float[Tensor, "n feature"]
    logits: Float[Tensor, "n class"]
    concepts: Float[Tensor, "n concept"]
    labels: Bool[Tensor, "n concept"]
    names: tuple[str, ...]

    @property
    def decisions(self) -> Int[Tensor, " n"]:
        """The network's most likely class of each image."""
        return self.logits.argmax(1)

    def inputs(self, kind: str) -> Float[Tensor, "n concept"]:
        """What an explanation reads: concepts' `logits`, their `probabilities`, or their true `labels` (0 and 1)."""
        match choose("inputs", kind, INPUTS):
            case "logits":
                return self.concepts
            case "probabilities":
                return self.concepts.sigmoid()
        return self.labels.double()


@numbers.checked()
@door
def read_concepts(
    model: Any, heads: ConceptHeads, images: ConceptImages, **keywords: Unpack[RunKeywords]
) -> ConceptReading:
    """Run a network and its concept heads on images.

    Args:
        model: any torch module from images [n, channel, height, width] to logits [n, class].
        heads: what `attribution.concepts.train_heads` made for it.
        images: with the same concepts.
        keywords: `batch_size`, `quiet`.

    Cost: a forward pass an image.

    Raises:
        InputError: concepts of other names, images that the model cannot take, a layer that it lacks.
    """
    if tuple(images.names) != tuple(heads.names):
        raise InputError(
            f"images have the concepts {', '.join(images.names)}, the heads {', '.join(heads.names)}; use "
            "ConceptImages.only with the heads' names"
        )
    features, logits = Site(model, heads.layer).read(images.images, Run.of(keywords))
    return ConceptReading(features, logits, heads.logits(features), images.concepts, heads.names)

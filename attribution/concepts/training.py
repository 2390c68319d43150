"""`train_heads`: a linear classifier of each concept from the features of a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.concepts.heads import ConceptHeads, directions_of
from interp.concepts.images import ConceptImages
from interp.concepts.site import Site
from interp.errors import InputError
from interp.keywords import check_keywords, told
from interp.run import Run
from interp.running import door


class HeadKeywords(TypedDict, total=False):
    """The keywords of `train_heads`."""

    epochs: int
    learning_rate: float
    momentum: float
    batch_size: int
    seed: int
    quiet: bool


@dataclass(frozen=True)
class HeadTraining:
    """How heads are trained; the defaults are the paper's (arXiv:2303.15632).

    Attributes:
        epochs: how often each image is seen.
        learning_rate, momentum: of stochastic gradient descent.
        batch_size: images a step.
        seed: of their order; weights begin at 0.
        quiet: no progress bar.
    """

    epochs: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    batch_size: int = 512
    seed: int = 0
    quiet: bool = False

    def __post_init__(self) -> None:
        numbers.settle(self, epochs=numbers.COUNT, learning_rate=numbers.POSITIVE, momentum=numbers.UNIT)

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> HeadTraining:
        """From a function's keywords."""
        return told(cls(), keywords, HeadKeywords)


@numbers.checked()
@door
def train_heads(model: Any, layer: str, images: ConceptImages, **keywords: Unpack[HeadKeywords]) -> ConceptHeads:
    """Train one linear layer from the pooled features of a network to all concepts (UFO, arXiv:2303.15632).

    Binary cross-entropy of each concept, SGD with rate .1 and momentum .9. Features are centred and divided by their
    standard deviations first, and the weights given for the features as they are: the paper's code does not, and then
    one rate cannot suit networks of different scales.

    Args:
        model: any torch module from images [n, channel, height, width] to logits [n, class]; it is not changed.
        layer: the module whose output is read, averaged over positions, such as `avgpool` of a ResNet.
        images: with their concepts; each must be there in some and lacking in others.
        **keywords: `epochs` (100), `learning_rate` (.1), `momentum` (.9), `batch_size` (512), `seed`, `quiet`.

    Returns:
        `ConceptHeads`: `.logits(features)`, `.to_frame()` (loss beside chance).

    Cost: a forward pass an image, then matrix products.

    Raises:
        InputError: a concept that all images have, or none; a layer that the model lacks, or that runs more than once.

    >>> import torch
    >>> from interp.concepts import ConceptImages
    >>> pictures = torch.tensor([0.0, 1.0]).repeat(20)[:, None, None, None].expand(-1, 2, 3, 3)
    >>> data = ConceptImages(pictures, pictures[:, 0, 0, :1] > 0, ("bright",))
    >>> network = torch.nn.Sequential(torch.nn.AvgPool2d(3), torch.nn.Flatten())
    >>> train_heads(network, "0", data).logits(torch.tensor([[1.0, 1.0]])) > 3
    tensor([[True]])
    """
    check_keywords("train_heads", keywords, HeadKeywords)
    started, how = time.perf_counter(), HeadTraining.of(keywords)
    check_varied(images)
    features, _ = Site(model, layer).read(images.images, Run(quiet=how.quiet))
    weights, bias = linear_heads(features, images.concepts, how)
    logits, truth = features @ weights.T + bias, images.concepts.double()
    share = truth.mean(0)
    return ConceptHeads(
        weights=weights,
        bias=bias,
        directions=directions_of(weights, features),
        means=logits.mean(0),
        losses=F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(0),
        chance=F.binary_cross_entropy(share.expand_as(truth), truth, reduction="none").mean(0),
        names=images.names,
        layer=layer,
        n=len(images),
        seconds=time.perf_counter() - started,
    )


def linear_heads(
    features: Float[Tensor, "n feature"], concepts: Bool[Tensor, "n concept"], how: HeadTraining
) -> tuple[Float[Tensor, "concept feature"], Float[Tensor, " concept"]]:
    """Weights and bias of logistic classifiers, trained by SGD on features of mean 0 and spread 1."""
    mean, spread = features.mean(0), features.std(0, correction=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    scaled, truth = (features - mean) / spread, concepts.double()
    weights = torch.zeros(truth.shape[1], features.shape[1], dtype=torch.float64, device="cpu", requires_grad=True)
    bias = torch.zeros(truth.shape[1], dtype=torch.float64, device="cpu", requires_grad=True)
    optimizer = torch.optim.SGD([weights, bias], lr=how.learning_rate, momentum=how.momentum)
    generator = torch.Generator().manual_seed(how.seed)
    with torch.enable_grad():
        for _ in range(how.epochs):
            for rows in torch.randperm(len(scaled), generator=generator, device="cpu").split(how.batch_size):
                logits = scaled[rows] @ weights.T + bias
                # summed over concepts: the rate of one does not depend on how many others there are
                loss = F.binary_cross_entropy_with_logits(logits, truth[rows], reduction="none").mean(0).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    own = weights.detach() / spread
    return own, bias.detach() - own @ mean


def check_varied(images: ConceptImages) -> None:
    """Raise `InputError` for a concept that tells no image from another."""
    share = images.concepts.double().mean(0)
    for name, part in zip(images.names, share.tolist(), strict=True):
        if part in (0.0, 1.0):
            raise InputError(
                f"concept {name!r} is there in {'all' if part else 'none'} of {len(images)} images, and nothing can "
                "be learned of it; leave it out with ConceptImages.only"
            )

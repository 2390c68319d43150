"""`tcav`: how often a step in a concept's direction raises a class's logit, by captum."""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.concepts.training import HeadKeywords, HeadTraining, check_varied, linear_heads
from interp import numbers, theme
from interp.concepts.explained import ConceptScores
from interp.concepts.images import ConceptImages
from interp.concepts.reading import ConceptReading
from interp.concepts.site import BATCH, Site, device_of
from interp.keywords import check_keywords
from interp.run import Run
from interp.running import alone, door

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TCAVScores(ConceptScores):
    """Scores of concepts for classes; made by `attribution.concepts.tcav`.

    Attributes:
        shares: float [class, concept]: of the images that the network takes for a class, the share whose logit of it
            rises in the concept's direction; .5 for classes without images.
        slopes: float [class, concept]: by how much, in the mean.
        random: float [class, concept]: `shares` of directions learned from the same labels, dealt out at random.
        counts: int [class]: images of each class.
        names, layer: the concepts, and where they are read.
        seconds: the time that it took.
    """

    matching: ClassVar = (("shares", "slopes", "random", "counts"),)

    shares: Float[Tensor, "class concept"]
    slopes: Float[Tensor, "class concept"]
    random: Float[Tensor, "class concept"]
    counts: Int[Tensor, " class"]
    names: tuple[str, ...]
    layer: str
    seconds: float

    method, inputs, target, control = "TCAV", "directions", "logits", False

    @property
    def size(self) -> int:  # type: ignore[override]  # all of them
        """All concepts."""
        return len(self.names)

    def salience(self, reading: ConceptReading) -> Float[Tensor, "n concept"]:
        """The slopes of the network's decision: the same on all images of a class."""
        return self.slopes[reading.decisions]

    def to_frame(self) -> pd.DataFrame:
        """One row a class and concept. Columns: class, concept, images, share, slope, random_share."""
        n_class, n_concept = self.shares.shape
        return pd.DataFrame(
            {
                "class": torch.arange(n_class, device="cpu").repeat_interleave(n_concept).tolist(),
                "concept": list(self.names) * n_class,
                "images": self.counts.repeat_interleave(n_concept).tolist(),
                "share": self.shares.flatten().tolist(),
                "slope": self.slopes.flatten().tolist(),
                "random_share": self.random.flatten().tolist(),
            }
        )

    def figure(self) -> Figure:
        """A heat map of shares, classes by concepts."""
        import plotly.graph_objects as go

        hover = "class %{y}, %{x}: %{customdata:.3f}<extra></extra>"
        picture = go.Figure(
            go.Heatmap(
                z=(self.shares - 0.5).tolist(), x=[theme.label(name) for name in self.names], zmin=-0.5, zmax=0.5,
                colorscale=theme.DIVERGING, colorbar={"tickvals": [-0.5, 0, 0.5], "ticktext": ["0", "0.5", "1"]},
                customdata=self.shares.tolist(), hovertemplate=hover,
            )
        )  # fmt: skip
        picture.update_xaxes(title="concept").update_yaxes(title="class", dtick=1, autorange="reversed")
        return theme.styled(picture, f"TCAV at {self.layer}: the share of images whose logit rises")

    def headline(self) -> str:
        there = self.counts > 0
        firm = ((self.shares == 0) | (self.shares == 1))[there].double().mean()
        return (
            f"TCAV of {len(self.names)} concepts at {self.layer}, {int(there.sum())} classes; {float(firm):.0%} of the "
            f"shares are 0 or 1 (random directions: "
            f"{float(((self.random == 0) | (self.random == 1))[there].double().mean()):.0%})"
        )


@numbers.checked()
@door
def tcav(model: Any, layer: str, images: ConceptImages, **keywords: Unpack[HeadKeywords]) -> TCAVScores:
    """Testing with concept activation vectors (Kim et al. 2018, arXiv:1711.11279), by captum.

    A concept's direction v is the weight of a linear classifier of the layer's whole output a, trained like
    `train_heads` on images with and without it. For a class c, the share of its images with v . dlogit_c / da > 0, and
    the mean of that product. A class's images are those that the network takes for it. Where all that follows `layer`
    is linear, the gradient is the same on all images and every share is 0 or 1.

    Args:
        model: any torch module from images [n, channel, height, width] to logits [n, class].
        layer: the module whose output is read, not averaged.
        images: with their concepts; each must be there in some and lacking in others.
        **keywords: of the training of directions, as for `train_heads`; `seed` also deals labels out at random.

    Returns:
        `TCAVScores`: `.shares`, `.slopes`, `.random`, `.to_frame()`, `.figure()`.

    Cost: two forward passes for each image and concept, and a forward and a backward pass an image.

    Raises:
        InputError: as `train_heads`.
    """
    check_keywords("tcav", keywords, HeadKeywords)
    started, how = time.perf_counter(), HeadTraining.of(keywords)
    check_varied(images)
    decided = Site(model, layer).read(images.images, Run(quiet=how.quiet))[1]
    classes, decisions = decided.shape[1], decided.argmax(1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(how.seed), device="cpu")
    given = images.images.to(device_of(model))
    with alone(model):
        own, dealt = (
            _scores(model, layer, given, labels.to(given.device), decisions.to(given.device), classes, how)
            for labels in (images.concepts, images.concepts[order])
        )
    return TCAVScores(
        shares=own["sign_count"],
        slopes=own["magnitude"],
        random=dealt["sign_count"],
        counts=torch.bincount(decisions, minlength=classes),
        names=images.names,
        layer=layer,
        seconds=time.perf_counter() - started,
    )


def _scores(
    model: Any, layer: str, images: Tensor, labels: Tensor, decisions: Tensor, classes: int, how: HeadTraining
) -> dict[str, Float[Tensor, "class concept"]]:
    """Captum's two scores of each class and concept."""
    from captum.concept import TCAV, Concept  # not above: it loads matplotlib, which takes a second

    found = {"sign_count": torch.full((classes, labels.shape[1]), 0.5, dtype=torch.float64, device="cpu")}
    found["magnitude"] = torch.zeros_like(found["sign_count"])
    pairs = [
        [Concept(2 * at + lacks, "concept", images[there != bool(lacks)].split(BATCH)) for lacks in (0, 1)]
        for at, there in enumerate(labels.T)
    ]
    # captum keeps activations and directions in files, and reads the latter by an old name of numpy's
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "numpy.core is deprecated", DeprecationWarning)
        judge = TCAV(model, [layer], classifier=_classifier(how), save_path=folder)
        for own in decisions.unique().tolist():
            scores = judge.interpret(images[decisions == own], pairs, target=own)
            for at, (with_it, without) in enumerate(pairs):
                one = scores[f"{with_it.id}-{without.id}"][layer]
                for name, values in found.items():
                    values[own, at] = float(one[name][0])
    return found


def _classifier(how: HeadTraining) -> Any:
    """What captum trains directions with: a head, as `train_heads` has them."""
    from captum.concept import Classifier

    class Head(Classifier):  # type: ignore[misc]
        def __init__(self) -> None:
            self._classes, self._weights = [0, 1], torch.empty(0, dtype=torch.float64, device="cpu")

        def train_and_eval(self, dataloader: Any, **_: Any) -> None:
            features, ids = (torch.cat(parts) for parts in zip(*dataloader, strict=True))
            self._classes = sorted({int(one) for one in ids})
            there = (ids == self._classes[0])[:, None].cpu()
            self._weights = linear_heads(features.detach().cpu().double(), there, how)[0]

        def weights(self) -> Tensor:
            return torch.cat((self._weights, -self._weights))

        def classes(self) -> list[int]:
            return self._classes

    return Head()

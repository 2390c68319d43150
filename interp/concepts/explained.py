"""`ConceptScores`, whatever scores concepts for classes, and `ConceptExplanation`, a linear map from concepts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp import theme
from interp.concepts.reading import ConceptReading
from interp.errors import InputError
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class ConceptScores(Result):
    """Scores of concepts, by class or image: what metrics of faithfulness judge. Sub-class it for a method of yours.

    Attributes:
        method: what it is called in tables.
        inputs, target: what is read of concepts, and what of the network is explained.
        size: how many concepts it may use.
        control: whether its concepts were chosen at random.
        names: of the concepts.
    """

    method: str
    inputs: str
    target: str
    size: int
    control: bool
    names: tuple[str, ...]

    @abstractmethod
    def salience(self, reading: ConceptReading) -> Float[Tensor, "n concept"]:
        """What each concept adds to the network's decision on each image: its log-probability, or another scale."""

    def predict(self, reading: ConceptReading) -> Float[Tensor, "n class"] | None:
        """Logits of the classes as the explanation has them; None: it predicts nothing."""
        return None

    def label(self) -> str:
        """How figures and tables call it."""
        return f"{self.method}, random concepts" if self.control else self.method


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ConceptExplanation(ConceptScores):
    """A network's output as a linear function of few concepts; made by `attribution.concepts.explain`.

    Attributes:
        weights, bias: float [class, concept], [class]; 0 for concepts that are not used.
        means, ranges: float [concept]: of the inputs over the training images: their mean, and largest less smallest.
        inputs: `logits`, `probabilities` or `labels`: what is read of each concept.
        target: `logits` or `decisions`: what of the network was fitted.
        size: how many concepts it may use.
        control: these concepts were drawn at random.
        loss: on the training images: half the mean squared error of the logits, or the cross-entropy of decisions.
        names, layer: the concepts, and where they are read.
        n, seconds: training images, and the time that it took.
    """

    matching: ClassVar = (("weights", "bias"), ("means", "ranges", "names"))

    weights: Float[Tensor, "class concept"]
    bias: Float[Tensor, " class"]
    means: Float[Tensor, " concept"]
    ranges: Float[Tensor, " concept"]
    inputs: str
    target: str
    size: int
    control: bool
    loss: float
    names: tuple[str, ...]
    layer: str
    n: int
    seconds: float

    @property
    def method(self) -> str:  # type: ignore[override]  # says itself
        """`target` from `inputs`."""
        return f"{self.target} from {self.inputs}"

    @property
    def used(self) -> list[str]:
        """The concepts with a weight, the largest `effects` first."""
        order = self.effects.argsort(descending=True, stable=True)
        return [self.names[at] for at in order.tolist() if float(self.effects[at]) > 0]

    @property
    def effects(self) -> Float[Tensor, " concept"]:
        """How far the logits move over a concept's whole range: the norm of its weights times its range."""
        found: Tensor = self.weights.norm(dim=0) * self.ranges
        return found

    @property
    def sizes(self) -> Float[Tensor, " concept"]:
        """The paper's size of a concept: the sum of its squared weights over its range (1 where that is 0).

        It changes when a concept is measured in other units; `effects` does not.
        """
        return self.weights.pow(2).sum(0) / torch.where(self.ranges == 0, torch.ones_like(self.ranges), self.ranges)

    def predict(self, reading: ConceptReading) -> Float[Tensor, "n class"]:
        found: Tensor = self._read(reading) @ self.weights.T + self.bias
        return found

    def salience(self, reading: ConceptReading) -> Float[Tensor, "n concept"]:
        """What the log-probability of the network's decision loses, says the explanation, where a concept is its mean.

        The softmax of its logits is meant: what a concept adds to all classes alike counts for nothing.
        """
        logits, chosen = self.predict(reading), reading.decisions[:, None]
        before = logits.log_softmax(1).gather(1, chosen)
        moves = self.means - self._read(reading)
        found = torch.zeros_like(moves)
        for at in self.weights.any(0).nonzero()[:, 0].tolist():
            after = logits + moves[:, at, None] * self.weights[:, at]
            found[:, at] = (before - after.log_softmax(1).gather(1, chosen))[:, 0]
        return found

    def _read(self, reading: ConceptReading) -> Float[Tensor, "n concept"]:
        if tuple(reading.names) != tuple(self.names):
            raise InputError(
                f"the explanation has the concepts {', '.join(self.names)}; the images {', '.join(reading.names)}"
            )
        return reading.inputs(self.inputs)

    def to_frame(self) -> pd.DataFrame:
        """One row for each concept that is used, the largest effect first.

        Columns: concept, effect, size (the paper's), for and against (the classes that it speaks most for and against).
        """
        chosen = [self.names.index(name) for name in self.used]
        return pd.DataFrame(
            {
                "concept": self.used,
                "effect": self.effects[chosen].tolist(),
                "size": self.sizes[chosen].tolist(),
                "for": self.weights[:, chosen].argmax(0).tolist(),
                "against": self.weights[:, chosen].argmin(0).tolist(),
            }
        )

    def figure(self) -> Figure:
        """Weights times ranges, classes by the concepts that are used."""
        import plotly.graph_objects as go

        chosen = [self.names.index(name) for name in self.used]
        values = (self.weights * self.ranges)[:, chosen]
        most = float(values.abs().max()) if values.numel() else 1.0
        hover = "class %{y}, %{x}: %{z:.3f}<extra></extra>"
        picture = go.Figure(
            go.Heatmap(
                z=values.tolist(), x=[theme.label(name) for name in self.used], colorscale=theme.DIVERGING,
                zmin=-most, zmax=most, hovertemplate=hover,
            )
        )  # fmt: skip
        picture.update_xaxes(title="concept").update_yaxes(title="class", dtick=1, autorange="reversed")
        return theme.styled(picture, f"{self.label()}, {len(self.used)} concepts: weights over their ranges")

    def headline(self) -> str:
        told = ", ".join(self.used[:5]) + (", ..." if len(self.used) > 5 else "")
        return (
            f"{self.label()}, {len(self.used)} of {len(self.names)} concepts ({told or 'none'}); loss {self.loss:.3g} "
            f"on {self.n} images"
        )

"""`ConceptHeads`: one linear classifier of a network's features for each concept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers, theme
from interp.errors import InputError
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_APART = 1e-3  # how far moving one concept may move another


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ConceptHeads(Result):
    """Linear classifiers of concepts; made by `attribution.concepts.train_heads`.

    Attributes:
        weights, bias: float [concept, feature], [concept]: a concept's logit is `weights @ features + bias`.
        directions: float [concept, feature]: by how much the features change where one concept's logit grows by 1 and
            all others stay: of all such changes the likeliest, given the features' covariance over the training images.
        means: float [concept]: mean logits over the training images.
        losses: float [concept]: cross-entropy on the training images, in nats; `chance` that of the concept's share.
        names: of the concepts.
        layer: the module whose output was read.
        n, seconds: training images, and the time that it took.
    """

    matching: ClassVar = (("weights", "bias", "directions", "means", "losses", "chance", "names"),)

    weights: Float[Tensor, "concept feature"]
    bias: Float[Tensor, " concept"]
    directions: Float[Tensor, "concept feature"]
    means: Float[Tensor, " concept"]
    losses: Float[Tensor, " concept"]
    chance: Float[Tensor, " concept"]
    names: tuple[str, ...]
    layer: str
    n: int
    seconds: float

    def logits(self, features: Float[Tensor, "n feature"]) -> Float[Tensor, "n concept"]:
        """Concepts' logits of features. Raises `InputError` for features of another width."""
        if features.ndim != 2 or features.shape[1] != self.weights.shape[1]:
            raise InputError(
                f"features must be [n, {self.weights.shape[1]}], as the heads were trained on; got "
                f"{list(features.shape)}"
            )
        return features.to(self.weights) @ self.weights.T + self.bias

    @numbers.checked(concept=numbers.FROM_ZERO)
    def removal(self, logits: Float[Tensor, "n concept"], concept: int) -> Float[Tensor, "n feature"]:
        """What to add to features so that one concept's logit becomes its mean, and all others stay.

        Raises `InputError` where there are too many concepts for that: more than features, or heads that depend on each
        other.
        """
        moved = self.weights @ self.directions[concept]
        moved[concept] -= 1
        if float(moved.abs().max()) > _APART:
            raise InputError(
                f"heads of {len(self.names)} concepts over {self.weights.shape[1]} features depend on each other: "
                f"{self.names[concept]!r} cannot be moved alone; train heads of fewer concepts"
            )
        return (self.means[concept] - logits[:, concept])[:, None] * self.directions[concept]

    def to_frame(self) -> pd.DataFrame:
        """One row a concept. Columns: concept, loss, chance, explained (the share of chance's loss that is gone)."""
        return pd.DataFrame(
            {
                "concept": list(self.names),
                "loss": self.losses.tolist(),
                "chance": self.chance.tolist(),
                "explained": (1 - self.losses / self.chance).tolist(),
            }
        )

    def figure(self) -> Figure:
        """How much of each concept's loss is gone, the best first."""
        import plotly.graph_objects as go

        frame = self.to_frame().sort_values("explained", kind="stable")
        labels = [theme.label(name) for name in frame["concept"]]
        picture = go.Figure(go.Bar(x=frame["explained"], y=labels, orientation="h", marker={"color": theme.OWN}))
        picture.update_xaxes(title="share of the loss by chance that is gone (training images)")
        return theme.styled(picture, f"concepts at {self.layer}", height=160 + 22 * len(frame))

    def headline(self) -> str:
        gone = 1 - self.losses / self.chance
        best, worst = int(gone.argmax()), int(gone.argmin())
        return (
            f"{len(self.names)} concepts from {self.weights.shape[1]} features of {self.layer}, {self.n} images; of "
            f"chance's loss {float(gone[best]):.0%} is gone at best ({self.names[best]}), {float(gone[worst]):.0%} at "
            f"worst ({self.names[worst]})"
        )


def directions_of(
    weights: Float[Tensor, "concept feature"], features: Float[Tensor, "n feature"]
) -> Float[Tensor, "concept feature"]:
    """The mean change of normal features, given that one concept's logit grows by 1 and the others stay.

    With S the features' covariance: (H S H')^-1 H S. Where heads depend on each other, the pseudo-inverse.
    """
    centred = features - features.mean(0)
    scores = centred @ weights.T  # least squares of the features on the logits, which never forms a covariance
    found: Tensor = torch.linalg.lstsq(scores, centred, driver="gelsd").solution
    return found

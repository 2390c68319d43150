"""`ConceptImages`: images with the concepts that are seen in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError, short, unknown


@dataclass(frozen=True, eq=False, repr=False)
class ConceptImages:
    """Images and, for each of them, which concepts are there.

    Attributes:
        images: float [n, channel, height, width], as the network takes them.
        concepts: bool [n, concept].
        names: of the concepts.
        classes: int [n]: what is seen, for training a network; None: unknown. Explanations do not read it.

    Raises `InputError` where these do not fit together.
    """

    images: Float[Tensor, "n channel height width"]
    concepts: Bool[Tensor, "n concept"]
    names: tuple[str, ...]
    classes: Int[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        images, concepts, names = self.images, self.concepts, tuple(self.names)
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not len(images):
            raise InputError(f"images must be floats [n, channel, height, width]; got {_shape(images)}")
        if not images.isfinite().all():
            raise InputError("images hold values that are NaN or infinite")
        if not isinstance(concepts, Tensor) or concepts.dtype != torch.bool or concepts.ndim != 2:
            raise InputError(f"concepts must be bool [n, concept]; got {_shape(concepts)}")
        if concepts.shape != (len(images), len(names)):
            raise InputError(
                f"concepts must be [{len(images)}, {len(names)}], for {len(images)} images and {len(names)} names; got "
                f"{list(concepts.shape)}"
            )
        if not names or len(set(names)) < len(names) or not all(isinstance(one, str) and one for one in names):
            raise InputError(f"names must be different words, one for each concept; got {short(list(names))}")
        if self.classes is not None and self.classes.shape != (len(images),):
            raise InputError(f"classes must be {len(images)} integers, one an image; got {_shape(self.classes)}")
        object.__setattr__(self, "names", names)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = "x".join(str(side) for side in self.images.shape[1:])
        return f"ConceptImages: {len(self)} images of {size}, {len(self.names)} concepts"

    def select(self, rows: Any) -> ConceptImages:
        """Some of the images: integers, a slice, or flags."""
        classes = None if self.classes is None else self.classes[rows]
        return ConceptImages(self.images[rows], self.concepts[rows], self.names, classes)

    def only(self, names: Sequence[str]) -> ConceptImages:
        """Some of the concepts, in the order given. Raises `InputError` for a name that is unknown."""
        for name in names:
            if name not in self.names:
                raise unknown("names", name, self.names)
        columns = [self.names.index(name) for name in names]
        return ConceptImages(self.images, self.concepts[:, columns], tuple(names), self.classes)

    @numbers.checked(share=numbers.BETWEEN)
    def split(self, share: float = 0.7, seed: int = 0) -> tuple[ConceptImages, ConceptImages]:
        """Two parts at random: this share of the images, and the others. Raises `InputError` where one is empty."""
        first = round(share * len(self))
        if not 0 < first < len(self):
            raise InputError(f"share={share} leaves one part of {len(self)} images empty; give more images")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed), device="cpu")
        return self.select(order[:first]), self.select(order[first:])


def _shape(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"

"""scikit-learn's digits, with concepts computed from the images, and a small network that reads them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from interp import numbers
from interp.concepts.images import ConceptImages
from interp.errors import InputError
from interp.running import settled

Image = NDArray[np.float64]  # [8, 8], from 0 to 1
INK, DARK = 0.25, 0.5  # of a pixel: the least that closes a loop, and that makes a stroke
_WIDTH, _RATE, _BATCH = 32, 2e-3, 64  # of the network and its training


def _holes(image: Image) -> list[tuple[float, float]]:
    """Centres of what ink encloses."""
    paper = np.pad(image < INK, 1, constant_values=True)
    labels, n = ndimage.label(paper)
    return [ndimage.center_of_mass(labels == one) for one in range(1, n + 1) if one != labels[0, 0]]


def _run(pixels: Image) -> int:
    """The longest stretch of dark pixels."""
    longest = length = 0
    for dark in pixels >= DARK:
        length = length + 1 if dark else 0
        longest = max(longest, length)
    return longest


def _row(first: int, last: int) -> Callable[[Image], bool]:
    return lambda image: max(_run(row) for row in image[first:last]) >= 4


def _column(first: int, last: int) -> Callable[[Image], bool]:
    return lambda image: max(_run(column) for column in image.T[first:last]) >= 5


def _slanted(flip: bool) -> Callable[[Image], bool]:
    return lambda image: max(_run(np.diagonal(image[:, ::-1] if flip else image, k)) for k in range(-2, 3)) >= 4


def _alike(turned: Callable[[Image], Image]) -> Callable[[Image], bool]:
    """Whether the image and its mirror image share four fifths of their ink."""
    return lambda image: bool(np.minimum(image, turned(image)).sum() >= 0.8 * image.sum())


def _inked(rows: slice, columns: slice, share: float) -> Callable[[Image], bool]:
    return lambda image: bool(image[rows, columns].sum() >= share * image.sum())


_TOP, _BOTTOM, _LEFT, _RIGHT = slice(0, 4), slice(4, 8), slice(0, 4), slice(4, 8)
CONCEPTS: dict[str, Callable[[Image], bool]] = {
    "a loop": lambda image: len(_holes(image)) >= 1,
    "two loops": lambda image: len(_holes(image)) >= 2,
    "a loop above": lambda image: any(row - 1 < 3 for row, _ in _holes(image)),
    "a loop below": lambda image: any(row - 1 > 4 for row, _ in _holes(image)),
    "a bar at the top": _row(0, 2),
    "a bar in the middle": _row(3, 5),
    "a bar at the bottom": _row(6, 8),
    "a stem at the left": _column(0, 3),
    "a stem in the middle": _column(3, 5),
    "a stem at the right": _column(5, 8),
    "a stroke that falls": _slanted(False),
    "a stroke that rises": _slanted(True),
    "left like right": _alike(np.fliplr),
    "top like bottom": _alike(np.flipud),
    "the same upside down": _alike(lambda image: image[::-1, ::-1]),
    "ink at the top left": _inked(_TOP, _LEFT, 0.25),
    "ink at the top right": _inked(_TOP, _RIGHT, 0.3),
    "ink at the bottom left": _inked(_BOTTOM, _LEFT, 0.2),
    "ink at the bottom right": _inked(_BOTTOM, _RIGHT, 0.25),
    "ink in the centre": _inked(slice(2, 6), slice(2, 6), 0.4),
    "much ink": lambda image: bool(image.mean() >= 0.31),
}


def load_digits() -> ConceptImages:
    """scikit-learn's 1,797 digits, float32 [n, 1, 8, 8] from 0 to 1, with 21 concepts computed from each image alone.

    Loops (paper that ink encloses, and where), bars, stems and slanted strokes (stretches of dark pixels), symmetry
    (the share of ink under the mirror image), the share of ink by region, and how much there is. `.classes` are the
    digits.

    Raises `InputError` without scikit-learn (`pip install faithful-circuits[concepts]`).
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(
            f"the digits need scikit-learn ({error}); install it with `pip install 'faithful-circuits[concepts]'`"
        ) from error
    found = datasets.load_digits()
    pictures = found.images / 16
    there = [[bool(holds(picture)) for holds in CONCEPTS.values()] for picture in pictures]
    return ConceptImages(
        torch.from_numpy(pictures[:, None].astype(np.float32)),
        torch.tensor(there, device="cpu"),
        tuple(CONCEPTS),
        torch.from_numpy(found.target.astype(np.int64)),
    )


@numbers.checked(epochs=numbers.COUNT)
def digit_network(images: ConceptImages, epochs: int = 30, seed: int = 0) -> nn.Sequential:
    """A small convolutional network trained to classify images; its pooled features are the output of `pooled`.

    Two convolutions, pooling, a third to 32 features, their average, and a linear layer. AdamW on cross-entropy;
    seconds on a CPU for the digits.

    Raises `InputError` for images without classes.

    >>> import torch
    >>> data = ConceptImages(torch.rand(8, 1, 8, 8), torch.rand(8, 2) > 0.5, ("a", "b"), torch.arange(8) % 3)
    >>> digit_network(data, epochs=1)(data.images).shape
    torch.Size([8, 3])
    """
    if images.classes is None:
        raise InputError("images have no classes; a network needs them to be trained")
    kind = {"dtype": torch.float32, "device": "cpu"}
    with settled(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw from the global state
        network = nn.Sequential(
            OrderedDict(
                first=nn.Conv2d(images.images.shape[1], 16, 3, padding=1, **kind),  # type: ignore[arg-type]
                bent=nn.ReLU(),
                second=nn.Conv2d(16, _WIDTH, 3, padding=1, **kind),  # type: ignore[arg-type]
                bent_again=nn.ReLU(),
                smaller=nn.MaxPool2d(2),
                third=nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, **kind),  # type: ignore[arg-type]
                bent_last=nn.ReLU(),
                pooled=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                classes=nn.Linear(_WIDTH, int(images.classes.max()) + 1, **kind),  # type: ignore[arg-type]
            )
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=generator, device="cpu").split(_BATCH):
                loss = F.cross_entropy(network(images.images[rows].float()), images.classes[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval().requires_grad_(False)

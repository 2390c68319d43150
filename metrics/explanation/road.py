"""ROAD: removed pixels are imputed from their neighbours, so that a mask's shape gives nothing away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from metrics.explanation.curves import Curves, removal_curves
from metrics.explanation.prediction import Array
from metrics.explanation.replacement import Fill

BESIDE, ACROSS = 1 / 6, 1 / 12  # weights of the four neighbours beside and the four across the corners


@dataclass(frozen=True)
class Road:
    """Noisy linear imputation (Rong et al., ICML 2022): a removed pixel is the weighted mean of its neighbours.

    The weights are 1/6 beside and 1/12 across the corners; at the border those of missing neighbours fall away. All
    removed pixels are solved for at once. Normal noise of standard deviation `noise` is added to them, in the units
    of the input; it is the same at every step of a sample. Where no pixel is left, all are the image's channel means.
    """

    noise: float = 0.01

    def __post_init__(self) -> None:
        numbers.settle(self, noise=numbers.Limits(0, advice="0.01 is the paper's"))

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        if inputs.ndim != 4:
            raise InputError(f"ROAD imputes pixels of images [n, c, h, w]; inputs are {list(inputs.shape)}")
        noise = self.noise * np.random.default_rng(seed).standard_normal(tuple(inputs.shape))

        def fill(samples: Tensor, mask: Tensor) -> Tensor:
            images, masks = inputs[samples].cpu().double().numpy(), mask.cpu().numpy()
            for image, own, extra in zip(images, masks, noise[samples.cpu().numpy()], strict=True):
                image[:, own] = impute(image, own) + extra[:, own]
            return torch.from_numpy(images).to(inputs)

        return fill


def impute(image: Array, mask: NDArray[np.bool_]) -> Array:
    """Values `[c, removed]` of the pixels that `mask` [h, w] removes from `image` [c, h, w].

    For each removed pixel i: sum over neighbours j of w_ij (x_i - x_j) = 0, the pixels that stay being known.
    """
    if mask.all():
        return np.repeat(image.mean((1, 2))[:, None], mask.sum(), axis=1)
    count, (height, width) = int(mask.sum()), mask.shape
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(count)
    rows, columns = np.nonzero(mask)
    diagonal, known = np.zeros(count), np.zeros((count, len(image)))
    entries: list[tuple[NDArray[np.int64], NDArray[np.int64], Array]] = []
    for down, right in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]:
        weight = ACROSS if down and right else BESIDE
        r, c = rows + down, columns + right
        inside = np.flatnonzero((r >= 0) & (r < height) & (c >= 0) & (c < width))
        diagonal[inside] += weight
        neighbour = number[r[inside], c[inside]]
        unknown = neighbour >= 0
        entries.append((inside[unknown], neighbour[unknown], np.full(int(unknown.sum()), -weight)))
        there = inside[~unknown]
        known[there] += weight * image[:, r[there], c[there]].T
    entries.append((np.arange(count), np.arange(count), diagonal))
    i, j, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    return np.asarray(splu(coo_array((values, (i, j)), shape=(count, count)).tocsc()).solve(known)).T


@numbers.checked(noise=numbers.FROM_ZERO)
def road(predict: Callable[[Any], Any], images: Any, salience: Any, *, noise: float = 0.01, **settings: Any) -> Curves:
    """MoRF and LeRF curves with ROAD's noisy linear imputation (Rong et al., ICML 2022).

    `images` [n, c, h, w], `salience` [n, h, w] or a coarser grid. `settings` are those of `removal_curves`, without
    the replacement; `measure="accuracy"` with the true classes as `target` is what the paper reports. One sparse
    solve per sample and step, on the CPU.

    Raises:
        InputError: inputs that are no images, and as in `removal_curves`.
    """
    if "replacement" in settings:
        raise InputError("road has its own replacement; use removal_curves for another")
    return removal_curves(predict, images, salience, replacement=Road(noise), **settings)

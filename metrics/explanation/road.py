"""ROAD: removed pixels are imputed from their neighbours, so that a mask's shape gives nothing away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.keywords import check_keywords
from metrics.explanation.baselines import Baseline, Fill
from metrics.explanation.curves import Curves, RemovalCurvesMetric
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import Array, SampleKeywords

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


@dataclass(frozen=True)
class RoadMetric(ExplanationMetric):
    """ROAD (Rong et al., ICML 2022): `road` says what it is and what its settings mean."""

    noise: float = 0.01
    insertion: Baseline | None = None
    fractions: int | Sequence[float] = 10
    measure: str = "probability"

    name = "road"
    columns = {f"road-{name}": name for name in ("morf", "lerf", "between")}  # noqa: RUF012

    def __post_init__(self) -> None:
        Road(self.noise)
        self._curves()

    def objection(self, case: Case) -> str | None:
        shape = list(case.tensor.shape)
        return None if len(shape) == 4 else f"imputes pixels of images [n, c, h, w]; inputs are {shape}"

    def run(self, case: Case) -> Curves:
        return self._curves().run(replace(case, subject=case.subject.filled(Road(self.noise))))

    def _curves(self) -> RemovalCurvesMetric:
        return RemovalCurvesMetric(self.insertion, self.fractions, self.measure)


@numbers.checked(noise=numbers.FROM_ZERO)
def road(
    predict: Callable[[Any], Any],
    images: Any,
    attributions: Any,
    *,
    noise: float = 0.01,
    target: Any = None,
    insertion: Baseline | None = None,
    fractions: int | Sequence[float] = 10,
    measure: str = "probability",
    real: Any = None,
    n_random: int = 0,
    **keywords: Unpack[SampleKeywords],
) -> Curves:
    """MoRF and LeRF curves with ROAD's noisy linear imputation (Rong et al., ICML 2022).

    `images` [n, c, h, w], `attributions` [n, h, w] or a coarser grid; the rest as in `removal_curves`, but that there
    is no baseline. `measure="accuracy"` with the true classes as `target` is what the paper reports. One sparse solve
    per sample and step, on the CPU.

    Raises:
        InputError: inputs that are no images, and as in `removal_curves`.
    """
    if {"baseline", "replacement"} & keywords.keys():
        raise InputError("road has its own baseline; use removal_curves for another")
    check_keywords("road", keywords, SampleKeywords)
    metric = RemovalCurvesMetric(insertion, fractions, measure)
    case = Case.of(
        predict, images, attributions, keywords, target=target, baseline=Road(noise), real=real, n_random=n_random
    )
    return metric.run(case)

"""What every explanation metric stands on: a model as a callable, inputs whose elements can be removed, a ranking.

An element is what one score belongs to: a pixel, a patch, a feature or a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.arrays import as_tensor
from interp.errors import InputError
from interp.interval import IntervalKeywords
from interp.run import Run
from interp.running import evaluated
from metrics.explanation.baselines import Baseline, Delete, Fill, filler

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
BATCH = 64  # inputs per call of predict, where nobody says otherwise


class PredictKeywords(TypedDict, total=False):
    """How a user's `predict` is called: the part of `Run` that has a meaning there."""

    batch_size: int | None
    quiet: bool


class SampleKeywords(PredictKeywords, IntervalKeywords, total=False):
    """The keywords of per-sample metrics: of their runs, and of their intervals over samples."""


@dataclass(frozen=True)
class Predictor:
    """A user's `predict`, called without gradients or dropout on arrays of the user's kind; its result is checked."""

    predict: Callable[[Any], Any]
    batch_size: int
    numpy: bool

    def __post_init__(self) -> None:
        if not callable(self.predict):
            raise InputError(f"predict must be a function from inputs to class probabilities; got {self.predict!r}")
        numbers.settle(self)

    @classmethod
    def of(cls, predict: Callable[[Any], Any], inputs: Any, run: Run) -> Predictor:
        """For inputs of the kind of `inputs`."""
        return cls(predict, run.batch_size or BATCH, isinstance(inputs, np.ndarray))

    def __call__(self, inputs: Tensor) -> Float[Tensor, "b classes"]:
        """Probabilities of one batch, as float64 on the CPU."""
        with torch.no_grad(), evaluated(self.predict):
            # a copy: the user's function may normalise in place
            result = self.predict(inputs.cpu().numpy().copy() if self.numpy else inputs.clone())
        if not isinstance(result, Tensor | np.ndarray):
            raise InputError(
                f"predict must return an array of class probabilities [n, class]; got a {type(result).__name__}"
            )
        values = as_tensor(result).detach().cpu().double()
        if values.ndim != 2 or len(values) != len(inputs) or values.shape[1] < 2:
            raise InputError(
                f"predict must return probabilities of shape [{len(inputs)}, class] with at least two classes for "
                f"{len(inputs)} inputs; got {list(values.shape)}"
            )
        if not values.isfinite().all():
            raise InputError("predict returned values that are NaN or infinite")
        low, high = float(values.min()), float(values.max())
        if low < -1e-6 or high > 1 + 1e-4:
            raise InputError(
                f"predict must return probabilities between 0 and 1; got values from {low:.3g} to {high:.3g}, which "
                "look like logits: end predict with a softmax"
            )
        return values

    def all(self, inputs: Tensor) -> Float[Tensor, "n classes"]:
        """Probabilities of all inputs, batch by batch."""
        return torch.cat([self(part) for part in inputs.split(self.batch_size)])


@dataclass(frozen=True)
class Subject:
    """Inputs, a model and attributions, ready for elements to be removed.

    `attributions`, `real` and `rank` are `[n, element]`. The rank of the most relevant element is 0; equal elements
    stand in random order, since reading order would be a hint; elements that are not real rank behind all others.
    """

    predictor: Predictor
    inputs: Tensor
    grid: tuple[int, ...]  # the shape of one sample's attributions
    attributions: Array
    real: Flags
    rank: Indices
    target: Int[Tensor, " n"]
    clean: Array  # [n], probability of the target
    decision: Indices  # [n], most likely class
    fill: Fill
    seed: int
    run: Run

    @classmethod
    def of(
        cls,
        predict: Callable[[Any], Any],
        inputs: Any,
        attributions: Any,
        *,
        target: Any = None,
        baseline: Baseline | None = None,
        real: Any = None,
        run: Run = Run(),  # noqa: B008  frozen
        seed: int = 0,
    ) -> Subject:
        """Check everything once and run the model on the inputs as they are."""
        predictor = Predictor.of(predict, inputs, run)
        tensor = as_inputs(inputs)
        scores, flags, grid = as_attributions(attributions, real, tensor)
        fill = filler(baseline, tensor, seed, predictor.numpy)
        probabilities = predictor.all(tensor)
        chosen = targets(target, probabilities)
        if isinstance(baseline, Delete):
            baseline.check(predictor, tensor)
        return cls(
            predictor=predictor,
            inputs=tensor,
            grid=grid,
            attributions=scores,
            real=flags,
            rank=ranks(scores, flags, seed),
            target=chosen,
            clean=probabilities.gather(1, chosen[:, None])[:, 0].numpy(),
            decision=probabilities.argmax(1).numpy(),
            fill=fill,
            seed=seed,
            run=run,
        )

    @property
    def sizes(self) -> Indices:
        """How many elements each sample has."""
        return np.asarray(self.real.sum(1))

    @property
    def note(self) -> str:
        """A sentence on samples that cannot be ranked, if there are any."""
        flat = sum(np.ptp(scores[flags]) == 0 for scores, flags in zip(self.attributions, self.real, strict=True))
        return f"{flat} of {len(self.real)} samples have constant attributions: their order is random." if flat else ""

    def shuffled(self, seed: int) -> Subject:
        """The same with each sample's scores dealt out at random, which any explanation should beat."""
        attributions = shuffled(self.attributions, self.real, seed)
        return replace(self, attributions=attributions, rank=ranks(attributions, self.real, seed))

    def filled(self, baseline: Baseline | None) -> Subject:
        """The same with another baseline; None: the same as it is."""
        if baseline is None:
            return self
        return replace(self, fill=filler(baseline, self.inputs, self.seed, self.predictor.numpy))

    def hushed(self) -> Subject:
        """The same without progress bars."""
        return replace(self, run=self.run.hushed())

    def windows(self, low: Indices, high: Indices, description: str) -> tuple[Array, Indices]:
        """Probability of the target and most likely class `[n, k]`, elements of rank low to high - 1 removed."""
        n, k = low.shape
        rank = torch.from_numpy(self.rank)
        lows, highs = (torch.from_numpy(np.ascontiguousarray(v)).reshape(-1) for v in (low, high))

        def masks(rows: slice) -> Tensor:
            own = rank[torch.arange(rows.start, rows.stop, device="cpu") // k]
            return (own >= lows[rows, None]) & (own < highs[rows, None])

        value, decision = self.measure(np.repeat(np.arange(n), k), masks, description)
        return value.reshape(n, k), decision.reshape(n, k)

    def measure(
        self, samples: Indices, masks: Callable[[slice], Bool[Tensor, "b element"]], description: str
    ) -> tuple[Array, Indices]:
        """Probability of the target and most likely class of perturbed inputs, one for each entry of `samples`.

        `masks` gives the elements to remove for a slice of those entries, so that no more than a batch is held.
        """
        values, decisions = np.empty(len(samples)), np.empty(len(samples), np.int64)
        device, size = self.inputs.device, self.predictor.batch_size
        with self.run.progress(description, len(samples)) as bar:
            for start in range(0, len(samples), size):
                rows = slice(start, min(start + size, len(samples)))
                own = torch.from_numpy(samples[rows])
                probabilities = self.predictor(self.fill(own.to(device), self.spread(masks(rows)).to(device)))
                values[rows] = probabilities.gather(1, self.target[own, None])[:, 0].numpy()
                decisions[rows] = probabilities.argmax(1).numpy()
                bar.advance(rows.stop - rows.start)
        return values, decisions

    def spread(self, mask: Bool[Tensor, "b element"]) -> Bool[Tensor, "b ..."]:
        """A mask over elements as one over pixels, features or tokens."""
        mask = mask.unflatten(1, self.grid)
        if self.inputs.ndim == 4:
            for axis in (1, 2):
                mask = mask.repeat_interleave(self.inputs.shape[axis + 1] // self.grid[axis - 1], axis)
        return mask


def shuffled(attributions: Array, real: Flags, seed: int) -> Array:
    """Salience `[n, element]` with the scores of each sample's real elements in random order."""
    result = attributions.copy()
    for i, free in enumerate(real):
        result[i, free] = np.random.default_rng((seed, i)).permutation(attributions[i, free])
    return result


def ranks(attributions: Array, real: Flags, seed: int) -> Indices:
    """Ranks `[n, element]` by falling attributions, ties in random order; elements that are not real come last."""
    result = np.full(attributions.shape, attributions.shape[1], np.int64)
    for i, (scores, flags) in enumerate(zip(attributions, real, strict=True)):
        dealt = np.random.default_rng((seed, i)).permutation(np.flatnonzero(flags))
        result[i, dealt[np.argsort(-scores[dealt], kind="stable")]] = np.arange(len(dealt))
    return result


def as_inputs(inputs: Any) -> Tensor:
    """Images `[n, c, h, w]`, features `[n, d]` or token ids `[n, pos]` as a tensor."""
    if not isinstance(inputs, Tensor | np.ndarray):
        raise InputError(f"inputs must be a tensor or an array; got a {type(inputs).__name__}")
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind not in "iuf":
        raise InputError(f"inputs must be numbers; got {inputs.dtype}")
    tensor = as_tensor(inputs).detach()
    if tensor.ndim not in (2, 4) or 0 in tensor.shape or tensor.dtype == torch.bool or tensor.is_complex():
        raise InputError(
            "inputs must be images [n, c, h, w], feature vectors [n, d] or token ids [n, pos]; got "
            f"{tensor.dtype} {list(tensor.shape)}"
        )
    if tensor.is_floating_point():
        if not tensor.isfinite().all():
            raise InputError(f"inputs holds {int((~tensor.isfinite()).sum())} values that are NaN or infinite")
    elif tensor.ndim == 4:
        raise InputError(f"inputs are {tensor.dtype} images; hand in floats, as the model takes them")
    return tensor


def as_attributions(attributions: Any, real: Any, inputs: Tensor) -> tuple[Array, Flags, tuple[int, ...]]:
    """Scores and flags of real elements, both `[n, element]`, and the shape of one sample's attributions."""
    try:
        if isinstance(attributions, Tensor):
            attributions = attributions.detach().cpu().double().numpy()
        scores = np.asarray(attributions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"attributions must be numbers: {error}") from None
    n, *sides = inputs.shape if inputs.ndim == 2 else (len(inputs), *inputs.shape[2:])
    fits = scores.shape == (n, *sides)
    if inputs.ndim == 4 and scores.ndim == 3 and len(scores) == n and 0 not in scores.shape:
        fits = all(side % own == 0 for side, own in zip(sides, scores.shape[1:], strict=True))
    if not fits:
        what = f"[{n}, {sides[0]}]"
        if inputs.ndim == 4:
            what = f"[{n}, {sides[0]}, {sides[1]}], or a coarser grid of patches that divides it"
        raise InputError(
            f"attributions have shape {list(scores.shape)} for inputs of shape {list(inputs.shape)}; they must be "
            f"{what}"
        )
    flags = np.ones(scores.shape, bool) if real is None else np.asarray(_on_cpu(real))
    if flags.shape != scores.shape or not np.isin(flags, (0, 1)).all():
        raise InputError(f"real must be true or false for each of attributions' {list(scores.shape)} elements")
    flags = flags.astype(bool).reshape(n, -1)
    flat = np.where(flags, scores.reshape(n, -1), 0.0)
    if not flags.any(1).all():
        raise InputError(f"real leaves no element of sample {int(np.argmin(flags.any(1)))}")
    bad = ~np.isfinite(flat)
    if bad.any():
        where = f"the first in sample {int(np.argmax(bad.any(1)))}"
        raise InputError(f"attributions hold {int(bad.sum())} values that are NaN or infinite, {where}")
    return flat, flags, scores.shape[1:]


def targets(target: Any, probabilities: Float[Tensor, "n classes"]) -> Int[Tensor, " n"]:
    """Classes to explain: one for all samples, one each, or the most likely ones (None)."""
    n, classes = probabilities.shape
    if target is None:
        return probabilities.argmax(1)
    chosen = np.asarray(_on_cpu(target))
    if chosen.dtype.kind not in "iu" or chosen.shape not in ((), (n,)):
        raise InputError(f"target must be a class or {n} classes, one a sample; got {chosen.dtype} {chosen.shape}")
    outside = chosen[(chosen < 0) | (chosen >= classes)]
    if outside.size:
        raise InputError(f"target holds {int(outside[0])}, which is no class; predict gives classes 0 to {classes - 1}")
    return torch.from_numpy(np.broadcast_to(chosen, (n,)).astype(np.int64))


def _on_cpu(values: Any) -> Any:
    return values.detach().cpu() if isinstance(values, Tensor) else values

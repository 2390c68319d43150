"""What ROAR masks: splits of a data set, the elements of an input, and how they are removed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.arrays import as_tensor
from interp.errors import InputError, unknown

SPLITS = ("train", "validation", "test")
Remove = Callable[[Tensor, Tensor], Tensor]  # inputs [n, ...] and removed [n, element...] -> inputs


@dataclass(frozen=True)
class Split:
    """Inputs [n, ...], labels [n] and which elements may be masked [n, element...]."""

    inputs: Tensor
    labels: Int[Tensor, " n"]
    maskable: Bool[Tensor, "n ..."]


def splits_of(data: Mapping[str, Sequence[Any]]) -> dict[str, Split]:
    """Check `{"train": (inputs, labels), "validation": ..., "test": ...}`; a third entry is the `maskable` mask.

    Elements are the positions of [n, pos], features of [n, d], pixels of [n, h, w] and [n, channel, h, w] (all
    channels of a pixel together); the shape of a `maskable` mask says otherwise, e.g. [n, pos] for inputs
    [n, pos, d].
    """
    if not isinstance(data, Mapping):
        raise InputError(
            f"data must map 'train', 'validation' and 'test' to (inputs, labels); got {type(data).__name__}"
        )
    for name in data:
        if name not in SPLITS:
            raise unknown("data split", name, SPLITS)
    missing = [name for name in SPLITS if name not in data]
    if missing:
        raise InputError(f"data lacks {' and '.join(map(repr, missing))}; it needs 'train', 'validation' and 'test'")
    splits = {name: _split(name, data[name]) for name in SPLITS}
    for attribute in ("inputs", "maskable"):
        shapes = {name: tuple(getattr(split, attribute).shape[1:]) for name, split in splits.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"data: {attribute} differ in shape between the splits: {shapes}")
    return splits


def _split(name: str, parts: Sequence[Any]) -> Split:
    if not isinstance(parts, Sequence) or len(parts) not in (2, 3):
        raise InputError(f"data[{name!r}] must be (inputs, labels) or (inputs, labels, maskable)")
    inputs, labels = (as_tensor(part).detach() for part in parts[:2])
    if inputs.ndim < 2 or len(inputs) == 0:
        raise InputError(f"data[{name!r}]: inputs must be [n, ...] with n at least 1; got {tuple(inputs.shape)}")
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        raise InputError(f"data[{name!r}]: inputs hold values that are NaN or infinite")
    if labels.shape != inputs.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"data[{name!r}]: labels must be {len(inputs)} whole numbers, one for each input; "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    pixels = inputs[:, 0] if inputs.ndim == 4 else inputs
    if len(parts) == 2:
        return Split(inputs, labels, torch.ones(pixels.shape, dtype=torch.bool, device="cpu"))
    maskable = as_tensor(parts[2])
    if maskable.dtype != torch.bool or maskable.shape not in (
        pixels.shape,
        *(inputs.shape[:k] for k in range(2, inputs.ndim + 1)),
    ):
        raise InputError(
            f"data[{name!r}]: maskable must be bool, one for each element of inputs {tuple(inputs.shape)}; "
            f"got {maskable.dtype} {tuple(maskable.shape)}"
        )
    if not maskable.flatten(1).any(1).all():
        raise InputError(f"data[{name!r}]: maskable allows nothing to be masked in some inputs; leave those out")
    return Split(inputs, labels, maskable)


def digest(splits: Mapping[str, Split]) -> str:
    """A checksum of everything in the splits."""
    checksum = hashlib.sha256()
    for split in splits.values():
        for tensor in (split.inputs, split.labels, split.maskable):
            array = np.ascontiguousarray(tensor.cpu().numpy())
            checksum.update(f"{array.dtype}{array.shape}".encode())
            checksum.update(array.data)
    return checksum.hexdigest()


def expand(removed: Tensor, inputs: Tensor) -> Tensor:
    """A mask of elements, made to broadcast over inputs."""
    if inputs.ndim == 4 and removed.shape == inputs[:, 0].shape:
        return removed[:, None]
    return removed.reshape(*removed.shape, *[1] * (inputs.ndim - removed.ndim))


@dataclass(frozen=True)
class Fill:
    """Removed elements are overwritten by a value that broadcasts over one input."""

    value: Tensor

    def __call__(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Inputs with the removed elements overwritten."""
        return torch.where(expand(removed, inputs), self.value.to(inputs.dtype), inputs)


def remover(mask: Any, train: Split) -> Remove:
    """How elements are removed: `"mean"` of the training inputs at each place, a value or token id, or a callable."""
    if callable(mask) and not isinstance(mask, Tensor):
        given: Remove = mask
        return given
    whole = not train.inputs.is_floating_point()
    if isinstance(mask, str):
        if mask != "mean":
            raise unknown("mask", mask, ["mean"])
        if whole:
            raise InputError("mask='mean' cannot be taken of token ids; give the id of the mask token, as mask=103")
        return Fill(train.inputs.double().mean(0))
    try:
        value = as_tensor(mask)
        value.expand(train.inputs.shape[1:])
    except (RuntimeError, TypeError, ValueError):
        raise InputError(
            f"mask={mask!r} must be 'mean', a number, an array that broadcasts over an input of shape "
            f"{tuple(train.inputs.shape[1:])}, or a callable (inputs, removed) -> inputs"
        ) from None
    if whole and value.is_floating_point():
        raise InputError(f"mask={mask!r} must be a whole number: inputs are token ids")
    return Fill(value)


def removed_inputs(remove: Remove, inputs: Tensor, removed: Tensor) -> Tensor:
    """Inputs without the removed elements; refuses a callable that returns something else."""
    result = remove(inputs, removed)
    if not isinstance(result, Tensor) or result.shape != inputs.shape:
        given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"mask must return inputs of shape {tuple(inputs.shape)}, as it was given; got {given}")
    return result


def counts(maskable: Bool[Tensor, "n ..."], step: float) -> Int[np.ndarray, " n"]:
    """How many elements of each input a step masks: a share (a float; halves round up) or a number (an int)."""
    available = maskable.flatten(1).sum(1).cpu().numpy()
    if isinstance(step, int):
        return np.asarray(np.minimum(step, available))
    return np.asarray(np.floor(step * available + 0.5), np.int64)


def mask_top(
    scores: Float[Tensor, "n ..."],
    maskable: Bool[Tensor, "n ..."],
    removed: Bool[Tensor, "n ..."],
    step: float,
    seed: int,
) -> Bool[Tensor, "n ..."]:
    """Mask up to a step: what is removed already, then the largest scores. Ties fall at random."""
    key = scores.double().masked_fill(~maskable, -torch.inf).masked_fill(removed, torch.inf)
    noise = np.random.default_rng(seed).random((len(key), key[0].numel()))
    order = np.lexsort((noise, -key.flatten(1).numpy()), axis=1)
    ranks = np.argsort(order, axis=1)
    return torch.from_numpy(ranks < counts(maskable, step)[:, None]).reshape(maskable.shape)

"""What stands in the place of an element that is removed from an input: one small rule for each way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor

from interp import numbers
from interp.arrays import as_tensor
from interp.errors import InputError, choose

# (samples [b], mask of what to remove [b, h, w] or [b, d] or [b, pos]) -> inputs [b, ...]
Fill = Callable[[Int[Tensor, " b"], Bool[Tensor, "b ..."]], Tensor]


PAD_ERROR = 1e-2  # in a probability; half precision rounds by less


@runtime_checkable
class BaselineRule(Protocol):
    """A way to remove elements: prepared once for all inputs, so that no random number depends on the batches."""

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        """The function that makes perturbed inputs from sample numbers and masks."""


@dataclass(frozen=True)
class Zero:
    """Zero."""

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        _refuse_tokens("zero", inputs)
        return swap(inputs, torch.zeros_like(inputs))


@dataclass(frozen=True)
class Mean:
    """Images: the image's own channel means. Feature vectors: each feature's mean over the samples handed in."""

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        _refuse_tokens("mean", inputs)
        return swap(inputs, centre("mean", inputs).expand_as(inputs))


@dataclass(frozen=True)
class Blur:
    """The image blurred by a Gaussian of `sigma` pixels; None: an eighth of the shorter side."""

    sigma: float | None = None

    def __post_init__(self) -> None:
        numbers.settle(self, sigma=numbers.POSITIVE)

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        if inputs.ndim != 4:
            raise InputError("baseline='blur' is for images [n, c, h, w]; features have 'mean', 'zero' and 'noise'")
        sigma = self.sigma or min(inputs.shape[2:]) / 8
        blurred = gaussian_filter(inputs.detach().cpu().double().numpy(), sigma, axes=(2, 3))
        return swap(inputs, torch.from_numpy(blurred).to(inputs))


@dataclass(frozen=True)
class Noise:
    """Normal noise with the mean and `scale` times the standard deviation of the channel, or of the feature."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        numbers.settle(self, scale=numbers.FROM_ZERO)

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        _refuse_tokens("noise", inputs)
        axes = (2, 3) if inputs.ndim == 4 else (0,)
        spread = inputs.std(axes, keepdim=True, correction=0)
        drawn = np.random.default_rng(seed).standard_normal(tuple(inputs.shape))
        return swap(inputs, centre("noise", inputs) + self.scale * spread * torch.from_numpy(drawn).to(inputs))


@dataclass(frozen=True)
class Token:
    """One token id, such as that of the mask token."""

    id: int

    def __post_init__(self) -> None:
        numbers.settle(self, id=numbers.FROM_ZERO)

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        _only_tokens(f"Token({self.id})", inputs)
        return swap(inputs, torch.full_like(inputs, self.id))


@dataclass(frozen=True)
class Delete:
    """Removed tokens leave no gap: the others move up, and `pad`, which the model must ignore, fills the end."""

    pad: int

    def __post_init__(self) -> None:
        numbers.settle(self, pad=numbers.FROM_ZERO)

    def prepare(self, inputs: Tensor, seed: int) -> Fill:
        _only_tokens(f"Delete({self.pad})", inputs)

        def fill(samples: Tensor, mask: Tensor) -> Tensor:
            order = mask.to(torch.uint8).argsort(dim=1, stable=True)
            return inputs[samples].masked_fill(mask, self.pad).gather(1, order)

        return fill

    def check(self, predict: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
        """Raise `InputError` if `predict` reads `pad`; a model that takes inputs of one width alone cannot be asked."""
        shorter = inputs[:1, :-1]
        if not shorter.numel():
            return
        try:
            alone = predict(shorter)
        except Exception:  # of whatever kind: it is the user's own function
            return
        error = float((predict(torch.cat((shorter, torch.full_like(inputs[:1, :1], self.pad)), 1)) - alone).abs().max())
        if error > PAD_ERROR:
            raise InputError(
                f"baseline=Delete({self.pad}), but the model does not ignore that token: one more of it at the end "
                f"moves a probability by {error:.2g}; make predict mask it (attention_mask=ids != {self.pad}), or "
                "give a token id"
            )


NAMED: dict[str, BaselineRule] = {"mean": Mean(), "zero": Zero(), "blur": Blur(), "noise": Noise()}
Baseline = str | int | BaselineRule | Callable[[Any, Any], Any]


def filler(baseline: Baseline | None, inputs: Tensor, seed: int, numpy: bool) -> Fill:
    """The function that removes elements from `inputs`.

    `baseline` is a name (`mean`, `zero`, `blur`, `noise`), a token id, a rule, or any function
    (inputs, mask) -> inputs, which is handed arrays if `numpy`. None: `mean` where inputs are not tokens.
    """
    tokens = not inputs.is_floating_point()
    if baseline is None and tokens:
        raise InputError(
            "baseline is needed for token inputs: a token id such as tokenizer.mask_token_id, Delete(pad), or a "
            "function (inputs, mask) -> inputs"
        )
    if isinstance(token := numbers.read(baseline), int):
        return Token(token).prepare(inputs, seed)
    if baseline is None or isinstance(baseline, str):
        return NAMED[choose("baseline", baseline or "mean", NAMED)].prepare(inputs, seed)
    if isinstance(baseline, type) or not (isinstance(baseline, BaselineRule) or callable(baseline)):
        raise InputError(
            f"baseline={baseline!r} must be one of {', '.join(NAMED)}, a token id, a rule, or a function "
            "(inputs, mask) -> inputs"
        )
    if isinstance(baseline, BaselineRule):
        return baseline.prepare(inputs, seed)
    return _function(baseline, inputs, numpy)


def swap(inputs: Tensor, reference: Tensor) -> Fill:
    """Removed elements are taken from `reference`, which is shaped like the inputs."""

    def fill(samples: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[:, None] if inputs.ndim == 4 else mask, reference[samples], inputs[samples])

    return fill


def centre(name: str, inputs: Tensor) -> Tensor:
    """Means of channels `[n, c, 1, 1]`, or of features over samples `[1, d]`."""
    if inputs.ndim == 4:
        return inputs.mean((2, 3), keepdim=True)
    if len(inputs) < 2:
        raise InputError(
            f"baseline={name!r} takes a feature's mean over the samples, and there is one sample; give more, or "
            "baseline='zero', or a function (inputs, mask) -> inputs"
        )
    return inputs.mean(0, keepdim=True)


def _function(baseline: Callable[[Any, Any], Any], inputs: Tensor, numpy: bool) -> Fill:
    def fill(samples: Tensor, mask: Tensor) -> Tensor:
        chosen = inputs[samples]
        given = (chosen.cpu().numpy(), mask.cpu().numpy()) if numpy else (chosen, mask)
        result = baseline(*given)
        shape = getattr(result, "shape", None)
        if shape is None or tuple(shape) != tuple(chosen.shape):
            raise InputError(
                f"baseline must return inputs of shape {list(chosen.shape)}, as it is given; got "
                f"{type(result).__name__ if shape is None else list(shape)}"
            )
        return as_tensor(result).to(inputs)

    return fill


def _refuse_tokens(name: str, inputs: Tensor) -> None:
    if not inputs.is_floating_point():
        raise InputError(f"baseline={name!r} has no meaning for token ids; give a token id, or Delete(pad)")


def _only_tokens(name: str, inputs: Tensor) -> None:
    if inputs.is_floating_point():
        raise InputError(f"baseline={name} is for token ids; these inputs are floats: use 'mean', 'zero' or 'noise'")
